"""One clip of `segic vos run`: its run with a bar, and what is said of it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from segic.errors import SegicError
from segic_vos.wording import counted

from .clips import ClipPaths
from .progress import Talker

if TYPE_CHECKING:
    from segic.model import SEGIC
    from segic_vos.choices import Choices
    from segic_vos.job import Clip
    from segic_vos.quality import SizeChoice
    from segic_vos.summary import RunSummary


def follow_clip(
    paths: ClipPaths,
    clip: Clip,
    model: SEGIC,
    talker: Talker,
    *,
    chosen: SizeChoice,
    on_choices: Callable[[Choices], None],
    many: bool,
    held: float | None,
) -> RunSummary:
    """Run one clip, with a bar and notes. many: it is one of several, so that notes say whose they are. held: as
    `run_clip`.
    """
    from segic_vos.run import run_clip

    def note(text: str) -> None:
        talker.note(f"{paths.title}: {text}" if many else text)

    with talker.bar(clip.source.info.expected_frames, paths.title) as advance:
        summary = run_clip(
            clip,
            model,
            on_result=lambda _frame, _result: advance(),
            note=note,
            chosen=chosen,
            on_choices=on_choices,
            held=held,
        )
    for item in summary.objects:
        talker.detail(
            f"object {item.id}: in {item.frames_present} of {item.frames_followed} frames, "
            f"mean area {item.area_mean:.0f} px, mean score {item.score:.2f}"
        )
    stages = ", ".join(f"{name} {value:g}" for name, value in summary.timings.as_dict().items())
    talker.detail(f"seconds by stage (they overlap): {stages}")
    return summary


def closing_lines(title: str, summary: RunSummary) -> str:
    """What is said of a clip that is done: a line of figures, and the paths written."""
    frames, objects = counted(summary.frames, "frame"), counted(len(summary.objects), "object")
    # Of a run that found nothing left to do, the timings are an earlier one's.
    worked = summary.timings.frames and summary.frames > summary.resumed
    speed = f", {summary.timings.fps:.2f} frames/s" if worked else ""
    rows = [
        f"  {kind:8} {path}"
        for kind in ("masks", "overlay", "rle", "soft", "summary")
        if (path := summary.outputs.get(kind)) is not None
    ]
    return "\n".join([f"{title}: {frames}, {objects}{speed}", *rows])


def failed_as_dict(paths: ClipPaths, error: SegicError) -> dict[str, Any]:
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
