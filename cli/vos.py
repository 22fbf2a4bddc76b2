"""`segic vos run`: masks for every frame of a video, from masks of its first frame."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segic.errors import INTERRUPTED, SegicError, UsageError
from segic_vos.wording import counted

from .clips import ClipPaths, clip_paths
from .lazy import Failure, show_traceback
from .model_options import ModelChoice, load, model_options
from .progress import Talker, stoppable, verbosity_options
from .quality_options import quality_options, sized
from .vos_clip import closing_lines, failed_as_dict, follow_clip
from .workers import Share, processes_for, run_workers

if TYPE_CHECKING:
    from segic.model import SEGIC
    from segic_vos.choices import Choices
    from segic_vos.job import Clip

_ARGUMENTS = "segic_cli.vos_arguments"  # key of click's context-wide notes


@click.group()
def vos() -> None:
    """Video object segmentation: follow what a mask shows through a video."""


class _Remembering(click.Command):
    """Keeps its arguments as they were given, for `run_workers`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


def _bytes(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    from segic_vos.memory import parse_bytes

    return parse_bytes(text)


@vos.command(cls=_Remembering, short_help="Masks for every frame of each VIDEO.")
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
    "--mask-form",
    type=click.Choice(["auto", "index", "objects", "frames"]),
    default="auto",
    show_default=True,
    help="What --masks names: one index PNG, a PNG for each object, or index PNGs named by frame. auto: by what is "
    "found there.",
)
@click.option("--many-ids", is_flag=True, help="Believe a mask that looks anti-aliased or holds very many ids.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Output folder.  [default: VIDEO-stem_segic]")
@click.option("--overwrite", is_flag=True, help="Replace what an earlier run wrote to the output folder.")
@click.option("--resume", is_flag=True, help="Go on with an earlier run that was stopped.")
@click.option("--start", type=int, default=0, show_default=True, help="First frame, counted from 0.")
@click.option("--end", type=int, help="Frame to stop before.  [default: the video's end]")
@click.option("--every", type=int, default=1, show_default=True, help="Take every n-th frame.")
@click.option("--rle", is_flag=True, help="Write masks.json, COCO run-length encodings (extra: coco).")
@click.option("--soft", is_flag=True, help="Write soft masks, one grey PNG for each object and frame.")
@click.option("--no-overlay", is_flag=True, help="Write no overlay.mp4.")
@click.option(
    "--decoder",
    type=click.Choice(["pyav", "decord"]),
    default="pyav",
    show_default=True,
    help="What decodes video files; decord has to be installed beside segic.",
)
@click.option("--resize-frames", is_flag=True, help="Bring frames of other sizes to the first frame's.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    help="Whole frames that go through the backbone together; halved where memory runs out.  [default: 4, on CUDA 8]",
)
@click.option(
    "--max-memory",
    metavar="SIZE",
    callback=_bytes,
    help="Choose the size, or --batch, so that the run stays within it: 800M, 2G, 1.5GiB. Of each process: the GPU's "
    "memory, or on a CPU the host's.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Clips that are followed side by side, each in a process of its own; under torchrun its processes are "
    "taken instead.  [default: one for each GPU]",
)
@quality_options()
@model_options
@verbosity_options
@click.option("--json", "as_json", is_flag=True, help="Print each clip's summary as one line of JSON.")
@click.pass_context
def run(ctx: click.Context, /, **options: Any) -> None:
    """Follow the objects of the first frame's mask through each VIDEO, a video file or a folder of frames.

    Writes masks (masks/NAME.png, with the ids and the palette of the given mask), overlay.mp4 and summary.json.
    Ctrl-C keeps what is finished; the same command with --resume goes on from there. Several clips are shared among
    the host's GPUs, by --jobs, and among the processes of `torchrun -m segic_cli vos run ...`.
    """
    share = Share.from_environment()
    talker = Talker(quiet=options["quiet"] or options["as_json"], verbose=options["verbose"], bars=share.world == 1)
    choice = ModelChoice(**{name: options[name] for name in ModelChoice.__dataclass_fields__})
    choice = replace(choice, device=share.device(choice.device))
    choice, chosen = sized(choice, options["quality"], options["fovea"])
    paths = clip_paths(options["videos"], options["masks"], options["out"], options["mask_form"])
    clips = share.take(paths)
    # torchrun stops all processes where one refuses: each opens the others' clips too, before any of them works. The
    # own ones come last: a single one stays open for its run.
    others = [each for each in paths if each not in clips] if share.by_torchrun else []
    for each in (*others, *clips):  # all, so that what cannot be carried out is told before any work
        opened = _open(each, options)
    share.meet()  # what one writes would be an existing output to those that still open
    processes = processes_for(options["device"], len(paths), options["jobs"]) if share.world == 1 else 1
    if processes > 1:
        again = [sys.executable, "-m", __package__ or "segic_cli", "vos", "run", *ctx.meta[_ARGUMENTS]]
        ctx.exit(run_workers(processes, again))
    share.divide_cores()
    statuses = []
    if clips:
        with talker.bytes() as progress:
            model = load(choice, progress).model
        said = _Announcer(talker, share)
        held = None if options["max_memory"] is None else _used_memory(model)
    for each in clips:
        try:
            with stoppable():
                if len(clips) > 1:  # kept open, the masks of all would stay in memory
                    opened = _open(each, options)
                summary = follow_clip(
                    each, opened, model, talker, chosen=chosen, on_choices=said, many=len(paths) > 1, held=held
                )
        except SegicError as error:
            if options["as_json"]:
                click.echo(json.dumps(failed_as_dict(each, error)))
            if len(paths) == 1 or error.exit_status == INTERRUPTED:
                raise
            # The other clips are jobs of their own.
            show_traceback(ctx)
            talker.error(f"{each.title}: {error}")
            statuses.append(error.exit_status)
            continue
        if options["as_json"]:
            click.echo(json.dumps(summary.as_dict()))
        elif not options["quiet"]:
            click.echo(closing_lines(each.title, summary))
    share.wait_for_others(failed=bool(statuses))
    if statuses:
        where = "" if share.world == 1 else f" in process {share.rank + 1} of {share.world}, {len(paths)} clips in all"
        raise Failure(f"{len(statuses)} of {counted(len(clips), 'clip')} failed{where}", max(statuses))


class _Announcer:
    """Says once what the run works with, and again where a later clip takes something else."""

    def __init__(self, talker: Talker, share: Share) -> None:
        self._talker, self._share = talker, share
        self._last = ""

    def __call__(self, choices: Choices) -> None:
        text = str(choices)
        if self._share.world > 1:
            text += f", {self._share.world} processes"
        if text != self._last and self._share.rank == 0:
            self._talker.line(text)
        self._last = text


def _used_memory(model: SEGIC) -> float:
    from segic_vos.memory import used_memory

    return used_memory(model.device)


def _open(paths: ClipPaths, options: dict[str, Any]) -> Clip:
    from segic_vos.job import ClipJob, open_clip

    if options["overwrite"] and options["resume"]:
        raise UsageError("--overwrite and --resume exclude each other")
    if options["batch"] is not None and options["max_memory"] is not None:
        raise UsageError("--batch and --max-memory exclude each other: --max-memory chooses the batch")
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
        max_memory=options["max_memory"],
    )
    return open_clip(job)
