"""`segic bench speed`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segic.errors import UsageError

from .bench_options import names_in, progress_bar, show_options
from .model_options import DTYPES, ModelChoice, load, weights_options

if TYPE_CHECKING:
    from segic.model import SEGIC


def _numbers(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """A list of whole numbers from 1, separated by commas."""
    if text is None:
        return None
    names = names_in(text)
    if not names or any(not name.isdecimal() or int(name) < 1 for name in names):
        raise click.BadParameter(f"{text!r}: expected numbers from 1, separated by commas", ctx, parameter)
    return tuple(dict.fromkeys(int(name) for name in names))


def _dtypes(ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    names = names_in(text)
    if not names or any(name not in DTYPES for name in names):
        raise click.BadParameter(f"{text!r}: expected some of {', '.join(DTYPES)}", ctx, parameter)
    return tuple(dict.fromkeys(names))


def _size(ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT to (height, width)."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise click.BadParameter(f"{text!r}: expected WIDTHxHEIGHT, for instance 854x480", ctx, parameter)
    return int(height), int(width)


@click.command()
@click.option("--video", type=click.Path(path_type=Path), help="A clip.  [default: one made of moving objects]")
@click.option(
    "--masks",
    help="Its masks, as for `segic vos run`; of masks by frame the first is given, the others score the result.",
)
@click.option(
    "--objects",
    callback=_numbers,
    help="Objects in the made clip, or how many of the given clip's.  [default: 2, or all of them]",
)
@click.option("--size", "sizes", callback=_numbers, help="Sizes of the model.  [default: its own]")
@click.option("--dtype", "dtypes", callback=_dtypes, default="auto", show_default=True, help="Of the backbone.")
@click.option(
    "--batch", "batches", callback=_numbers, help="Frames in the backbone together.  [default: as `segic vos run`]"
)
@click.option("--frames", type=click.IntRange(min=2), default=24, show_default=True, help="At most so many frames.")
@click.option(
    "--clip-size", "frame", callback=_size, default="854x480", show_default=True, help="Pictures of the made clip."
)
@click.option("--repeat", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each procedure.")
@click.option(
    "--tokens",
    type=click.IntRange(min=1),
    help="See frames at full resolution around the objects only, at the size that so many tokens allow: on a CPU "
    "`segic vos run` has 2100 by default.  [default: whole frames]",
)
@click.option("--against", type=click.Choice(["published"]), help="Run the published procedure too, in turns.")
@click.option("--overlay", is_flag=True, help="Write overlay videos too, in both procedures.")
@weights_options
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("segic_bench/speed"),
    show_default=True,
    help="Folder for speed.txt, speed.json and speed.svg.",
)
@show_options
def speed(as_json: bool, quiet: bool, out: Path, against: str | None, **options: Any) -> None:
    """Measure the speed of following objects, by stage, with memory and the share of the hardware's limit.

    --objects, --size, --dtype and --batch take lists, separated by commas; every combination is measured. With
    --against published the paper's procedure runs in turns with segic's on the same weights and frames, and the ratio
    is printed with its spread.
    """
    from segic_benchmarks.speed_report import as_text, write_report
    from segic_benchmarks.speed_run import SpeedPlan, measure_speed

    video, masks = options["video"], options["masks"]
    if (video is None) != (masks is None):
        raise UsageError("--video and --masks belong together; without both, a clip is made")
    if options["tokens"] is not None and options["sizes"] is not None:
        raise UsageError("--tokens and --size exclude each other: the size is the one that the tokens allow")
    if options["tokens"] is not None and options["batches"] is not None:
        raise UsageError(
            "--tokens and --batch exclude each other: foveated frames go through the backbone one by one; leave out "
            "--tokens for whole frames"
        )
    plan = SpeedPlan(
        sizes=options["sizes"] or (None,),
        objects=options["objects"] or ((2,) if video is None else (None,)),
        dtypes=options["dtypes"],
        batches=options["batches"] or (None,),
        video=video,
        masks=masks,
        frame=options["frame"],
        frames=options["frames"],
        repeat=options["repeat"],
        published=against == "published",
        tokens=options["tokens"],
        overlay=options["overlay"],
    )
    with progress_bar(plan.count, "cell", quiet) as progress:
        report = measure_speed(
            plan, _loader(options), progress=progress, note=lambda text: click.echo(f"note: {text}", err=True)
        )
    text = json.dumps(report.as_dict(), indent=1) + "\n"
    files = write_report(report, out, text)
    if as_json:
        click.echo(text, nl=False)
    elif quiet:
        for result in report.cells:
            ratio = f" ratio {result.comparison.wall.median:.2f}" if result.comparison else ""
            click.echo(f"speed {result.cell.objects} objects {result.segic.fps.median:.2f} frames/s{ratio}")
    else:
        click.echo(as_text(report))
        click.echo(f"\nwritten: {', '.join(str(path) for path in files)}")


def _loader(options: dict[str, Any]) -> Callable[[int | None, str], SEGIC]:
    def make(size: int | None, dtype: str) -> SEGIC:
        names = ("model", "weights", "backbone_weights", "device")
        return load(ModelChoice(**{name: options[name] for name in names}, dtype=dtype, size=size)).model

    return make
