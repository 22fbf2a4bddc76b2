"""`segic bench davis16` and `davis17`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .bench_options import names_in
from .bench_video import Work, measure, video_options

_options = video_options(
    "sequence",
    click.option("--split", help="A list of sequences: a file, or its name in ImageSets.  [default: val]"),
    click.option("--resolution", help="Folder in Annotations, for instance Full-Resolution.  [default: 480p]"),
    click.option(
        "--toolkit",
        type=click.Choice(["own", "official"]),
        default="own",
        show_default=True,
        help="Who computes J and F: segic, or davis2017-evaluation where it is installed.",
    ),
)


@click.command()
@_options
def davis16(**options: Any) -> None:
    """Score DAVIS 2016: J and F of all objects merged to one foreground."""
    _davis(2016, **options)


@click.command()
@_options
def davis17(**options: Any) -> None:
    """Score DAVIS 2017: J and F of every object.

    Other clips can be scored in the same way: a folder in DAVIS's layout, or video files CLIP.mp4, each with a folder
    CLIP_mask of masks, one a frame.
    """
    _davis(2017, **options)


def _davis(
    year: int,
    *,
    data: Path,
    split: str | None,
    sequences: str | None,
    resolution: str | None,
    toolkit: str,
    **shared: Any,
) -> None:
    from segic_benchmarks.davis import DavisBenchmark
    from segic_benchmarks.davis_layout import find_davis
    from segic_benchmarks.toolkit import find_toolkit

    measures = find_toolkit(toolkit)
    dataset = find_davis(data, year, split=split, sequences=names_in(sequences), resolution=resolution)
    work = Work(dataset.clips, "sequence", {"toolkit": toolkit, "resolution": dataset.resolution})
    measure(DavisBenchmark(year, dataset, measures), work, lambda result: result, **shared)
