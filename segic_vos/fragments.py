"""Parts of a mask that lie apart from the rest of it, and that stayed behind there.

Where an object passes something, a piece of that is easily taken along in its mask. It is carried from frame to frame
when the object has long gone on: apart from it by then, and, by the given examples, background. Of a small part their
linear models know it better than their best matches do.
"""

import torch
from torch import Tensor

from segic.carrying import SCALE

PASSES = 4  # along rows and columns: of 2,000 objects' masks, 12 wind more often and count as several parts
SMALL = 0.15  # of the largest part's area: no more have small parts


def left_behind(masks: Tensor, covered: Tensor, like_any: Tensor) -> Tensor:
    """(N, h, w) bool: tokens of the masks (N, 4h, 4w), bool, in parts that are not the mask's largest and that are, on
    average, background by each of `like_any`, or small and background by its last. like_any: (K, h, w) how much more a
    token is like anything that is followed, in the order of `dense_maps`. covered: (N, h, w) what the masks cover of
    the tokens.
    """
    n, h, w = covered.shape
    share, like = covered.flatten(), like_any.flatten(1).repeat(1, n)
    values = torch.cat([share[None], share * like])
    part = _parts(masks, h, w).expand(len(values), -1)
    totals = torch.zeros_like(values).scatter_add_(1, part, values).gather(1, part).view(-1, n, h * w)
    area, like = totals[0], totals[1:]
    largest = area.amax(1, keepdim=True)
    background = (like.amax(0) < 0) | ((like[-1] < 0) & (area <= SMALL * largest))
    return ((area > 0) & (area < largest) & background).view(n, h, w)


def _parts(masks: Tensor, h: int, w: int) -> Tensor:
    """(n * h * w,) int64: a number that tokens share whose pixels are connected, over tokens' borders or within one."""
    right = (masks[:, :, SCALE - 1 : -1 : SCALE] & masks[:, :, SCALE::SCALE]).unflatten(1, (h, SCALE)).any(2)
    down = (masks[:, SCALE - 1 : -1 : SCALE] & masks[:, SCALE::SCALE]).unflatten(2, (w, SCALE)).any(3)
    first = torch.ones_like(masks[:, :1, :1])
    in_rows = torch.cat([first.expand(-1, h, 1), ~right], 2).flatten().cumsum(0) - 1
    in_columns = torch.cat([first.expand(-1, w, 1), ~down.mT], 2).flatten().cumsum(0) - 1
    runs = in_rows, in_columns.view(-1, w, h).mT.flatten()
    part = torch.arange(len(in_rows), device=masks.device)
    least = torch.full((len(runs), len(part)), len(part), device=masks.device)  # in each run; numbers only fall
    for _ in range(PASSES):
        for run, known in zip(runs, least, strict=True):
            part = known.scatter_reduce_(0, run, part, "amin")[run]
        part = part[part]  # the number of the token that gives its number: what that one has found counts as well
    return part
