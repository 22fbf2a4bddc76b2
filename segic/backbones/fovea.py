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


def fovea(wanted: Tensor) -> Fovea:
    """wanted: (h, w) bool, tokens that must be fine. So are all others of their block of 2 x 2, and those of a last row
    or column without a partner.
    """
    h, w = wanted.shape
    rows, columns = h // 2, w // 2
    blocks = wanted[: 2 * rows, : 2 * columns].unflatten(0, (rows, 2)).unflatten(2, (columns, 2))
    coarse = ~blocks.any(3).any(1)
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
