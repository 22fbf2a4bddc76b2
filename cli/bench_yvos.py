"""`segic bench yvos18` and `yvos19`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segic.errors import UsageError

from .bench_options import (
    data_option,
    load_model,
    names_in,
    out_option,
    progress_bar,
    shard_of,
    shard_option,
    show,
    show_options,
    show_unfinished,
    stacked,
)
from .model_options import model_options

if TYPE_CHECKING:
    from segic_benchmarks.result import Result

_options = stacked(
    [
        data_option,
        click.option("--split", default="valid", show_default=True, help="Folder of the split in DATA."),
        click.option("--sequences", help="Only these videos, separated by commas."),
        click.option("--all-frames", is_flag=True, help="Follow the objects at the full rate, in SPLIT_all_frames."),
        click.option(
            "--seen",
            type=click.Path(path_type=Path),
            help="List of the seen classes, one a line.  [default: those of train/meta.json]",
        ),
        click.option(
            "--results",
            type=click.Path(path_type=Path),
            help="Run no model: score the palette PNGs RESULTS/VIDEO/FRAME.png, made by anyone.",
        ),
        out_option,
        model_options,
        shard_option,
        show_options,
    ]
)


@click.command()
@_options
def yvos18(**options: Any) -> None:
    """Run YouTube-VOS 2018: write the submission, score it where masks are at hand."""
    _run_yvos(2018, **options)


@click.command()
@_options
def yvos19(**options: Any) -> None:
    """Run YouTube-VOS 2019: write the submission, score it where masks are at hand."""
    _run_yvos(2019, **options)


def _run_yvos(
    year: int,
    *,
    data: Path,
    split: str,
    sequences: str | None,
    all_frames: bool,
    seen: Path | None,
    results: Path | None,
    out: Path | None,
    shard: str | None,
    as_json: bool,
    quiet: bool,
    **model: Any,
) -> None:
    from segic_benchmarks.result import write_atomically
    from segic_benchmarks.yvos import YvosBenchmark
    from segic_benchmarks.yvos_layout import find_yvos

    dataset = find_yvos(data, split=split, sequences=names_in(sequences), all_frames=all_frames, seen=seen)
    bench = YvosBenchmark(year, dataset)
    if results is not None:
        if shard:
            raise UsageError("--shard splits the running of a model; scoring with --results is not split")
        with progress_bar(len(dataset.videos), "video", quiet) as progress:
            result = bench.score(results, {"results": str(results)}, progress=progress)
        if result is not None and out is not None:
            write_atomically(out / "result.json", result.to_json())
        _show(result, as_json, quiet)
        return
    from segic_benchmarks.follow import following

    part = shard_of(shard)
    out = out or Path("segic_bench") / bench.name
    segic, description = load_model(**model)
    with progress_bar(len(part.select(dataset.videos)), "video", quiet) as progress:
        follow = following(segic, note=lambda text: click.echo(text, err=True))
        settings = {**description, "all_frames": all_frames}
        finished = bench.run(follow, out, settings, shard=part, progress=progress)
    if finished is None:
        show_unfinished(out, part)
        return
    archive, result = finished
    click.echo(f"for the evaluation server: {archive}", err=True)
    _show(result, as_json, quiet)


def _show(result: Result | None, as_json: bool, quiet: bool) -> None:
    if result is None:
        click.echo("no score here: the dataset has no masks after the objects' first frames", err=True)
    else:
        show(result, as_json=as_json, quiet=quiet)
