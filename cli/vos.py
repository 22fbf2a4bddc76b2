"""`segic vos run`: masks for every frame of a video, from masks of its first frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segic.errors import SegicError, UsageError

from .clips import ClipPaths, clip_paths
from .lazy import INTERRUPTED, Failure, wants_traceback
from .model_options import LoadedModel, ModelChoice, load, model_options
from .progress import Talker, stoppable, verbosity_options

if TYPE_CHECKING:
    from segic_vos.run import Clip
    from segic_vos.summary import RunSummary


@click.group()
def vos() -> None:
    """Video object segmentation: follow what a mask shows through a video."""


@vos.command()
@click.argument("videos", metavar="VIDEO...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--masks",
    required=True,
    multiple=True,
    metavar="MASKS",
    help="Masks of the first frame: an index PNG, a folder or quoted pattern of one PNG for each object; or a folder "
    "of index PNGs named by frame. For several videos: one each, in their order, or a folder with masks so named.",
)
@click.option(
    "--mask-form", type=click.Choice(["auto", "index", "objects", "frames"]), default="auto", show_default=True
)
@click.option("--many-ids", is_flag=True, help="Believe a mask that looks anti-aliased or holds very many ids.")
@click.option("--out", type=click.Path(path_type=Path), help="Output folder.  [default: VIDEO-stem_segic]")
@click.option("--overwrite", is_flag=True, help="Replace what an earlier run wrote to the output folder.")
@click.option("--resume", is_flag=True, help="Go on with an earlier run that was stopped.")
@click.option("--start", type=int, default=0, show_default=True, help="First frame, counted from 0.")
@click.option("--end", type=int, help="Frame to stop before.  [default: the video's end]")
@click.option("--every", type=int, default=1, show_default=True, help="Take every n-th frame.")
@click.option("--rle", is_flag=True, help="Write masks.json, COCO run-length encodings (extra: coco).")
@click.option("--soft", is_flag=True, help="Write soft masks, one grey PNG for each object and frame.")
@click.option("--no-overlay", is_flag=True, help="Write no overlay.mp4.")
@click.option("--decoder", type=click.Choice(["pyav", "decord"]), default="pyav", show_default=True)
@click.option("--resize-frames", is_flag=True, help="Bring frames of other sizes to the first frame's.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Frames that go through the backbone together; halved where memory runs out.",
)
@model_options
@verbosity_options
@click.option("--json", "as_json", is_flag=True, help="Print each clip's summary as one line of JSON.")
@click.pass_context
def run(ctx: click.Context, /, **options: Any) -> None:
    """Follow the objects of the first frame's mask through each VIDEO, a video file or a folder of frames.

    Writes masks (masks/NAME.png, with the ids and the palette of the given mask), overlay.mp4 and summary.json.
    Ctrl-C keeps what is finished; the same command with --resume goes on from there.
    """
    talker = Talker(quiet=options["quiet"] or options["as_json"], verbose=options["verbose"])
    paths = clip_paths(options["videos"], options["masks"], options["out"])
    clips = [_open(each, options) for each in paths]
    with talker.bytes() as progress:
        loaded = load(ModelChoice(**{name: options[name] for name in ModelChoice.__dataclass_fields__}), progress)
    statuses = []
    for each, clip in zip(paths, clips, strict=True):
        try:
            with stoppable():
                summary = _run_one(each, clip, loaded, talker)
        except SegicError as error:
            if options["as_json"]:
                click.echo(json.dumps(_stopped(each, error)))
            if len(clips) == 1 or error.exit_status == INTERRUPTED or wants_traceback(ctx):
                raise
            # The other clips are jobs of their own.
            talker.error(f"{each.title}: {error}")
            statuses.append(error.exit_status)
            continue
        if options["as_json"]:
            click.echo(json.dumps(summary.as_dict()))
        elif not options["quiet"]:
            click.echo(_closing_lines(each.title, summary))
    if statuses:
        raise Failure(f"{len(statuses)} of {len(clips)} clips failed", max(statuses))


def _open(paths: ClipPaths, options: dict[str, Any]) -> Clip:
    from segic_vos.run import ClipJob, open_clip

    if options["overwrite"] and options["resume"]:
        raise UsageError("--overwrite and --resume exclude each other")
    job = ClipJob(
        video=paths.video,
        masks=paths.masks,
        out=paths.out,
        start=options["start"],
        end=options["end"],
        every=options["every"],
        decoder=options["decoder"],
        mask_form=options["mask_form"],
        many_ids=options["many_ids"],
        on_size_change="resize" if options["resize_frames"] else "error",
        overlay=not options["no_overlay"],
        rle=options["rle"],
        soft=options["soft"],
        existing="overwrite" if options["overwrite"] else "resume" if options["resume"] else "refuse",
        batch=options["batch"],
    )
    return open_clip(job)


def _run_one(paths: ClipPaths, clip: Clip, loaded: LoadedModel, talker: Talker) -> RunSummary:
    from segic_vos.run import run_clip

    model = loaded.model
    talker.detail(f"{paths.title}: {model.name} at {model.config.size} px on {model.device}")
    with talker.bar(clip.source.info.expected_frames, paths.title) as advance:
        summary = run_clip(
            clip,
            model,
            on_result=lambda _frame, _result: advance(),
            note=talker.note,
        )
    for item in summary.objects:
        talker.detail(
            f"object {item.id}: in {item.frames_present} of {item.frames_followed} frames, "
            f"mean area {item.area_mean:.0f} px, mean score {item.score:.2f}"
        )
    stages = ", ".join(f"{name} {value:g}" for name, value in summary.timings.as_dict().items())
    talker.detail(f"seconds by stage (they overlap): {stages}")
    return summary


def _closing_lines(title: str, summary: RunSummary) -> str:
    frames, objects = _count(summary.frames, "frame"), _count(len(summary.objects), "object")
    speed = f", {summary.timings.fps:.2f} frames/s" if summary.timings.frames else ""
    rows = [
        f"  {kind:8} {path}"
        for kind in ("masks", "overlay", "rle", "soft", "summary")
        if (path := summary.outputs.get(kind)) is not None
    ]
    return "\n".join([f"{title}: {frames}, {objects}{speed}", *rows])


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _stopped(paths: ClipPaths, error: SegicError) -> dict[str, Any]:
    """What --json prints of a clip that failed: its summary, or what stands in for it where nothing was written."""
    from segic_vos.run import ClipStopped

    if isinstance(error, ClipStopped):
        return error.summary.as_dict()
    return {
        "program": "segic",
        "status": "failed",
        "reason": str(error),
        "video": {"path": str(paths.video)},
        "frames": 0,
        "outputs": {},
    }
