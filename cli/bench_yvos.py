"""`segic bench yvos18` and `yvos19`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .bench_options import names_in
from .bench_video import Work, measure, video_options

if TYPE_CHECKING:
    from segic_benchmarks.result import Result

_options = video_options(
    "video",
    click.option("--split", default="valid", show_default=True, help="Folder of the split in DATA."),
    click.option("--all-frames", is_flag=True, help="Follow the objects at the full rate, in SPLIT_all_frames."),
    click.option(
        "--seen",
        type=click.Path(path_type=Path),
        help="List of the seen classes, one a line.  [default: those of train/meta.json]",
    ),
)


@click.command()
@_options
def yvos18(**options: Any) -> None:
    """Run YouTube-VOS 2018: write the submission, score it where masks are at hand."""
    _yvos(2018, **options)


@click.command()
@_options
def yvos19(**options: Any) -> None:
    """Run YouTube-VOS 2019: write the submission, score it where masks are at hand."""
    _yvos(2019, **options)


def _yvos(
    year: int,
    *,
    data: Path,
    split: str,
    sequences: str | None,
    all_frames: bool,
    seen: Path | None,
    **shared: Any,
) -> None:
    from segic_benchmarks.yvos import YvosBenchmark
    from segic_benchmarks.yvos_layout import find_yvos

    dataset = find_yvos(data, split=split, sequences=names_in(sequences), all_frames=all_frames, seen=seen)
    work = Work(dataset.videos, "video", {"all_frames": all_frames})
    measure(YvosBenchmark(year, dataset), work, _submitted, **shared)


def _submitted(finished: tuple[Path, Result | None]) -> Result | None:
    """Say where the submission is."""
    archive, result = finished
    click.echo(f"for the evaluation server: {archive}", err=True)
    return result
