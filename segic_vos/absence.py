"""Who is not there, though something was found in his place: masks hand on their errors from frame to frame.

Functions of tensors that nowhere wait for a GPU, as those of `segic_vos.following`, which they are a part of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from segic.canvas import coverage
from segic.carrying import SCALE
from segic.model import Prediction
from segic.ownership import claims
from segic.propagation import OF_EXAMPLES, OF_RECENT, Context, by_entity
from segic.shots import Standing
from segic_vos.fragments import left_behind

LEAST_MARGIN = -2.0  # between means of cosines
# What is larger than so many times its area and so many tokens more must be certain.
GROWTH, GROWN = 2.0, 10.0
# Of how much the examples spoke for an object before a cut: as much they must after it. Or that less this: for thin
# things, and those that touch others, they hardly speak at all, or against them.
AS_LIKE, LEEWAY = 0.7, 0.02
WEIGHT = 0.25  # of a frame in how much they have spoken for it


@dataclass(frozen=True)
class Claimed:
    """What N objects own. masks: (N, 4h, 4w) bool. covered: (N, h, w) how much of each token. margins: (N, P, h, w) of
    the tokens, as in `segic.propagation.dense_maps`.
    """

    masks: Tensor
    covered: Tensor
    margins: Tensor

    @cached_property
    def likeness(self) -> Tensor:
        """(N,) the mean margin to the given examples of what each covers: how much they speak for it."""
        covered = self.covered.flatten(1)
        return (covered * self.margins[:, 0].flatten(1)).sum(1) / covered.sum(1).clamp(min=1e-6)


def doubtful(
    prediction: Prediction,
    last: Context,
    given: Sequence[Context],
    ids: Sequence[int],
    reappear: float,
    cut: Tensor | None = None,
) -> Tensor:
    """(N,) bool: which objects are much larger than in the last frame, or were not to be seen in it, and are not found
    with enough certainty: where an object is hidden, something else is taken for it. One that comes back much larger
    than the examples show it must be all the more certain. cut: () bool, whether the last frame is of another shot, in
    which nobody was to be seen; None: it is not.

    What is found in its place would teach the frames to come.
    """
    if not reappear or last.weights is None:
        return torch.zeros_like(prediction.scores, dtype=torch.bool)
    areas = (prediction.logits > 0).flatten(1).sum(1) / SCALE**2
    known = _areas(last, ids) if cut is None else _areas(last, ids).masked_fill(cut, 0)
    shown = torch.stack([_areas(example, ids) for example in given]).amax(0)
    lost = known == 0
    larger = areas > GROWTH * torch.where(lost, shown, known) + GROWN
    score = torch.where(larger & lost, (1 + reappear) / 2, reappear)
    return (larger | lost) & (prediction.scores < score)


def unlike(likeness: Tensor, before: Standing, cut: Tensor) -> Tensor:
    """(N,) bool: which objects were not found since a cut, and are less like the examples than they were. Another shot
    has things that are more like an object than all else in it, and scores that were not trained with such.
    """
    least = torch.minimum(AS_LIKE * before.likeness, before.likeness - LEEWAY)
    return (before.away | cut) & (likeness < least)


def _areas(frame: Context, ids: Sequence[int]) -> Tensor:
    """(N,) how many tokens' areas each object covers, 0 for those that the frame does not know."""
    assert frame.weights is not None
    return by_entity(frame.weights.sum(1), frame.entities, ids)


def claimed(prediction: Prediction) -> Claimed | None:
    """What a prediction gives to its objects; None of a model that does not match densely."""
    margins = prediction.margins
    if margins is None:
        return None
    masks = claims(prediction.logits)
    return Claimed(masks, coverage(masks, (margins.shape[2], margins.shape[3])), margins)


def before(last: Context, ids: Sequence[int]) -> Standing:
    """What is known of N objects from the last frame; nothing, where its masks were given."""
    seen = last.standing
    if seen is None:
        likeness = torch.full((len(ids),), -torch.inf, device=last.covers.device, dtype=torch.float32)
        return Standing(likeness, torch.zeros_like(likeness, dtype=torch.bool))
    return Standing(*(by_entity(part, last.entities, ids) for part in (seen.likeness, seen.away)))


def after(likeness: Tensor, present: Tensor, before: Standing, cut: Tensor) -> Standing:
    """What is known of N objects after a frame. likeness, present: (N,) of this frame."""
    known = before.likeness > -torch.inf
    mean = torch.where(known, torch.lerp(before.likeness, likeness, WEIGHT), likeness)
    return Standing(torch.where(present, mean, before.likeness), ~present & (before.away | cut))


def drifted_off(mine: Claimed, drift: float) -> Tensor:
    """(N, 4h, 4w) bool: all of the masks that cover what the given examples know as background: both its best matches
    among their tokens and their linear models say so, by more than `drift` on average. Or what is background in the
    last frames by as much, and by the linear models at all: an object is hidden, and its mask has gone elsewhere. Of
    the others those parts, apart from the rest, of which the examples say so at all.

    Masks hand on their errors from frame to frame: what was taken for an object once is matched with itself from then
    on, with a good score. The given examples alone do not change with it; the last frames do not know it yet. Who is
    like another object is not meant here.
    """
    masks, covered, margins = mine.masks, mine.covered, mine.margins
    area = covered.flatten(1).sum(1, keepdim=True)
    like_examples = margins[:, OF_EXAMPLES].amax(0)
    recent = margins[:, OF_RECENT : OF_RECENT + 1]
    known = recent.flatten(1).any(1)  # by the last frames; they say nothing of others
    like_recent = recent.masked_fill(~known[:, None, None, None], LEAST_MARGIN).amax(0)
    like = torch.cat([like_examples, like_recent]).flatten(1)
    mean = covered.flatten(1) @ like.T / area.clamp(min=1e-6)
    by_examples, by_recent = mean[:, :-1], mean[:, -1]
    elsewhere = known & (by_recent < -drift) & (by_examples[:, -1] < 0)
    strayed = elsewhere | (by_examples.amax(1) < -drift)
    parts = left_behind(masks, covered, like_examples)
    gone = (strayed & (area[:, 0] > 0))[:, None, None]
    return gone | parts.repeat_interleave(SCALE, 1).repeat_interleave(SCALE, 2)
