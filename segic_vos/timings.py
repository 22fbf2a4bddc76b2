"""How long each stage of the pipeline worked."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch


@dataclass(frozen=True)
class Timings:
    """Seconds of work by stage. The stages overlap: their sum may exceed `wall`.

    decode, backbone, masks, write: busy time; on a GPU backbone and masks are the device's own time.
    wall: from the first frame asked for to the last one written. first: until the first result. frames: results made.
    """

    decode: float = 0.0
    backbone: float = 0.0
    masks: float = 0.0
    write: float = 0.0
    wall: float = 0.0
    first: float = 0.0
    frames: int = 0

    @property
    def fps(self) -> float:
        """Frames a second over the whole."""
        return self.frames / self.wall if self.wall > 0 else 0.0

    def as_dict(self) -> dict[str, float]:
        """Rounded to the millisecond, with the `fps` that these make."""
        rounded = {name: round(value, 3) for name, value in asdict(self).items()}
        return {**rounded, "fps": round(Timings.from_dict(rounded).fps, 3)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Timings:
        """From what `as_dict` gave; stages that it lacks have taken no time."""
        return cls(**{each.name: values[each.name] for each in fields(cls) if each.name in values})


class StageClock:
    """Adds up one stage's time. On a GPU it asks the device's own events, without ever waiting for them in between."""

    def __init__(self, device: torch.device | None = None) -> None:
        self._cuda = device if device is not None and device.type == "cuda" else None
        self._seconds = 0.0
        self._open: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time the block."""
        if self._cuda is None:
            start = time.perf_counter()
            try:
                yield
            finally:
                self.add(time.perf_counter() - start)
            return
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        stream = torch.cuda.current_stream(self._cuda)
        begin.record(stream)
        yield
        end.record(stream)
        self._open.append((begin, end))
        while self._open and self._open[0][1].query():
            self._settle()

    def add(self, seconds: float) -> None:
        """Add time measured elsewhere; several threads may."""
        with self._lock:
            self._seconds += seconds

    def total(self) -> float:
        """Seconds so far; on a GPU this waits for the events still open."""
        while self._open:
            self._open[0][1].synchronize()
            self._settle()
        return self._seconds

    def _settle(self) -> None:
        begin, end = self._open.popleft()
        self.add(begin.elapsed_time(end) / 1000)
