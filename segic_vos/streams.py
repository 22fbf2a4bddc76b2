"""Work of two threads on one GPU at the same time."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from segic.recorded import Recorded, free_cached, tensors_of
from segic_vos.batches import BatchLimit, Encoder, is_out_of_memory

T = TypeVar("T")

_TURN = 0.0005  # seconds that a thread may keep Python's lock while another waits for it


class RecordedEncoder:
    """A model's `encode` for batches of one size again and again, recorded. A clip's last frames, which are fewer, are
    filled up: preparing for a new size takes many times as long as a batch.
    """

    def __init__(self, model: Encoder, limit: BatchLimit) -> None:
        """limit: how many frames fit into memory together, by now."""
        self.device = model.device
        self._limit = limit
        self._encode: Recorded[tuple[Any, ...]] = Recorded(lambda images: tuple(model.encode(images)))
        self._last = 0

    def encode(self, images: torch.Tensor, /) -> Sequence[Any]:
        """(B, 3, H, W) uint8 on the host to B frames' features."""
        count = len(images)
        size = max(count, min(self._last, self._limit.frames))
        if size < self._last:  # memory has run out: larger batches are not to come
            self._encode.forget()
        try:
            return self._filled_up(images, size)
        except RuntimeError as error:
            if size == count or not is_out_of_memory(error):
                raise
        # Whoever halves a batch that is too large knows of its own frames only.
        self._encode.forget()
        free_cached(self.device)
        return self._filled_up(images, count)

    def _filled_up(self, images: torch.Tensor, size: int) -> Sequence[Any]:
        self._last = size
        here = images.pin_memory().to(self.device, non_blocking=True)
        filled = torch.cat([here, here[-1:].expand(size - len(images), -1, -1, -1)])
        return self._encode(filled)[: len(images)]


@contextmanager
def taking_turns(device: torch.device) -> Iterator[None]:
    """Lets threads change more often than Python usually does, where a GPU stands still for as long as the one waits
    that feeds it. For one pipeline at a time.
    """
    usual = sys.getswitchinterval()
    if device.type == "cuda":
        sys.setswitchinterval(min(usual, _TURN))
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def on_own_stream(items: Iterable[T], device: torch.device) -> Iterator[tuple[T, torch.cuda.Event | None]]:
    """Each item with the event of its being ready, made on a stream of its own on a CUDA device; None on others."""
    if device.type != "cuda":
        for item in items:
            yield item, None
        return
    stream = torch.cuda.Stream(device)
    iterator = iter(items)
    while True:
        with torch.cuda.stream(stream):
            try:
                item = next(iterator)
            except StopIteration:
                return
            ready = stream.record_event()
        yield item, ready


def awaited(made: Iterable[tuple[T, torch.cuda.Event | None]], device: torch.device) -> Iterator[T]:
    """The items of `on_own_stream` as this thread's stream may use them: the GPU waits for each, the host does not."""
    for item, ready in made:
        if ready is not None:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(ready)
            for tensor in tensors_of(item):
                tensor.record_stream(stream)  # its memory is not the other stream's before this one is done with it
        yield item
