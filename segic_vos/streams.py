"""Work of two threads on one GPU at the same time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

from segic.recorded import tensors_of

T = TypeVar("T")


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


def awaited(made: Iterable[tuple[T, torch.cuda.Event | None]]) -> Iterator[T]:
    """The items of `on_own_stream` as this thread's stream may use them: the GPU waits for each, the host does not."""
    for item, ready in made:
        if ready is not None:
            stream = torch.cuda.current_stream()
            stream.wait_event(ready)
            for tensor in tensors_of(item):
                tensor.record_stream(stream)  # its memory is not the other stream's before this one is done with it
        yield item
