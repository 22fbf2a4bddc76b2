"""`segic demo`: a sample clip with its first mask, and the main job on it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .model_options import ModelChoice, model_options
from .progress import Talker, verbosity_options
from .vos import run


@click.command()
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="Folder to write to."
)
@click.option("--clip-only", is_flag=True, help="Make the clip and its masks, and stop.")
@model_options
@verbosity_options
@click.pass_context
def demo(ctx: click.Context, /, out: Path, clip_only: bool, quiet: bool, verbose: int, **model: Any) -> None:
    """Make a clip of four seconds (an astronaut walks past a motorcycle, a cup floats by) and follow its objects.

    The clip is composed from photographs that scikit-image ships (extra: demo). Since every layer is known, so are the
    true masks of all frames, and the region similarity J of the result is printed.
    """
    from segic_vos.demo import FRAMES
    from segic_vos.demo_clip import DemoClip, score_demo, write_demo

    clip = DemoClip(out)
    with Talker(quiet=quiet, verbose=verbose).bar(FRAMES, "making the clip") as advance:
        write_demo(clip, on_frame=advance)
    if not quiet:
        click.echo(f"sample clip {clip.video}, its first mask {clip.first_mask}")
    if clip_only:
        return
    if not quiet:
        click.echo(f"\n$ segic vos run {clip.video} --masks {clip.first_mask} --out {clip.result}")
    ctx.invoke(
        run,
        videos=(clip.video,),
        masks=(str(clip.first_mask),),
        out=clip.result,
        overwrite=True,
        quiet=quiet,
        verbose=verbose,
        **asdict(ModelChoice(**model)),
    )
    if not quiet:
        scores = ", ".join(f"{name} {value:.3f}" for name, value in score_demo(clip).items())
        click.echo(f"\nJ against the true masks ({clip.truth}): {scores}")
