"""The mistakes that a video's earlier frames may hold: a part has the wrong owner, or an entity has been lost."""

import torch
from torch import Tensor

LEAST, MOST = 0.3, 1.0  # of the disc's radius, in units of the radius of a disc of the entity's area


def disturb(masks: Tensor, generator: torch.Generator) -> Tensor:
    """(B, N, H, W) masks in 0..1 -> the same with one disc a picture given to a random owner, background included.

    The disc lies around a random point of a random entity and is about as large as it. generator: on the masks' device.
    """
    b, n, h, w = masks.shape

    def draw() -> Tensor:
        return torch.rand(b, device=masks.device, generator=generator)

    rows = torch.arange(b, device=masks.device)
    chosen = masks[rows, (draw() * n).long()].flatten(1)
    # An entity that is not there has no point: then the disc lies anywhere.
    weights = torch.where(chosen.sum(1, keepdim=True) > 0, chosen, torch.ones_like(chosen))
    point = torch.multinomial(weights, 1, generator=generator)[:, 0]
    y = torch.arange(h, device=masks.device)[None, :, None] - (point // w)[:, None, None]
    x = torch.arange(w, device=masks.device)[None, None, :] - (point % w)[:, None, None]
    radius = (chosen.sum(1) / torch.pi).sqrt().clamp(min=2) * (LEAST + (MOST - LEAST) * draw())
    disc = (y**2 + x**2 <= radius[:, None, None] ** 2).to(masks.dtype)[:, None]
    owner = (draw() * (n + 1)).long()[:, None, None, None] == torch.arange(1, n + 1, device=masks.device)[:, None, None]
    return masks * (1 - disc) + owner * disc


def lose(masks: Tensor, generator: torch.Generator) -> Tensor:
    """(B, N, H, W) masks -> the same without one random entity a picture. generator: on the masks' device."""
    b, n = masks.shape[:2]
    chosen = (torch.rand(b, device=masks.device, generator=generator) * n).long()
    kept = chosen[:, None] != torch.arange(n, device=masks.device)
    return masks * kept[..., None, None]
