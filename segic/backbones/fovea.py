"""Tokens at two resolutions: fine where something matters, one for a block of 2 x 2 elsewhere.

Attention costs the square of the number of tokens, and most of a frame is background far from any object. The coarse
tokens are those of the picture at half its size, at the same place in the frame; a frozen DINOv2 takes the mixture as
it is, and gives the fine tokens nearly the features that they have among fine ones only.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Fovea:
    """Which tokens of a grid (h, w) are fine, and where each of the grid's tokens finds its features.

    fine: (F,) int64 positions in the grid. coarse: (K,) int64 positions in the grid of half its height and width,
    rounded down. source: (h * w,) int64 positions among the fine and then the coarse ones. seen: (F + K,) int64, the
    first position in the grid of each of those.
    """

    fine: Tensor
    coarse: Tensor
    source: Tensor
    seen: Tensor

    @property
    def tokens(self) -> int:
        """F + K."""
        return len(self.fine) + len(self.coarse)


def fovea(wanted: Tensor, at_once: int = 1) -> Fovea:
    """wanted: (h, w) bool, tokens that must be fine. So are all others of their block of 2 x 2, and those of a last row
    or column without a partner. at_once: so many blocks become fine together, those that lie nearest to the wanted ones
    too, so that the frames of a video have a few numbers of tokens only: a CPU prepares its products anew for each.
    """
    h, w = wanted.shape
    rows, columns = h // 2, w // 2
    blocks = wanted[: 2 * rows, : 2 * columns].unflatten(0, (rows, 2)).unflatten(2, (columns, 2))
    coarse = _fewer(~blocks.any(3).any(1), at_once)
    merged = torch.zeros_like(wanted)
    merged[: 2 * rows, : 2 * columns] = coarse.repeat_interleave(2, 0).repeat_interleave(2, 1)
    fine = (~merged).flatten().nonzero()[:, 0]
    kept = coarse.flatten().nonzero()[:, 0]
    number = torch.zeros(rows * columns, dtype=torch.int64, device=wanted.device)
    number[kept] = torch.arange(len(kept), device=wanted.device) + len(fine)
    source = torch.zeros(h, w, dtype=torch.int64, device=wanted.device)
    source[: 2 * rows, : 2 * columns] = number.view(rows, columns).repeat_interleave(2, 0).repeat_interleave(2, 1)
    source = source.flatten()
    source[fine] = torch.arange(len(fine), device=wanted.device)
    corners = torch.div(kept, max(1, columns), rounding_mode="floor") * (2 * w) + kept % max(1, columns) * 2
    return Fovea(fine, kept, source, torch.cat([fine, corners]))


def _fewer(coarse: Tensor, at_once: int) -> Tensor:
    """(rows, columns) bool, with fewer true, so that the number of the others is a multiple of `at_once`."""
    others, candidates = (~coarse).nonzero(), coarse.nonzero()
    missing = -len(others) % at_once
    if not missing:
        return coarse
    distance = torch.cdist(candidates.float(), others.float()).amin(1)
    y, x = candidates[distance.argsort(stable=True)[:missing]].unbind(1)
    out = coarse.clone()
    out[y, x] = False
    return out
