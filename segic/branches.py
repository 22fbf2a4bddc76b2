"""Parts of a recorded function that do not need each other, side by side on a GPU.

Most kernels of a small model leave most of a GPU idle, and take as long as it takes to start them. In a recording
(`segic.recorded`), what does not depend on each other can run at the same time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class _Beside(threading.local):
    """Streams that branches run on, of this thread alone, since others may be recording as well. None is used twice
    before the outermost branches are joined: what was made on it before may still be read until then.
    """

    def __init__(self) -> None:
        self.streams: dict[torch.device, list[torch.cuda.Stream]] = {}
        self.taken = 0
        self.depth = 0

    @contextmanager
    def some(self, device: torch.device, count: int) -> Iterator[list[torch.cuda.Stream]]:
        """`count` streams that nothing runs on."""
        known = self.streams.setdefault(device, [])
        while len(known) < self.taken + count:
            known.append(torch.cuda.Stream(device, priority=-1))
        mine = known[self.taken : self.taken + count]
        self.taken += count
        self.depth += 1
        try:
            yield mine
        finally:
            self.depth -= 1
            if not self.depth:
                self.taken = 0


_beside = _Beside()


def side_by_side(device: torch.device, *tasks: Callable[[], Any]) -> list[Any]:
    """Their results, in order. The tasks must not write to what others read. Within a recording they become branches of
    it; otherwise they run one after the other. May be nested.

    Raises: what a task raises, once the branches are joined: a recording that has loose ones cannot even be given up.
    """
    if device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
        return [task() for task in tasks]
    here = torch.cuda.current_stream(device)
    with _beside.some(device, len(tasks) - 1) as streams:
        for stream in streams:
            stream.wait_stream(here)
        try:
            results = [tasks[0]()]
            for stream, task in zip(streams, tasks[1:], strict=True):
                with torch.cuda.stream(stream):
                    results.append(task())
        finally:
            for stream in streams:
                here.wait_stream(stream)
    return results
