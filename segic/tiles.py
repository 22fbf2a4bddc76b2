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

from segic.correspondence import entity_margins

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
        rows, columns = self.rows, self.columns
        return (y >= rows.start) & (y < rows.stop) & (x >= columns.start) & (x < columns.stop)


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
    device = target.device
    sources = torch.cat([*tokens, tokens[0].new_zeros(1, target.shape[1])])  # the last one's products are 0
    frames = torch.arange(len(tokens), device=device) * (h * w)
    kept = group <= entities
    totals = torch.bincount(group[kept], minlength=entities + 1)
    out = torch.empty(entities, len(target), device=device)
    size = TILE if seen is None else SPARSE_TILE
    positions = torch.arange(h * w, device=device) if seen is None else seen
    y, x = positions // w, positions % w
    for tile in tiles(grid, radius, size):
        mine = tile.holds(y, x).nonzero()[:, 0]
        inside = (frames[:, None] + _flat(tile.near_rows, tile.near_columns, w, device)).flatten()
        inside = inside[kept[inside]]
        owners = group[inside]
        # What lies outside of the tile counts as similarity 0; more than `topk` of a group are never looked at.
        missing = (totals - torch.bincount(owners, minlength=entities + 1)).clamp(max=topk)
        outside = torch.repeat_interleave(torch.arange(entities + 1, device=device), missing)
        owners, order = torch.cat([owners, outside]).sort()
        index = torch.cat([inside, torch.full_like(outside, len(sources) - 1)])[order]
        products = target[_whole_steps(mine)] @ sources[_whole_steps(index)].T
        similarity = products[: len(mine), : len(index)]
        similarity.masked_fill_(_far(tile, y[mine], x[mine], index, grid, radius), 0)
        out[:, mine] = entity_margins(similarity, owners, entities, topk)
    return out


def _flat(rows: range, columns: range, width: int, device: torch.device) -> Tensor:
    """Positions of a rectangle's tokens among a frame's, row by row."""
    y = torch.arange(rows.start, rows.stop, device=device)
    return (y[:, None] * width + torch.arange(columns.start, columns.stop, device=device)).flatten()


def _whole_steps(index: Tensor) -> Tensor:
    """As many positions as are a multiple of STEP, the last of them at 0: for a product of a new shape, a CPU spends
    more time on preparing it than on the product itself.
    """
    return F.pad(index, (0, -len(index) % STEP))


def _far(tile: Tile, y: Tensor, x: Tensor, index: Tensor, grid: tuple[int, int], radius: int) -> Tensor:
    """(T, S) bool: which pairs are too far apart. y, x: (T,) rows and columns of the tile's tokens. index: (S,)
    positions of the others in their frames, one frame after the other.
    """
    other_y, other_x = index // grid[1] % grid[0], index % grid[1]
    rows = torch.arange(tile.rows.start, tile.rows.stop, device=index.device)
    columns = torch.arange(tile.columns.start, tile.columns.stop, device=index.device)
    # By rows and by columns first: comparing all pairs costs many times as much as looking both up.
    far_y, far_x = (rows[:, None] - other_y).abs() > radius, (columns[:, None] - other_x).abs() > radius
    return far_y[y - tile.rows.start] | far_x[x - tile.columns.start]
