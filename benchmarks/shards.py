"""Splitting a benchmark's work among processes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from segic.errors import UsageError
from segic.torchrun import ranks

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0) of `count` equal parts. Items are dealt in turn, so neighbours go to different parts."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.index < self.count:
            raise UsageError(
                f"shard {self.index}/{self.count} does not exist; the parts of {self.count} are numbered from 0, "
                f"so 0/{max(self.count, 1)} is the first"
            )

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """`"i/n"`, for instance "0/2" and "1/2"."""
        index, slash, count = text.partition("/")
        if not slash or not index.strip().isdecimal() or not count.strip().isdecimal():
            raise UsageError(f"shard {text!r} is not of the form i/n with i from 0 to n-1, for instance 0/2 and 1/2")
        return cls(int(index), int(count))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Shard":
        """The part that torchrun's RANK and WORLD_SIZE name; the whole without. UsageError for other than numbers."""
        return cls(*(ranks(("RANK", "WORLD_SIZE"), environment) or ()))

    def select(self, items: Sequence[T]) -> list[T]:
        """This part's items, in order."""
        return list(items[self.index :: self.count])
