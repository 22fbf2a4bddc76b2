"""Dense margins against frames of one video, where tokens match near themselves only, without forming the other pairs.

With a radius of 12 tokens about a third of the pairs of a 34 x 60 grid lie near each other. The target is cut into
tiles, each of which is compared with what can be near to any of its tokens: a few matrix products of a good size, of
less than half of all pairs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segic.correspondence import best_of_columns, margins_of_best
from segic.remembered import remembered

TILE = (12, 20)  # rows and columns of the target that are compared together
SPARSE_TILE = (24, 30)  # where a part of them is compared only
STEP = 128  # sides of the products are multiples of it


@dataclass(frozen=True)
class Tile:
    """rows, columns: of the target. near_rows, near_columns: all that lie at most a radius from any of those."""

    rows: range
    columns: range
    near_rows: range
    near_columns: range

    @property
    def here(self) -> tuple[slice, slice]:
        """The tile in a map of (h, w) tokens."""
        return slice(self.rows.start, self.rows.stop), slice(self.columns.start, self.columns.stop)

    @property
    def near(self) -> tuple[slice, slice]:
        """What is near to it in a map of (h, w) tokens."""
        return (
            slice(self.near_rows.start, self.near_rows.stop),
            slice(self.near_columns.start, self.near_columns.stop),
        )

    def holds(self, y: Tensor, x: Tensor) -> Tensor:
        """Which of some tokens, in rows y and columns x, are the tile's."""
        return _within(self.rows, y) & _within(self.columns, x)

    def is_near(self, y: Tensor, x: Tensor) -> Tensor:
        """Which of some tokens are near to it."""
        return _within(self.near_rows, y) & _within(self.near_columns, x)


def tiles(grid: tuple[int, int], radius: int, size: tuple[int, int] = TILE) -> Iterator[Tile]:
    """Tiles of `size` that cover a grid of (h, w) tokens once."""
    for y in range(0, grid[0], size[0]):
        for x in range(0, grid[1], size[1]):
            end_y, end_x = min(grid[0], y + size[0]), min(grid[1], x + size[1])
            yield Tile(
                range(y, end_y),
                range(x, end_x),
                range(max(0, y - radius), min(grid[0], end_y + radius)),
                range(max(0, x - radius), min(grid[1], end_x + radius)),
            )


def offsets(here: range, there: range, device: torch.device) -> Tensor:
    """(len(here), len(there)) int64 how far, along one axis, each of the latter lies beyond each of the former."""
    start = torch.arange(here.start, here.stop, device=device)
    return torch.arange(there.start, there.stop, device=device) - start[:, None]


def _within(part: range, places: Tensor) -> Tensor:
    return (places >= part.start) & (places < part.stop)


def surroundings(covered: Tensor, radius: int) -> Tensor:
    """(h, w) or (N, h, w) bool -> the same, with all that is at most `radius` rows and columns away."""
    return F.max_pool2d(covered[None].float(), 2 * radius + 1, stride=1, padding=radius)[0] > 0


def near_margins(
    target: Tensor,
    tokens: Sequence[Tensor],
    group: Tensor,
    grid: tuple[int, int],
    radius: int,
    entities: int,
    topk: int,
    seen: Tensor | None = None,
) -> Tensor:
    """`entity_margins` of a frame's tokens against those of other frames together, as if pairs that are more than
    `radius` rows or columns apart had similarity 0.

    target: (T, C), those of a grid (h, w) at positions `seen`, (T,) int64; without it all h * w. tokens: R of (h * w,
    C), in the precision of the products. group: (R * h * w,) int64, the owner of each of `tokens` in their order, 0 for
    background, 1..entities, or entities + 1 for tokens that are left out. Returns (entities, T) float32.
    """
    h, w = grid
    owners, order = group.sort()
    totals = torch.bincount(owners, minlength=entities + 2)[: entities + 1]
    order = order[: int(totals.sum())]  # without those that are left out, which come last
    sources, other_y, other_x = torch.cat(list(tokens)), order // w % h, order % w
    positions = torch.arange(h * w, device=target.device) if seen is None else seen
    y, x = positions // w, positions % w
    rank = torch.arange(topk, device=target.device)
    best = target.new_empty(entities + 1, len(target), 2 * topk)
    for tile in tiles(grid, radius, TILE if seen is None else SPARSE_TILE):
        mine, inside = tile.holds(y, x).nonzero()[:, 0], tile.is_near(other_y, other_x).nonzero()[:, 0]
        found = torch.bincount(owners[inside], minlength=entities + 1)
        products = target[_whole_steps(mine)] @ sources[_whole_steps(order[inside])].T
        similarity = products[: len(mine), : len(inside)]
        far_y = _far(tile.rows, h, radius, target.device)[:, other_y[inside]]
        far_x = _far(tile.columns, w, radius, target.device)[:, other_x[inside]]
        # By rows and by columns first: comparing all pairs costs many times as much as looking both up.
        similarity.masked_fill_(far_y[y[mine] - tile.rows.start] | far_x[x[mine] - tile.columns.start], 0)
        # What lies outside of the tile counts as similarity 0; more than `topk` of a group are never looked at.
        outside = torch.where(rank < (totals - found)[:, None], 0.0, -torch.inf).to(best.dtype)
        inner = best_of_columns(similarity, found.tolist(), topk)
        best[:, mine] = torch.cat([inner, outside[:, None].expand_as(inner)], 2)
    return margins_of_best(best.topk(topk, dim=2).values.float())


def _whole_steps(index: Tensor) -> Tensor:
    """As many positions as are a multiple of STEP, the last of them at 0: for a product of a new shape, a CPU spends
    more time on preparing it than on the product itself.
    """
    return F.pad(index, (0, -len(index) % STEP))


@remembered(64)
def _far(mine: range, count: int, radius: int, device: torch.device) -> Tensor:
    """(len(mine), count) bool: which of all rows, or columns, are too far from each of a tile's. All frames of a video
    ask for the same.
    """
    return offsets(mine, range(count), device).abs() > radius
