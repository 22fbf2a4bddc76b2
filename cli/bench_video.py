"""What `segic bench davis16|davis17|yvos18|yvos19` share: options, running a model, scoring saved masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from segic.errors import UsageError
from segic.files import write_whole

from .bench_options import (
    data_option,
    load_model,
    out_option,
    progress_bar,
    refuse_given,
    shard_of,
    shard_option,
    show,
    show_options,
    show_unfinished,
    stacked,
)
from .model_options import ModelChoice, model_options
from .quality_options import quality_options, sized

if TYPE_CHECKING:
    from segic_benchmarks.follow import Follow
    from segic_benchmarks.result import Result
    from segic_benchmarks.shards import Shard
    from segic_vos.quality import Quality

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T", covariant=True)


def video_options(unit: str, *own: Callable[[F], F]) -> Callable[[F], F]:
    """The options that all of them have, and a benchmark's own. unit: what is followed, "sequence" or "video"."""
    sequences = click.option("--sequences", help=f"Only these {unit}s, separated by commas.")
    results = click.option(
        "--results",
        type=click.Path(path_type=Path),
        help=f"Run no model: score the palette PNGs RESULTS/{unit.upper()}/FRAME.png, made by anyone.",
    )
    out = out_option("segic_bench/NAME; with --results nothing is written")
    quality = quality_options(everywhere=True)
    return stacked([data_option, *own, sequences, results, out, quality, model_options, shard_option, show_options])


class VideoBenchmark(Protocol[T]):
    """A benchmark that a model can be run on, and that masks made by anyone can be scored on."""

    @property
    def name(self) -> str: ...

    def run(
        self,
        follow: Follow,
        out: Path,
        settings: Mapping[str, Any],
        *,
        shard: Shard | None = None,
        progress: Callable[[str], None] = ...,
    ) -> T | None: ...

    def score(
        self, results: Path, settings: Mapping[str, Any], *, progress: Callable[[str], None] = ...
    ) -> Result | None: ...


@dataclass(frozen=True)
class Work:
    """Which videos, in what unit, with which settings of the benchmark's own."""

    items: Sequence[object]
    unit: str
    settings: Mapping[str, Any]


def measure(
    bench: VideoBenchmark[T],
    work: Work,
    conclude: Callable[[T], Result | None],
    *,
    results: Path | None,
    out: Path | None,
    shard: str | None,
    as_json: bool,
    quiet: bool,
    quality: Quality | None,
    fovea: bool | None,
    **model: Any,
) -> None:
    """Run the model, or score `results`, and show what came of it. conclude: makes a result of a finished run."""
    if results is not None:
        refuse_given(["quality", "fovea", *model], "says how a model runs, and --results runs none")
        result = _score(bench, work, results, out, shard, quiet)
    else:
        from segic_benchmarks.follow import following

        part = shard_of(shard)
        out = out or Path("segic_bench") / bench.name
        choice, chosen = sized(ModelChoice(**model), quality, fovea, everywhere=True)
        segic, description = load_model(**asdict(choice))
        description = {**description, "tokens": chosen.tokens}  # None: frames are seen whole
        with progress_bar(len(part.select(work.items)), work.unit, quiet) as progress:
            follow = following(segic, tokens=chosen.tokens, note=lambda text: click.echo(text, err=True))
            finished = bench.run(follow, out, {**description, **work.settings}, shard=part, progress=progress)
        if finished is None:
            show_unfinished(out, part)
            return
        result = conclude(finished)
    if result is None:
        click.echo("no score here: the dataset has no masks after the objects' first frames", err=True)
    else:
        show(result, as_json=as_json, quiet=quiet)


def _score(
    bench: VideoBenchmark[T], work: Work, results: Path, out: Path | None, shard: str | None, quiet: bool
) -> Result | None:
    if shard:
        raise UsageError("--shard splits the running of a model; scoring with --results is not split")
    if out is not None and (out / "settings.json").is_file():
        raise UsageError(f"{out} holds a model's run, whose result would be lost; choose another folder with --out")
    with progress_bar(len(work.items), work.unit, quiet) as progress:
        result = bench.score(results, {"results": str(results), **work.settings}, progress=progress)
    if result is not None and out is not None:
        write_whole(out / "result.json", result.to_json())
    return result
