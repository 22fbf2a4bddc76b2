"""Frames through the model with all stages at work at once: decode, backbone in batches, mask decoding, writing.

The backbone's features do not depend on masks, so they are computed ahead, several frames at a time. On a GPU that
happens in a thread and on a stream of its own; on a CPU backbone and mask decoder would only take each other's cores,
so there they take turns, and decoding and writing overlap with both. Queues are bounded: memory does not grow with the
clip.
Foveated frames wait for the masks before them: each is encoded by itself, when its turn comes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from segic.recorded import free_cached
from segic_vos.batches import BatchLimit, Encoder, encode_in_batches, is_out_of_memory
from segic_vos.frames import Annotation, Frame, FrameResult, Sink
from segic_vos.pending import Pending
from segic_vos.streams import RecordedEncoder, awaited, on_own_stream, taking_turns
from segic_vos.threads import Ahead, Behind
from segic_vos.timings import StageClock, Timings

BEHIND = 1  # frames that may be submitted before one's result is read


class Follower(Protocol):
    """The part of `VideoSession` that the pipeline calls. It leaves frames that are seen whole to the model."""

    def encode(self, pixels: NDArray[np.uint8], /, *, whole: bool) -> Any: ...

    def submit(self, encoded: Any, annotation: Annotation | None = None, /) -> Pending: ...


class Stopped(Exception):
    """The pipeline ended early. The cause is `__cause__`; `timings` counts what was done."""

    def __init__(self, timings: Timings) -> None:
        super().__init__(f"stopped after {timings.frames} frames")
        self.timings = timings


@dataclass
class _Clocks:
    device: torch.device
    decode: StageClock = field(default_factory=StageClock)
    write: StageClock = field(default_factory=StageClock)
    backbone: StageClock = field(init=False)
    masks: StageClock = field(init=False)

    def __post_init__(self) -> None:
        self.backbone, self.masks = StageClock(self.device), StageClock(self.device)


def run_pipeline(
    frames: Iterable[Frame],
    model: Encoder,
    session: Follower,
    sinks: Sequence[Sink],
    *,
    annotation_of: Callable[[Frame], Annotation | None] = lambda _: None,
    batch: int = 4,
    foveated: bool = False,
    on_result: Callable[[Frame, FrameResult], None] = lambda _frame, _result: None,
    note: Callable[[str], None] = lambda _: None,
) -> Timings:
    """Follow the objects through `frames` and hand every result to every sink, in order; then close the sinks.

    annotation_of: the person's mask of a frame, asked for in the main thread. on_result: called there after each frame,
    on a GPU when the next one's mask has been asked for already. batch: frames that go through the backbone together,
    halved where memory runs out (`note` is told). foveated: the session encodes the frames, one by one. A generator of
    `frames` is closed at the end.

    Raises: `Stopped`, whose cause is the first error anywhere, KeyboardInterrupt included. By then the results of all
    frames before it are written, as far as the sinks can, and every thread has ended.
    """
    clocks = _Clocks(model.device)
    done, first, failure = 0, 0.0, None
    start = time.perf_counter()
    decoded = Ahead(_timed(frames, clocks.decode), depth=2 * batch, name="decode")
    limit = BatchLimit(batch, note)
    encoded: Iterable[tuple[Frame, Any]] = ((frame, None) for frame in decoded)
    if not foveated:
        encoder = RecordedEncoder(model, limit) if model.device.type == "cuda" else model
        encoded = encode_in_batches(decoded, encoder, limit, clocks.backbone)
    ahead = None
    if model.device.type != "cpu" and not foveated:
        ahead = Ahead(on_own_stream(encoded, model.device), depth=batch, name="backbone")
        encoded = awaited(ahead, model.device)
    writers = [Behind(sink, depth=8, on_busy=clocks.write.add) for sink in sinks]

    def submitted() -> Iterator[tuple[Frame, Pending]]:
        for frame, features in encoded:
            annotation = annotation_of(frame)
            if foveated:
                with clocks.backbone.running():
                    features = session.encode(frame.pixels, whole=annotation is not None)
            with clocks.masks.running():
                pending = _submit(session, features, annotation, limit, model.device)
            yield frame, pending

    try:
        with taking_turns(model.device):
            for frame, result in _read_behind(submitted()):
                for writer in writers:
                    writer.put(frame, result)
                done += 1
                first = first or time.perf_counter() - start
                on_result(frame, result)
    except BaseException as error:
        failure = error
    # `decoded` first, which the other one may be waiting for.
    stages: list[Ahead[Any] | Behind] = [decoded, *([] if ahead is None else [ahead]), *writers]
    for stage in stages:
        try:
            stage.close()
        except BaseException as error:  # Ctrl-C as well: writers have frames to write still
            failure = failure or error
    timings = Timings(
        decode=clocks.decode.total(),
        backbone=clocks.backbone.total(),
        masks=clocks.masks.total(),
        write=clocks.write.total(),
        wall=time.perf_counter() - start,
        first=first,
        frames=done,
    )
    if failure is not None:
        raise Stopped(timings) from failure
    return timings


def _submit(
    session: Follower, features: Any, annotation: Annotation | None, limit: BatchLimit, device: torch.device
) -> Pending:
    """One frame's masks. On a GPU the backbone works ahead in the same memory, so that its batch is what can give way;
    on a CPU it stands still meanwhile.
    """
    while True:
        try:
            return session.submit(features, annotation)
        except RuntimeError as error:
            if device.type == "cpu" or not is_out_of_memory(error) or not limit.halve(limit.frames):
                raise
        free_cached(device)


def _read_behind(submitted: Iterator[tuple[Frame, Pending]]) -> Iterator[tuple[Frame, FrameResult]]:
    """Each frame's result, read when the next frame is submitted, so that a GPU has it to work on meanwhile; or sooner,
    where there is nothing to wait for. An error of `submitted` is raised after the results before it, as far as those
    can be read.
    """
    waiting: deque[tuple[Frame, Pending]] = deque()
    failure: BaseException | None = None
    over = False
    while not over:
        try:
            waiting.append(next(submitted))
        except StopIteration:
            over = True
        except BaseException as error:
            over, failure = True, error
        while waiting and (over or len(waiting) > BEHIND or waiting[0][1].ready):
            frame, pending = waiting.popleft()
            try:
                result = pending.result()
            except Exception as error:
                if failure is None:
                    raise
                raise failure from error  # which came first
            yield frame, result
    if failure is not None:
        raise failure


def _timed(frames: Iterable[Frame], clock: StageClock) -> Iterator[Frame]:
    iterator = iter(frames)
    try:
        while True:
            with clock.running():
                try:
                    frame = next(iterator)
                except StopIteration:
                    return
            yield frame
    finally:
        if isinstance(iterator, Generator):
            iterator.close()  # in the thread that ran it, while what it has to say of its source is still heard
