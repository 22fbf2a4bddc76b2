"""The mask loss (paper section 3.4): binary cross-entropy and dice on points chosen by importance sampling."""

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_points(
    logits: Tensor, count: int, oversampling: float, uncertain: float, generator: torch.Generator
) -> Tensor:
    """Positions where the loss is taken, as PointRend chooses them.

    logits: (M, H, W). Of `oversampling * count` uniform positions a mask, the `uncertain` share of `count` with logits
    nearest to zero is kept; the rest is uniform. Returns (M, count, 2), x and y in 0..1.
    """
    m = logits.shape[0]
    many = int(count * oversampling)
    candidates = torch.rand(m, many, 2, generator=generator, device=logits.device)
    chosen = int(count * uncertain)
    doubt = -point_values(logits.detach(), candidates).abs()
    best = doubt.topk(chosen, dim=1).indices
    kept = candidates.gather(1, best[..., None].expand(-1, -1, 2))
    return torch.cat([kept, torch.rand(m, count - chosen, 2, generator=generator, device=logits.device)], dim=1)


def point_values(maps: Tensor, xy: Tensor) -> Tensor:
    """Bilinear values of (M, H, W) maps at (M, P, 2) positions in 0..1 -> (M, P)."""
    return F.grid_sample(maps[:, None], 2 * xy[:, :, None] - 1, align_corners=False)[:, 0, :, 0]


def mask_loss(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and dice, each (M,), over the last dimension of (M, P) logits and targets in 0..1.

    Dice as in Mask2Former, one added to numerator and denominator, so that an empty target has a finite loss.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(-1)
    probability = logits.sigmoid()
    overlap = 2 * (probability * target).sum(-1)
    dice = 1 - (overlap + 1) / (probability.sum(-1) + target.sum(-1) + 1)
    return entropy, dice


def soft_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of (M, P) logits > 0 with targets > 0.5, (M,); 1 where both are empty."""
    a, b = logits > 0, target > 0.5
    union = (a | b).sum(-1)
    return torch.where(union > 0, (a & b).sum(-1) / union.clamp(min=1), 1.0)
