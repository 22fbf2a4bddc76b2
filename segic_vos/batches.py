"""Frames through the backbone, several at a time, and fewer where memory runs out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from segic.recorded import free_cached
from segic_vos.frames import Frame
from segic_vos.timings import StageClock

# How torch's CPU and MPS allocators put it; their errors have no type of their own.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
_ONEDNN = "could not create a primitive"  # the same from oneDNN; for what it does not support it says more than that


class Encoder(Protocol):
    """The part of the model that the pipeline calls itself."""

    @property
    def device(self) -> torch.device: ...

    def encode(self, images: torch.Tensor, /) -> Sequence[Any]:
        """(B, 3, H, W) uint8 to B frames' features."""


class BatchLimit:
    """How many frames go through the backbone together; halved, and `note` told, where memory runs out.

    Any stage may meet the end of memory, in whichever thread.
    """

    def __init__(self, frames: int, note: Callable[[str], None] = lambda _: None) -> None:
        self._frames = frames
        self._note = note
        self._lock = threading.Lock()

    @property
    def frames(self) -> int:
        """At most so many together, from now on."""
        return self._frames

    def halve(self, tried: int) -> bool:
        """Go on with half of the `tried` frames; False where that was one frame already."""
        with self._lock:
            if tried <= 1:
                return False
            if tried // 2 < self._frames:
                self._frames = tried // 2
                self._note(f"out of memory with {tried} frames at once: going on with {self._frames}")
            return True


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out: CUDA's own error, numpy's, or a RuntimeError of torch's that says so."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error) if isinstance(error, RuntimeError) else ""
    return text == _ONEDNN or any(words in text for words in _OUT_OF_MEMORY)


def encode_in_batches(
    frames: Iterable[Frame], model: Encoder, limit: BatchLimit, clock: StageClock
) -> Iterator[tuple[Frame, Any]]:
    """Each frame with its features. An error of `frames` is raised after the frames before it."""
    # The first mask should not wait for others. But a GPU is done with them all before it could be set up for one.
    for group in _groups(frames, limit, first_alone=model.device.type != "cuda"):
        waiting = [group]
        while waiting:
            part = waiting.pop(0)
            if len(part) > limit.frames:
                waiting[:0] = [part[: limit.frames], part[limit.frames :]]
                continue
            features: Sequence[Any] | None = None
            try:
                with clock.running():
                    pixels = np.stack([frame.pixels for frame in part])
                    features = model.encode(torch.from_numpy(pixels).permute(0, 3, 1, 2))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not limit.halve(len(part)):
                    raise
            if features is None:
                free_cached(model.device)
                waiting.insert(0, part)
                continue
            yield from zip(part, features, strict=True)


def _groups(frames: Iterable[Frame], limit: BatchLimit, *, first_alone: bool) -> Iterator[list[Frame]]:
    """Groups of up to the limit's frames of one picture size. first_alone: the first frame is one by itself."""
    group: list[Frame] = []
    failure: Exception | None = None
    first = first_alone
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
            group, first = [], False
        group.append(frame)
        if first or len(group) >= limit.frames:
            yield group
            group, first = [], False
    if group:
        yield group
    if failure is not None:
        raise failure
