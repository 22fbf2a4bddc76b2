"""Dense margins against frames of one video, where tokens match near themselves only, without forming the other pairs.

With a radius of 12 tokens about a third of the pairs of a 34 x 60 grid lie near each other. The target is cut into
tiles, each of which is compared with what can be near to any of its tokens: a few matrix products of a good size, of
less than half of all pairs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segic.correspondence import entity_margins

TILE = (12, 20)  # rows and columns of the target that are compared together


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


def near_margins(
    target: Tensor,
    tokens: Sequence[Tensor],
    group: Tensor,
    grid: tuple[int, int],
    radius: int,
    entities: int,
    topk: int,
) -> Tensor:
    """`entity_margins` of a frame's tokens against those of other frames together, as if pairs that are more than
    `radius` rows or columns apart had similarity 0.

    target: (h * w, C) for a grid of (h, w). tokens: R of (h * w, C), in the precision of the products. group: (R * h *
    w,) int64, the owner of each of `tokens` in their order, 0 for background, 1..entities. Returns (entities, h * w)
    float32.
    """
    h, w = grid
    device = target.device
    sources = torch.cat([*tokens, tokens[0].new_zeros(1, target.shape[1])])  # the last one's products are 0
    frames = torch.arange(len(tokens), device=device) * (h * w)
    totals = torch.bincount(group, minlength=entities + 1)
    out = torch.empty(entities, h, w, device=device)
    for tile in tiles(grid, radius):
        inside = (frames[:, None] + _flat(tile.near_rows, tile.near_columns, w, device)).flatten()
        owners = group[inside]
        # What lies outside of the tile counts as similarity 0; more than `topk` of a group are never looked at.
        missing = (totals - torch.bincount(owners, minlength=entities + 1)).clamp(max=topk)
        outside = torch.repeat_interleave(torch.arange(entities + 1, device=device), missing)
        owners, order = torch.cat([owners, outside]).sort()
        index = torch.cat([inside, torch.full_like(outside, len(sources) - 1)])[order]
        similarity = target[_flat(tile.rows, tile.columns, w, device)] @ sources[index].T
        similarity.masked_fill_(_far(tile, index, grid, radius), 0)
        margins = entity_margins(similarity.float(), owners, entities, topk)
        out[:, tile.here[0], tile.here[1]] = margins.unflatten(1, (len(tile.rows), len(tile.columns)))
    return out.flatten(1)


def _flat(rows: range, columns: range, width: int, device: torch.device) -> Tensor:
    """Positions of a rectangle's tokens among a frame's, row by row."""
    y = torch.arange(rows.start, rows.stop, device=device)
    return (y[:, None] * width + torch.arange(columns.start, columns.stop, device=device)).flatten()


def _far(tile: Tile, index: Tensor, grid: tuple[int, int], radius: int) -> Tensor:
    """(tokens of the tile, S) bool: which pairs are too far apart. index: (S,) positions of tokens in their frames, one
    frame after the other.
    """
    y, x = index // grid[1] % grid[0], index % grid[1]
    rows = torch.arange(tile.rows.start, tile.rows.stop, device=index.device)
    columns = torch.arange(tile.columns.start, tile.columns.stop, device=index.device)
    far_y, far_x = (rows[:, None] - y).abs() > radius, (columns[:, None] - x).abs() > radius
    return (far_y[:, None] | far_x[None]).flatten(0, 1)
