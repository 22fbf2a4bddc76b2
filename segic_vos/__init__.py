"""The video driver: frames in, masks out, one frame at a time, in memory that does not grow.

    import segic, segic_vos
    session = segic_vos.VideoSession(segic.load_model())
    first = session.step(frame, segic_vos.annotation(labels))
    result = session.step(next_frame)

Names are loaded on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segic_vos.frames import Annotation as Annotation
    from segic_vos.frames import Frame as Frame
    from segic_vos.frames import FrameResult as FrameResult
    from segic_vos.frames import Sink as Sink
    from segic_vos.frames import Source as Source
    from segic_vos.frames import SourceInfo as SourceInfo
    from segic_vos.frames import annotation as annotation
    from segic_vos.masks import Annotations as Annotations
    from segic_vos.masks import read_annotations as read_annotations
    from segic_vos.masks import read_mask as read_mask
    from segic_vos.pending import Pending as Pending
    from segic_vos.pipeline import run_pipeline as run_pipeline
    from segic_vos.quality import choose_size as choose_size
    from segic_vos.run import ClipJob as ClipJob
    from segic_vos.run import ClipStopped as ClipStopped
    from segic_vos.run import open_clip as open_clip
    from segic_vos.run import run_clip as run_clip
    from segic_vos.session import VideoSession as VideoSession
    from segic_vos.sinks import MaskWriter as MaskWriter
    from segic_vos.sinks import OverlayWriter as OverlayWriter
    from segic_vos.sinks import ProbabilityWriter as ProbabilityWriter
    from segic_vos.sinks import RleWriter as RleWriter
    from segic_vos.sinks import draw_overlay as draw_overlay
    from segic_vos.sources import IteratorSource as IteratorSource
    from segic_vos.sources import open_source as open_source
    from segic_vos.sources import read_rgb as read_rgb

_WHERE = {
    "Annotation": "frames",
    "Annotations": "masks",
    "ClipJob": "run",
    "ClipStopped": "run",
    "Frame": "frames",
    "FrameResult": "frames",
    "IteratorSource": "sources",
    "MaskWriter": "sinks",
    "OverlayWriter": "sinks",
    "Pending": "pending",
    "ProbabilityWriter": "sinks",
    "RleWriter": "sinks",
    "Sink": "frames",
    "Source": "frames",
    "SourceInfo": "frames",
    "VideoSession": "session",
    "annotation": "frames",
    "choose_size": "quality",
    "draw_overlay": "sinks",
    "open_clip": "run",
    "open_source": "sources",
    "read_annotations": "masks",
    "read_mask": "masks",
    "read_rgb": "sources",
    "run_clip": "run",
    "run_pipeline": "pipeline",
}

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"segic_vos.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'segic_vos' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
