"""`segic bench davis16` and `davis17`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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

_options = stacked(
    [
        data_option,
        click.option("--split", help="A list of sequences: a file, or its name in ImageSets.  [default: val]"),
        click.option("--sequences", help="Only these sequences, separated by commas."),
        click.option("--resolution", help="Folder in Annotations, for instance Full-Resolution.  [default: 480p]"),
        click.option(
            "--results",
            type=click.Path(path_type=Path),
            help="Run no model: score the palette PNGs RESULTS/SEQUENCE/FRAME.png, made by anyone.",
        ),
        click.option(
            "--toolkit",
            type=click.Choice(["own", "official"]),
            default="own",
            show_default=True,
            help="Who computes J and F: segic, or davis2017-evaluation where it is installed.",
        ),
        out_option,
        model_options,
        shard_option,
        show_options,
    ]
)


@click.command()
@_options
def davis16(**options: Any) -> None:
    """Score DAVIS 2016: J and F of all objects merged to one foreground."""
    _run_davis(2016, **options)


@click.command()
@_options
def davis17(**options: Any) -> None:
    """Score DAVIS 2017: J and F of every object.

    Other clips can be scored in the same way: a folder in DAVIS's layout, or video files CLIP.mp4, each with a folder
    CLIP_mask of masks, one a frame.
    """
    _run_davis(2017, **options)


def _run_davis(
    year: int,
    *,
    data: Path,
    split: str | None,
    sequences: str | None,
    resolution: str | None,
    results: Path | None,
    toolkit: str,
    out: Path | None,
    shard: str | None,
    as_json: bool,
    quiet: bool,
    **model: Any,
) -> None:
    from segic_benchmarks.davis import DavisBenchmark
    from segic_benchmarks.davis_layout import find_davis
    from segic_benchmarks.result import write_atomically
    from segic_benchmarks.toolkit import find_toolkit

    measures = find_toolkit(toolkit)
    dataset = find_davis(data, year, split=split, sequences=names_in(sequences), resolution=resolution)
    bench = DavisBenchmark(year, dataset)
    if results is not None:
        if shard:
            raise UsageError("--shard splits the running of a model; scoring with --results is not split")
        with progress_bar(len(dataset.clips), "sequence", quiet) as progress:
            result = bench.score(
                results, {"results": str(results), "toolkit": toolkit}, toolkit=measures, progress=progress
            )
        if out is not None:
            write_atomically(out / "result.json", result.to_json())
    else:
        from segic_benchmarks.follow import following

        part = shard_of(shard)
        out = out or Path("segic_bench") / bench.name
        segic, description = load_model(**model)
        with progress_bar(len(part.select(dataset.clips)), "sequence", quiet) as progress:
            follow = following(segic, note=lambda text: click.echo(text, err=True))
            settings = {**description, "toolkit": toolkit}
            finished = bench.run(follow, out, settings, shard=part, toolkit=measures, progress=progress)
        if finished is None:
            show_unfinished(out, part)
            return
        result = finished
    show(result, as_json=as_json, quiet=quiet)
