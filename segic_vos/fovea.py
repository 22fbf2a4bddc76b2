"""Looking closely only where the objects are: tokens of several resolutions, and the size that their number allows.

Objects are near to where they were. A frame is seen at full resolution along the borders of their last masks, at half
of it inside of them and a little around, where four tokens become one, and at a quarter elsewhere. What that saves is
spent on a larger picture, chosen once, by the first masks: so small objects are seen larger, and the backbone's cost
depends less on what is followed. Frames with given masks are seen whole, as are those in which nobody is to be seen and
every few in which somebody is not; frames whose background is learnt are seen at half the resolution at least. Objects
that grow take more tokens, but one that fills the frame takes fewer again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segic.backbones.fovea import fovea
from segic.model import MASKS_AT_ONCE, SEGIC
from segic.propagation import NOBODY, Context
from segic.tiles import surroundings

MARGIN = 1 / 12  # of the frame's shorter side, around an object: how far it may go in a frame
SOLID = 0.99  # the share of a token from which on an object covers it all


def last_seen(before: Mapping[int, Tensor], last: Context) -> dict[int, Tensor]:
    """(h * w,) by entity: what it covers of the tokens in the last frame, or where it is hidden, in the last that
    showed it: there it is most likely to come back.
    """
    assert last.weights is not None
    known = zip(last.entities, last.weights, last.present, strict=True)
    # Copies: a view of one that hides next would keep the rows of all.
    shown = {key: mine.clone() for key, mine, here in known if key != NOBODY and (here or key not in before)}
    return {**before, **shown}


def scales(weights: Tensor, *, learnt: bool = False) -> Tensor:
    """(N, h, w) what each object covers of the tokens -> (h, w) int64, how coarsely each may be seen: 1 at most MARGIN
    away, 2 at most twice as far, and 4 elsewhere, or 2 of a frame whose background is `learnt`. Inside of an object, 2
    further than half of MARGIN from its border.
    """
    margin = max(1, round(MARGIN * min(weights.shape[1:])))
    covered = (weights > 0).any(0)
    coarsest = torch.where(surroundings(covered, margin), 1, 2)
    if not learnt:
        coarsest = torch.where(surroundings(covered, 2 * margin), coarsest, 4)
    inside = ~surroundings(weights < SOLID, (margin + 1) // 2).all(0)
    return torch.where(inside, 2, coarsest)


def usual_scales(model: SEGIC, labels: NDArray[np.int32]) -> Tensor:
    """(h, w) int64: `scales` after a frame with masks `labels`, (H, W), 0 for background."""
    frame = (labels.shape[0], labels.shape[1])
    ids = np.unique(labels[labels != 0]).tolist() or [-1]  # an empty mask where there is no object
    canvas, grid = model.canvas(frame), model.grid(frame)

    def cover(some: Sequence[int]) -> Tensor:
        return canvas.cover(torch.from_numpy(np.stack([labels == i for i in some])).to(model.device), grid)

    # A few at a time: many masks of a large picture take gigabytes as floats.
    return scales(torch.cat([cover(ids[i : i + MASKS_AT_ONCE]) for i in range(0, len(ids), MASKS_AT_ONCE)]))


def count_tokens(model: SEGIC, labels: NDArray[np.int32]) -> int:
    """Tokens that a frame after one with masks `labels` takes, but for those that make their number a whole step."""
    return len(fovea(usual_scales(model, labels)))


def fitting_size(model: SEGIC, labels: NDArray[np.int32], sizes: Sequence[int], tokens: int) -> int:
    """The largest of `sizes` at which a frame with masks such as `labels` takes at most `tokens`; else the smallest."""
    largest_first = sorted(sizes, reverse=True)  # most often it fits, and masks of a large frame take long to count
    return next((size for size in largest_first if count_tokens(model.at_size(size), labels) <= tokens), min(sizes))
