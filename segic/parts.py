"""Tokens a few at a time, where each is worked on by itself, in memory that frames with more or fewer can use again."""

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

# A CPU prepares its products anew for each number of rows, and keeps them: foveated frames come in steps of which this
# is a multiple, or has much in common with. What so many tokens become on the way stays in its caches.
AT_ONCE = 768


def split(tokens: Tensor, dim: int = 1) -> tuple[Tensor, ...]:
    """`tokens` along `dim`: AT_ONCE in each part on a CPU, but for the last, which is half as large to half as large
    again, since products of a few rows cost as much as those of many. Elsewhere, and where there may be gradients, all.
    """
    if tokens.device.type != "cpu" or torch.is_grad_enabled():
        return (tokens,)
    count = tokens.shape[dim]
    whole = max(0, round(count / AT_ONCE) - 1)
    return tokens.split([AT_ONCE] * whole + [count - AT_ONCE * whole], dim)


def joined(parts: Sequence[Tensor], most: int, dim: int = 1) -> Tensor:
    """The parts one after the other, in memory for `most`; a single part as it is."""
    if len(parts) == 1:
        return parts[0]
    shape = list(parts[0].shape)
    shape[dim] = sum(part.shape[dim] for part in parts)
    return torch.cat(list(parts), dim, out=with_room(parts[0], shape, most, dim))


def by_parts(function: Callable[[Tensor], Tensor], tokens: Tensor, chosen: Tensor | None = None) -> Tensor:
    """function(tokens) of (B, T, C) tokens, which it treats one by one, computed part by part; chosen: only of those at
    these positions, (t,) int64.
    """
    parts = split(tokens) if chosen is None else (tokens[:, some] for some in split(chosen, dim=0))
    return joined([function(part) for part in parts], tokens.shape[1])


def with_room(like: Tensor, shape: Sequence[int], most: int, dim: int) -> Tensor:
    """An uninitialised tensor of `shape`, of the kind of `like`, in as much memory as `most` along `dim` take.

    For what there is a frame of whose tokens there are at most so many: blocks of ever other sizes would leave holes
    between each other that nothing fits into, and a process that follows a video would grow with it.
    """
    size = prod(shape)
    return like.new_empty(max(size, size // max(1, shape[dim]) * most))[:size].view(shape)
