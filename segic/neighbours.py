"""Frames of one video compared near by, on a device that would rather form all products than wait for many parts.

The counterpart of `segic.tiles`: one product of two frames, of which each token's neighbours are then picked. Shapes
depend on the grid alone, so that a GPU is never waited for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segic.correspondence import best_by_group, margins_of_best
from segic.remembered import remembered

PAIRS_AT_ONCE = 2**25  # of tokens that are compared at once; large frames go in chunks of this


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Of each token of a grid (h, w), K = (2 radius + 1)^2 places around it.

    index: (h * w, K) int64 positions in the grid. inside: (h * w, K) bool, which of the places are in the grid; the
    index of others is that of some token. down, right: (K,) float32, how many rows and columns away the places are.
    """

    index: Tensor
    inside: Tensor
    down: Tensor
    right: Tensor


@remembered(4)
def neighbours(grid: tuple[int, int], radius: int, device: torch.device) -> Neighbours:
    """The places at most `radius` rows and columns away; remembered, as all frames of a video ask for the same."""
    h, w = grid
    radius = min(radius, max(h, w) - 1)
    offset = torch.arange(-radius, radius + 1, device=device)
    down, right = (t.flatten() for t in torch.meshgrid(offset, offset, indexing="ij"))
    position = torch.arange(h * w, device=device)
    y, x = (position // w)[:, None] + down, (position % w)[:, None] + right
    inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
    return Neighbours(y.clamp(0, h - 1) * w + x.clamp(0, w - 1), inside, down.float(), right.float())


def neighbour_margins(
    target: Tensor,
    tokens: Sequence[Tensor],
    group: Tensor,
    grid: tuple[int, int],
    radius: int,
    entities: int,
    topk: int,
    seen: Tensor | None = None,
) -> Tensor:
    """As `segic.tiles.near_margins`."""
    near = neighbours(grid, radius, target.device)
    index, inside = (near.index, near.inside) if seen is None else (near.index[seen], near.inside[seen])
    owners = group.view(len(tokens), -1)
    total = (group == torch.arange(entities + 1, device=group.device)[:, None]).sum(1)
    rank = torch.arange(topk, device=group.device)
    out = []
    for rows in _rows(target, index.shape[1] * len(tokens), len(tokens[0])):
        places, within = index[rows], inside[rows]
        cosines = [(target[rows] @ other.T).gather(1, places) for other in tokens]
        owner = [mine[places].masked_fill(~within, entities + 1) for mine in owners]
        of, similarity = torch.cat(owner, 1), torch.cat(cosines, 1)
        best, found = best_by_group(similarity, of, entities + 1, topk)
        # What lies too far away counts as similarity 0.
        far = torch.where(rank < (total[:, None] - found)[..., None], 0.0, -torch.inf)
        out.append(margins_of_best(torch.cat([best.float(), far], 2).topk(topk, dim=2).values))
    return torch.cat(out, 1)


def neighbour_cosines(target: Tensor, source: Tensor, near: Neighbours) -> Tensor:
    """(h * w, D) tokens of length 1 of two frames -> (h * w, K) float32 cosines of each target token and the source's
    tokens around it.
    """
    parts = _rows(target, near.index.shape[1], len(source))
    return torch.cat([(target[rows] @ source.T).gather(1, near.index[rows]).float() for rows in parts])


def _rows(target: Tensor, kept: int, formed: int) -> Iterator[slice]:
    """Of the target's tokens, so many at once that neither the products nor what is kept of them grow too large."""
    step = max(1, PAIRS_AT_ONCE // max(kept, formed))
    for start in range(0, max(1, len(target)), step):
        yield slice(start, min(len(target), start + step))
