"""One frame of a video in its steady state: masks from what was there before, and what the next frames need of it.

A function of tensors that nowhere waits for a GPU, so that it can be recorded (`segic.recorded`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from segic.branches import side_by_side
from segic.decoder.decoder import ABSENT
from segic.model import SEGIC, Encoded, owners
from segic.propagation import Context, by_entity
from segic.shots import is_cut
from segic_vos.absence import after, before, claimed, doubtful, drifted_off, unlike


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
    last, config = recent[-1], model.config
    cut = None
    if config.cut and image.matching is not None and last.matching is not None:
        cut = is_cut(image.matching, last.matching, image.grid, config.cut)
    prediction = model.predict(image, given, recent, entities=ids, meta=meta, video=True, cut=cut)
    mine = claimed(prediction)

    def not_there() -> Tensor:
        hidden = doubtful(prediction, last, given, ids, config.reappear, cut)
        if cut is not None and mine is not None:
            hidden = hidden | unlike(mine.likeness, before(last, ids), cut)
        return hidden[:, None, None]

    def gone() -> Tensor:
        if mine is None or not config.drift:
            return torch.zeros_like(prediction.logits, dtype=torch.bool)
        return drifted_off(mine, config.drift)

    hidden, drifted = side_by_side(model.device, not_there, gone)
    logits = by_entity(prediction.logits.masked_fill(hidden | drifted, ABSENT), ids, followed)

    def shown() -> tuple[Tensor, Tensor | None]:
        full = model.upsample(logits, image.canvas)
        return owners(full, followed), full.sigmoid().to(torch.float16) if soft else None

    def remembered() -> Context:
        frame = model.remember(image, logits, followed)
        if cut is None or mine is None:
            return frame
        own = by_entity(mine.likeness, ids, followed)
        return replace(frame, standing=after(own, frame.covers, before(last, followed), cut))

    frame, (labels, probabilities) = side_by_side(model.device, remembered, shown)
    return Followed(labels, by_entity(prediction.scores, ids, followed).clamp(0, 1), probabilities, frame)
