"""Frames through the model with all stages at work at once: decode, backbone in batches, mask decoding, writing.

The backbone's features do not depend on masks, so they are computed ahead, several frames at a time. On a GPU that
happens in a thread of its own; on a CPU backbone and mask decoder would only take each other's cores, so there they
take turns, and decoding and writing overlap with both. Queues are bounded: memory does not grow with the clip.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from segic_vos.frames import Annotation, Frame, FrameResult, Sink
from segic_vos.threads import Ahead, Behind
from segic_vos.timings import StageClock, Timings


class Encoder(Protocol):
    """The part of the model that the pipeline calls itself."""

    @property
    def device(self) -> torch.device: ...

    def encode(self, images: torch.Tensor, /) -> Sequence[Any]:
        """(B, 3, H, W) uint8 to B frames' features."""


class Follower(Protocol):
    """The part of `VideoSession` that the pipeline calls."""

    def step_encoded(self, encoded: Any, annotation: Annotation | None = None, /) -> FrameResult: ...


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
    on_result: Callable[[Frame, FrameResult], None] = lambda _frame, _result: None,
    note: Callable[[str], None] = lambda _: None,
) -> Timings:
    """Follow the objects through `frames` and hand every result to every sink, in order; then close the sinks.

    annotation_of: the person's mask of a frame, asked for in the main thread. on_result: called there after each frame.
    batch: frames that go through the backbone together, halved where memory runs out (`note` is told).

    Raises: `Stopped`, whose cause is the first error anywhere, KeyboardInterrupt included. By then the results of all
    frames before it are written, as far as the sinks can, and every thread has ended.
    """
    clocks = _Clocks(model.device)
    done, first, failure = 0, 0.0, None
    start = time.perf_counter()
    decoded = Ahead(_timed(frames, clocks.decode), depth=2 * batch, name="decode")
    encoded: Iterable[tuple[Frame, Any]] = encode_in_batches(decoded, model, batch, clocks.backbone, note)
    ahead = Ahead(encoded, depth=batch, name="backbone") if model.device.type != "cpu" else None
    writers = [Behind(sink, depth=8, on_busy=clocks.write.add) for sink in sinks]
    try:
        for frame, features in ahead or encoded:
            annotation = annotation_of(frame)
            with clocks.masks.running():
                result = session.step_encoded(features, annotation)
            for writer in writers:
                writer.put(frame, result)
            done += 1
            first = first or time.perf_counter() - start
            on_result(frame, result)
    except BaseException as error:
        failure = error
    for stage in (ahead, decoded):
        if stage is not None:
            stage.close()
    for writer in writers:
        try:
            writer.close()
        except Exception as error:
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


def encode_in_batches(
    frames: Iterable[Frame], model: Encoder, batch: int, clock: StageClock, note: Callable[[str], None]
) -> Iterator[tuple[Frame, Any]]:
    """Each frame with its features. An error of `frames` is raised after the frames before it."""
    limit = batch
    for group in _groups(frames, batch):
        waiting = [group]
        while waiting:
            part = waiting.pop(0)
            if len(part) > limit:
                waiting[:0] = [part[:limit], part[limit:]]
                continue
            images = torch.from_numpy(np.stack([frame.pixels for frame in part])).permute(0, 3, 1, 2)
            try:
                with clock.running():
                    features = model.encode(images)
            except torch.cuda.OutOfMemoryError:
                if len(part) == 1:
                    raise
                limit = len(part) // 2
                note(f"out of memory with {len(part)} frames at once: going on with {limit}")
                torch.cuda.empty_cache()
                waiting.insert(0, part)
                continue
            yield from zip(part, features, strict=True)


def _groups(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Groups of up to `size` frames of one picture size. The first frame goes alone: its mask should not wait."""
    group: list[Frame] = []
    failure: Exception | None = None
    limit = 1
    iterator = iter(frames)
    while True:
        try:
            frame = next(iterator)
        except StopIteration:
            break
        except Exception as error:
            failure = error
            break
        if group and frame.size != group[0].size:
            yield group
            group, limit = [], size
        group.append(frame)
        if len(group) == limit:
            yield group
            group, limit = [], size
    if group:
        yield group
    if failure is not None:
        raise failure


def _timed(frames: Iterable[Frame], clock: StageClock) -> Iterator[Frame]:
    iterator = iter(frames)
    while True:
        with clock.running():
            try:
                frame = next(iterator)
            except StopIteration:
                return
        yield frame
