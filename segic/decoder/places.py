"""Where in a frame an entity may be: most of a frame is far from any one, and nothing of it is decoded there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from segic.carrying import SCALE

LEAST = -0.05  # of a token's mean margin: where it is more, an entity may be
MARGIN = 4  # tokens around what speaks for an entity: with BLOCK - 1 or more, no block beyond a place has any of that
SIDES = (16, 24, 32, 48, 64, 96)  # of places, in tokens: a CPU prepares products anew for every size, and keeps them
BLOCK = 4  # tokens along each side of what one stands for beyond a place
WORTH = 0.7  # of the frame: what is larger is decoded as a whole


@dataclass(frozen=True)
class Place:
    """A part of a grid of (h, w) tokens."""

    rows: range
    columns: range

    @property
    def area(self) -> int:
        return len(self.rows) * len(self.columns)

    def of(self, values: Tensor, scale: int = 1) -> Tensor:
        """(..., scale * h, scale * w) -> the same there."""
        rows, columns = (slice(scale * part.start, scale * part.stop) for part in (self.rows, self.columns))
        return values[..., rows, columns]


@dataclass(frozen=True)
class Group:
    """Entities that are decoded together, by their positions among all. places: one each, of one size; None: the whole
    frame.
    """

    entities: tuple[int, ...]
    places: tuple[Place, ...] | None

    @property
    def index(self) -> slice | list[int]:
        """For tensors with a row for each of all entities: a slice wherever they follow each other."""
        first, last = self.entities[0], self.entities[-1]
        consecutive = self.entities == tuple(range(first, last + 1))
        return slice(first, last + 1) if consecutive else list(self.entities)


def places(maps: Tensor, carried: Tensor) -> list[Place | None]:
    """Each entity's place, None where it may be anywhere: those that the last frame's masks do not show.

    maps: (N, P, h, w) margins. carried: (N, 4h, 4w) the last frame's masks, moved along.
    """
    grid = (maps.shape[-2], maps.shape[-1])
    covered = F.max_pool2d(carried[None], SCALE)[0] > 0
    spoken_for = covered | (maps.mean(1) > LEAST)
    lines = (ends(spoken_for.any(2)), ends(spoken_for.any(1)))
    seen = covered.flatten(1).any(1).tolist()
    return [
        Place(_with_margin(rows, grid[0]), _with_margin(columns, grid[1])) if known else None
        for known, rows, columns in zip(seen, *lines, strict=True)
    ]


def grouped(found: Sequence[Place | None], grid: tuple[int, int], at_once: int) -> list[Group]:
    """Entities in groups of `at_once` at most: those without a place, or with one of nearly the whole frame, and those
    of which places of one size hold each one's own.
    """
    most = WORTH * grid[0] * grid[1]
    small = {number: place for number, place in enumerate(found) if place is not None and place.area <= most}
    whole = [number for number in range(len(found)) if number not in small]
    groups = [Group(part, None) for part in _few(whole, at_once)]
    for part in _few(sorted(small, key=lambda number: small[number].area), at_once):
        rows, columns = (max(len(getattr(small[i], name)) for i in part) for name in ("rows", "columns"))
        groups.append(Group(part, widened([small[i] for i in part], rows, columns, grid)))
    return groups


def widened(boxes: Sequence[Place], rows: int, columns: int, grid: tuple[int, int]) -> tuple[Place, ...]:
    """Places of so many rows and columns around boxes of at most as many, as far as there are in `grid`."""
    return tuple(Place(around(box.rows, rows, grid[0]), around(box.columns, columns, grid[1])) for box in boxes)


def cut(values: Tensor, chosen: Sequence[Place], scale: int = 1, whose: Sequence[int] | None = None) -> Tensor:
    """(N or 1, C, scale * h, scale * w) -> (N, C, ...): that of each of N places, which are of one size. whose: which
    of the values is each one's; None: those in its position.
    """
    numbers = range(len(chosen)) if whose is None else whose
    each = [values if len(values) == 1 else values[i : i + 1] for i in numbers]
    return torch.cat([place.of(one, scale) for one, place in zip(each, chosen, strict=True)])


def left(chosen: Sequence[Place], grid: tuple[int, int]) -> Tensor:
    """(N, K) float32: how many tokens of each block of a grid of (h, w) lie beyond each place."""

    def blocks(parts: Iterable[range], side: int) -> Tensor:
        return torch.tensor([_blocks(part, side) for part in parts], device="cpu", dtype=torch.float32)

    high, wide = (blocks([range(side)], side) for side in grid)
    rows, columns = (
        blocks((place.rows for place in chosen), grid[0]),
        blocks((place.columns for place in chosen), grid[1]),
    )
    return (high[:, :, None] * wide[:, None] - rows[:, :, None] * columns[:, None]).flatten(1)


def _blocks(part: range, side: int) -> list[int]:
    """How many of a part's rows, or columns, each block along a side has."""
    starts = [*range(0, side, BLOCK), side]
    return [max(0, min(part.stop, end) - max(part.start, start)) for start, end in pairwise(starts)]


def ends(lines: Tensor) -> list[range]:
    """(N, L) bool -> from the first to the last that is true of each; empty where none is."""
    found = lines.any(1).tolist()
    first = lines.int().argmax(1).tolist()
    last = lines.flip(1).int().argmax(1).tolist()
    both = zip(found, first, last, strict=True)
    return [range(a, lines.shape[1] - b) if any_ else range(0) for any_, a, b in both]


def around(part: range, size: int, side: int) -> range:
    """As many as `size` around a part, of `side` that there are."""
    size = min(size, side)
    start = min(max(0, part.start - (size - len(part)) // 2), side - size)
    return range(start, start + size)


def _with_margin(part: range, side: int) -> range:
    """With a margin around it, and as many more as make one of SIDES, as far as there are."""
    part = range(max(0, part.start - MARGIN), min(side, part.stop + MARGIN))
    return around(part, next((size for size in SIDES if size >= len(part)), side), side)


def _few(numbers: Sequence[int], at_once: int) -> list[tuple[int, ...]]:
    return [tuple(numbers[i : i + at_once]) for i in range(0, len(numbers), at_once)]
