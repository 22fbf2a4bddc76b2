"""Methods that follow objects through a clip: the segic model, and any other that steps frame by frame."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from segic_vos.frames import Annotation, Frame, FrameResult

if TYPE_CHECKING:
    from segic.model import SEGIC

AnnotationOf = Callable[[Frame], Annotation | None]


class Follow(Protocol):
    """Follow the objects of one clip: a result for every frame, in order."""

    def __call__(
        self, frames: Iterable[Frame], annotation_of: AnnotationOf, /
    ) -> Iterator[tuple[Frame, FrameResult]]: ...


class Session(Protocol):
    """A method with a state of its own for each clip, as segic_vos.session.VideoSession is."""

    def step(self, frame_pixels: NDArray[np.uint8], annotation: Annotation | None = None, /) -> FrameResult: ...


def stepping(new_session: Callable[[], Session]) -> Follow:
    """Any session, a new one for each clip."""

    def follow(frames: Iterable[Frame], annotation_of: AnnotationOf) -> Iterator[tuple[Frame, FrameResult]]:
        session = new_session()
        for frame in frames:
            yield frame, session.step(frame.pixels, annotation_of(frame))

    return follow


def following(
    model: "SEGIC", *, batch: int = 4, tokens: int | None = None, note: Callable[[str], None] = lambda _: None
) -> Follow:
    """The segic model: pictures are read ahead in a thread, and go through the backbone in batches.

    tokens: of a foveated frame, at most; its size follows from a clip's first masks, as in `segic vos run`. None:
    frames are seen whole, at the model's size. note: told when memory runs out and the batches get smaller.
    """
    from segic_vos.batches import BatchLimit, encode_in_batches
    from segic_vos.prompts import video_meta
    from segic_vos.session import VideoSession
    from segic_vos.threads import Ahead
    from segic_vos.timings import StageClock

    meta = video_meta(model)

    def closely(frames: Iterator[Frame], annotation_of: AnnotationOf) -> Iterator[tuple[Frame, FrameResult]]:
        session = VideoSession(model, meta=meta, foveated=True)
        for frame in frames:
            given = annotation_of(frame)
            if tokens is not None and given is not None and given.ids and not session.ids:
                session = VideoSession.close_to(model, given.objects, tokens=tokens, meta=meta)
            yield frame, session.step(frame.pixels, given)

    def whole(frames: Iterator[Frame], annotation_of: AnnotationOf) -> Iterator[tuple[Frame, FrameResult]]:
        session = VideoSession(model, meta=meta)
        limit = BatchLimit(batch, note)
        for frame, encoded in encode_in_batches(frames, model, limit, StageClock(model.device)):
            yield frame, session.step_encoded(encoded, annotation_of(frame))

    def follow(frames: Iterable[Frame], annotation_of: AnnotationOf) -> Iterator[tuple[Frame, FrameResult]]:
        ahead = Ahead(frames, depth=2 * batch, name="decode")
        try:
            yield from (whole if tokens is None else closely)(iter(ahead), annotation_of)
        finally:
            ahead.close()

    return follow
