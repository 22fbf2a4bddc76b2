"""Tokens at several resolutions: fine where something matters, one for a block of 2 x 2 or of 4 x 4 elsewhere.

Attention costs the square of the number of tokens, and most of a frame is background far from any object. The coarse
tokens are those of the picture at a half and a quarter of its size, at the same place in the frame; a frozen DINOv2
takes the mixture as it is, and gives the fine tokens nearly the features that they have among fine ones only.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

SCALES = (1, 2, 4)  # tokens of the grid, along each side, that may share their features
ROWS = 16  # tokens that the matrix units of CPUs (AMX) take together: attention and products are 5 % faster if all are
BESIDE = 1  # the class token, which goes through the backbone beside the picture's


@dataclass(frozen=True, eq=False)
class Fovea:
    """Which tokens of a grid (h, w) have features of their own, and where each of the grid's tokens finds its features.

    tokens: for each of SCALES, (T,) int64 positions in the grid of h // scale by w // scale. source: (h * w,) int64
    positions among all of these, in their order. seen: int64, for each of these a position in the grid that has its
    features, near the middle of those that do.
    """

    tokens: tuple[Tensor, ...]
    source: Tensor
    seen: Tensor

    def __len__(self) -> int:
        """How many tokens have features of their own."""
        return len(self.seen)


def fovea(coarsest: Tensor, at_once: int = 1) -> Fovea:
    """coarsest: (h, w) int64, the largest of SCALES at which a token may be seen. Blocks of 2 x 2 whose tokens all
    allow it become one, and blocks of 2 x 2 of those; a last row or column without a partner stays as it is.

    at_once: as few more blocks stay apart as make their number a multiple of it, up to a constant, so that the frames
    of a video have a few numbers of tokens only: a CPU prepares its products anew for each. The constant makes the
    tokens fill rows of ROWS, where `at_once` is a multiple of that. Blocks of fine tokens next to others of them stay
    apart first.
    """
    joined = [torch.ones_like(coarsest, dtype=torch.bool)]
    for scale in SCALES[1:]:
        joined.append(_least(joined[-1], 2) & (_least(coarsest, scale) >= scale))
    joined.append(torch.zeros_like(_least(joined[-1], 2)))  # nothing is seen more coarsely
    blocks = sum(int(one.sum()) for one in joined[1:])
    excess = (blocks - _filling_rows(coarsest.numel())) % at_once
    while excess and joined[1].any():
        for level in range(1, len(SCALES)):
            free = joined[level] & ~_spread(joined[level + 1], 2, joined[level].shape)
            joined[level] = _less(joined[level], free, excess)
            excess -= min(excess, int(free.sum()))
    source = torch.zeros_like(coarsest)
    tokens: list[Tensor] = []
    seen: list[Tensor] = []
    count = 0
    for scale, (here, larger) in zip(SCALES, pairwise(joined), strict=True):
        own = here & ~_spread(larger, 2, here.shape)
        y, x = own.nonzero().unbind(1)
        number = torch.zeros_like(own, dtype=torch.int64)
        number[y, x] = torch.arange(count, count + len(y), device=own.device)
        source += _spread(number, scale, source.shape)
        middle = (scale - 1) // 2
        tokens.append(y * own.shape[1] + x)
        seen.append((scale * y + middle) * source.shape[1] + scale * x + middle)
        count += len(y)
    return Fovea(tuple(tokens), source.flatten(), torch.cat(seen))


def _least(values: Tensor, scale: int) -> Tensor:
    """(h, w) -> (h // scale, w // scale): the smallest of each block, of bool whether all are true."""
    h, w = values.shape[0] // scale, values.shape[1] // scale
    return values[: scale * h, : scale * w].unflatten(0, (h, scale)).unflatten(2, (w, scale)).amin((1, 3))


def _spread(values: Tensor, scale: int, shape: torch.Size) -> Tensor:
    """(h, w) -> `shape`: each as a block of scale x scale, zero where there is none."""
    out = values.new_zeros(shape)
    h, w = scale * values.shape[0], scale * values.shape[1]
    out[:h, :w] = values.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    return out


def _filling_rows(tokens: int) -> int:
    """The least number of joined blocks with which a grid of so many tokens fills rows of ROWS; every block that is
    joined takes three tokens away.
    """
    return next(blocks for blocks in range(ROWS) if (tokens + BESIDE - 3 * blocks) % ROWS == 0)


def _less(joined: Tensor, free: Tensor, count: int) -> Tensor:
    """(rows, columns) bool `joined` without `count` of the `free` ones, or all where there are fewer: those nearest to
    any that are not joined.
    """
    if not count or not free.any():
        return joined
    others, candidates = (~joined).nonzero(), free.nonzero()
    distance = torch.zeros(len(candidates), device=joined.device, dtype=torch.float32)
    if len(others):
        distance = torch.cdist(candidates.float(), others.float()).amin(1)
    y, x = candidates[distance.argsort(stable=True)[:count]].unbind(1)
    out = joined.clone()
    out[y, x] = False
    return out
