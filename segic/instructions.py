"""In-context instructions (paper section 3.2, eq. 2-4 and 6): what the examples tell the decoder about N entities."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Instructions:
    """c = {a, p, v, m} for N entities on each of B targets; None where an instruction is switched off.

    propagated: a, (B, N, P, H, W): at the canvas's size for the paper's models, one value a token for dense matching.
    points:     p, (B, N, 2) x, y in 0..1 of the canvas.
    visual:     v, (B, N, R, C): one feature for each of R examples. An entity that some example does not show repeats
                one of its own.
    meta:       m, (B, N, 768) text features, for models that take text.
    carried:    (B, N, 4h, 4w) the last frame's masks, moved along, for models that carry masks; beyond the paper.
    """

    propagated: Tensor | None
    points: Tensor | None
    visual: Tensor | None
    meta: Tensor | None
    carried: Tensor | None = None


def mask_pool(features: Tensor, weights: Tensor) -> Tensor:
    """Eq. 3: v = y / |y| . f. features (B, C, h, w), weights (B, N, h, w) 0..1 -> (B, N, C).

    The divisor is at least 1e-6 of a token: any mask that covers something has a mean. An empty mask gives zeros.
    """
    total = weights.sum((-2, -1)).clamp(min=1e-6)
    tokens, covered = features.flatten(2).mT, weights.float().flatten(2)
    if features.device.type == "cpu":  # a GPU would have to be waited for to leave out what nothing covers
        own = covered.amax((0, 1)).nonzero()[:, 0]
        tokens, covered = tokens[:, own], covered[..., own]
    return covered @ tokens.float() / total[..., None]


def best_points(propagated: Tensor) -> Tensor:
    """Eq. 2's Topk with k = 1: the largest value of (..., H, W) -> (..., 2) x, y in 0..1, at the value's centre."""
    height, width = propagated.shape[-2:]
    index = propagated.flatten(-2).argmax(-1)
    x = ((index % width).float() + 0.5) / width
    y = (torch.div(index, width, rounding_mode="floor").float() + 0.5) / height
    return torch.stack([x, y], dim=-1)
