"""One frame of a video in its steady state: masks from what was there before, and what the next frames need of it.

A function of tensors that nowhere waits for a GPU, so that it can be recorded (`segic.recorded`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segic.branches import side_by_side
from segic.canvas import coverage
from segic.carrying import SCALE
from segic.decoder.decoder import ABSENT
from segic.model import SEGIC, Encoded, Prediction, owners
from segic.numbers import numbers
from segic.ownership import claims
from segic.propagation import OF_EXAMPLES, OF_RECENT, Context, by_entity
from segic_vos.fragments import left_behind

LEAST_MARGIN = -2.0  # between means of cosines
# What is larger than so many times its area and so many tokens more must be certain.
GROWTH, GROWN = 2.0, 10.0


@dataclass(frozen=True)
class Followed:
    """What was found of N objects on a frame of H x W pixels, on the model's device.

    labels: (H, W) int32 ids, 0 for none. scores: (N,) in 0..1. soft: (N, H, W) float16 probabilities where they are
    wanted. frame: the frame with these masks, as an example for those to come.
    """

    labels: Tensor
    scores: Tensor
    soft: Tensor | None
    frame: Context


@torch.no_grad()
def follow(
    model: SEGIC,
    image: Encoded,
    given: tuple[Context, ...],
    recent: tuple[Context, ...],
    ids: tuple[int, ...],
    followed: tuple[int, ...],
    meta: Tensor | None = None,
    soft: bool = False,
) -> Followed:
    """`followed`, N of the objects `ids`, on a frame after `recent`; all of `ids` are told apart."""
    prediction = model.predict(image, given, recent, entities=ids, meta=meta, video=True)
    doubted, drifted = side_by_side(
        model.device,
        lambda: _doubted(prediction, recent[-1], given, ids, model.config.reappear)[:, None, None],
        lambda: _drifted(prediction, model.config.drift),
    )
    logits = by_entity(prediction.logits.masked_fill(doubted | drifted, ABSENT), ids, followed)

    def shown() -> tuple[Tensor, Tensor | None]:
        full = model.upsample(logits, image.canvas)
        return resolve(full, followed), full.sigmoid().to(torch.float16) if soft else None

    frame, (labels, probabilities) = side_by_side(model.device, lambda: model.remember(image, logits, followed), shown)
    return Followed(labels, by_entity(prediction.scores, ids, followed).clamp(0, 1), probabilities, frame)


def resolve(logits: Tensor, ids: Sequence[int]) -> Tensor:
    """(N, H, W) logits -> (H, W) int32: the id of each pixel's owner, else 0; see `segic.model.owners`."""
    return numbers((0, *ids), logits.device).to(torch.int32)[owners(logits)]


def _doubted(
    prediction: Prediction, last: Context, given: Sequence[Context], ids: Sequence[int], reappear: float
) -> Tensor:
    """(N,) bool: which objects are much larger than in the last frame, or were not to be seen in it, and are not found
    with enough certainty: where an object is hidden, something else is taken for it. One that comes back much larger
    than the examples show it must be all the more certain.

    What is found in its place would teach the frames to come.
    """
    if not reappear or last.weights is None:
        return torch.zeros_like(prediction.scores, dtype=torch.bool)
    areas = (prediction.logits > 0).flatten(1).sum(1) / SCALE**2
    before = _areas(last, ids)
    shown = torch.stack([_areas(example, ids) for example in given]).amax(0)
    larger = areas > GROWTH * torch.where(before == 0, shown, before) + GROWN
    score = torch.where(larger & (before == 0), (1 + reappear) / 2, reappear)
    return (larger | (before == 0)) & (prediction.scores < score)


def _areas(frame: Context, ids: Sequence[int]) -> Tensor:
    """(N,) how many tokens' areas each object covers, 0 for those that the frame does not know."""
    assert frame.weights is not None
    return by_entity(frame.weights.sum(1), frame.entities, ids)


def _drifted(prediction: Prediction, drift: float) -> Tensor:
    """(N, 4h, 4w) bool: all of the masks that cover what the given examples know as background: both its best matches
    among their tokens and their linear models say so, by more than `drift` on average. Or what is background in the
    last frames by as much, and by the linear models at all: an object is hidden, and its mask has gone elsewhere. Of
    the others those parts, apart from the rest, of which the examples say so at all.

    Masks hand on their errors from frame to frame: what was taken for an object once is matched with itself from then
    on, with a good score. The given examples alone do not change with it; the last frames do not know it yet. Who is
    like another object is not meant here.
    """
    margins = prediction.margins
    if not drift or margins is None:
        return torch.zeros_like(prediction.logits, dtype=torch.bool)
    masks = claims(prediction.logits)
    covered = coverage(masks, (margins.shape[2], margins.shape[3]))
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
