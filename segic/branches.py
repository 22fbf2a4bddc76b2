"""Parts of a recorded function that do not need each other, side by side on a GPU.

Most kernels of a small model leave most of a GPU idle, and take as long as it takes to start them. In a recording
(`segic.recorded`), what does not depend on each other can run at the same time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch


class _Idle(threading.local):
    """Streams that nothing runs on, of each device: of this thread alone, since others may be recording as well."""

    def __init__(self) -> None:
        self.streams: dict[torch.device, list[torch.cuda.Stream]] = {}

    def take(self, device: torch.device) -> torch.cuda.Stream:
        idle = self.streams.setdefault(device, [])
        return idle.pop() if idle else torch.cuda.Stream(device, priority=-1)

    def give_back(self, device: torch.device, stream: torch.cuda.Stream) -> None:
        self.streams[device].append(stream)


_idle = _Idle()


def side_by_side(device: torch.device, *tasks: Callable[[], Any]) -> list[Any]:
    """Their results, in order. The tasks must not write to what others read. Within a recording they become branches of
    it; otherwise they run one after the other. May be nested.
    """
    if device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
        return [task() for task in tasks]
    here = torch.cuda.current_stream(device)
    # A stream taken again waits for `here`, so for all that still reads what was made on it before: memory is safe.
    beside = [_idle.take(device) for _ in tasks[1:]]
    for stream in beside:
        stream.wait_stream(here)
    results = [tasks[0]()]
    for stream, task in zip(beside, tasks[1:], strict=True):
        with torch.cuda.stream(stream):
            results.append(task())
    for stream in beside:
        here.wait_stream(stream)
        _idle.give_back(device, stream)
    return results
