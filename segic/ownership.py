"""Which entity of an example owns each of its pixels and tokens."""

import torch
from torch import Tensor


def claims(logits: Tensor) -> Tensor:
    """(..., N, H, W) logits -> the same shape, bool: which entity's each pixel is, that of its largest above zero."""
    return (logits > 0) & (logits == logits.amax(-3, keepdim=True))


def partition(weights: Tensor, least: float = 0.5) -> Tensor:
    """(N, h, w) coverage by the entities' masks -> (hw,) int64: each token's owner, 0 for background, 1..N.

    least: the share of a token that an entity must cover to own it where no other entity does; the background needs the
    rest. Below a half, thin parts own tokens too, which they hardly ever cover by majority. An entity too small to own
    any token gets, of those that it covers, the one that it covers most and that is not another one's only token.
    """
    flat = weights.flatten(1)
    background = (1 - flat.sum(0, keepdim=True)) * (least / (1 - least))
    owner = torch.cat([background, flat]).argmax(0)
    ones, start = torch.ones_like(owner), owner.new_zeros(len(flat) + 1)
    start[:1] = 2  # that one token is all that the background has matters to nobody
    # Hardly ever is anyone without a token, but to ask a GPU for that would be to wait for it.
    if owner.device.type == "cpu" and bool((start.scatter_add(0, owner, ones) > 0).all()):
        return owner
    position = torch.arange(len(owner), device=flat.device)
    for number, own in enumerate(flat, 1):
        counts = start.scatter_add(0, owner, ones)
        most, place = own.masked_fill(counts[owner] == 1, 0).max(0)
        lost = (most > 0) & (counts[number] == 0)
        owner = owner.masked_fill(lost & (position == place), number)
    return owner
