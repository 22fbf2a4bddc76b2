"""Which frames of a source are wanted."""

from dataclasses import dataclass

from segic.errors import UsageError


@dataclass(frozen=True)
class Selection:
    """Frames start, start + every, ... below end (None: to the last), counted in display order from 0.

    Raises UsageError for a negative start, an end that is not after it, or a step below 1.
    """

    start: int = 0
    end: int | None = None
    every: int = 1

    def __post_init__(self) -> None:
        if self.start < 0:
            raise UsageError(f"start={self.start}: expected the number of a frame, 0 or more")
        if self.end is not None and self.end <= self.start:
            raise UsageError(f"end={self.end}: expected a frame after start={self.start} (end itself is left out)")
        if self.every < 1:
            raise UsageError(f"every={self.every}: expected 1 or more (2 takes every second frame)")

    def takes(self, index: int) -> bool:
        """True where frame `index` is wanted."""
        return index >= self.start and not self.is_past(index) and (index - self.start) % self.every == 0

    def is_past(self, index: int) -> bool:
        """True where neither frame `index` nor any after it is wanted."""
        return self.end is not None and index >= self.end

    def count(self, available: int) -> int:
        """How many of `available` frames are wanted."""
        stop = available if self.end is None else min(available, self.end)
        return len(range(self.start, stop, self.every))

    def require_reached(self, available: int, what: object) -> None:
        """Raise UsageError when a source of `available` frames ends before `start`."""
        if available <= self.start:
            raise UsageError(f"{what}: start={self.start}, but it has only {available} frames (0 to {available - 1})")
