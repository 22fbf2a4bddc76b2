"""Whether a frame of a video continues the one before it.

Masks and matches are handed on from frame to frame, on the ground that things have hardly moved. After a cut that is
wrong: what is nearest to an object that is not there any more is taken for it, and matches itself from then on.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

STEP = 4  # rows and columns: one token in so many of each is looked for, among one in half as many


@dataclass(frozen=True, eq=False)
class Standing:
    """How a frame's n entities stand with the given examples when masks have been predicted on it.

    likeness: (n,) float32, how much the given examples spoke for what their masks covered in the frames up to when they
    were last seen; minus infinity where nobody knows. away: (n,) bool, who has not been found since a cut.
    """

    likeness: Tensor
    away: Tensor


def is_cut(target: Tensor, last: Tensor, grid: tuple[int, int], least: float) -> Tensor:
    """() bool: whether a frame with the tokens target (h * w, D), of length 1, is of another shot than the one before
    it, with the tokens last: whether they are less alike than `least`, which is the mean of two mean cosines, of tokens
    to those most like them and to those in the same place.

    The first is what a moving camera leaves, the second what a blur does. Of the sequences that this was looked at
    with, frames of one shot come to 0.41 and more, those before and after a cut to another place to 0.30 and less.
    """
    middles, steps = slice(STEP // 2, None, STEP), slice(None, None, STEP // 2)
    ours, theirs = target.unflatten(0, grid), last.unflatten(0, grid)
    own, same, others = (
        tokens.flatten(0, 1) for tokens in (ours[middles, middles], theirs[middles, middles], theirs[steps, steps])
    )
    if not len(own):
        return torch.zeros((), dtype=torch.bool, device=target.device)
    best = (own @ others.T).amax(1).mean(dtype=torch.float32)
    placed = (own * same).sum(dtype=torch.float32)
    return torch.add(best, placed, alpha=1 / len(own)) < 2 * least
