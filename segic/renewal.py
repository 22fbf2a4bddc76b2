"""The linear model of an example, fitted anew as its video goes on: beyond the paper, an option of a preset.

What an example does not show, such as a background that comes into view, its model can only guess at. Fitted to a later
frame as well, with the masks predicted on it, it knows; but masks that are wrong would be learnt for good. So a later
frame counts only where its masks can hardly be wrong, and the example itself always counts as much.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from segic.propagation import Context
from segic.target_model import fit, moments

PURE = 0.98  # the share of a token that one owner must cover; masks are least certain at their rims
CERTAIN = 0.5  # the score that every entity of a later frame must have
AGREED = 0.1  # an entity's token must have this margin by the example alone, of about 0.3 that are asked (2 GOAL)


def certain(scores: Mapping[int, float], present: Iterable[int]) -> bool:
    """Whether a frame's predicted masks may be learnt: all entities that are to be seen in it, and there are some, have
    a score that is high enough.
    """
    seen = [scores[key] for key in present]
    return bool(seen) and min(seen) >= CERTAIN


def renewed(example: Context, later: Context, ridge: float) -> Context:
    """`example` with its linear model fitted to its own tokens and to those of a later frame of its video together.

    later: a frame with predicted masks. Entities that the example does not know are background, as they are in it.
    """
    assert example.moments is not None
    assert later.matching is not None
    alone = fit([example.moments], ridge)
    owner = _owners(example, later)
    margins = alone.margins(later.matching)
    believed = torch.cat([torch.full_like(margins[:1], torch.inf), margins]).gather(0, owner[None])[0] > AGREED
    kept = believed & _pure(later)
    seen = moments(later.matching[kept], owner[kept], len(example.entities))
    return replace(example, target_model=fit([example.moments, seen], ridge))


def _owners(example: Context, later: Context) -> Tensor:
    """(hw,) int64: who owns each of the later frame's tokens, 0 for background, else 1 + position in the example."""
    assert later.group is not None
    position = {key: i + 1 for i, key in enumerate(example.entities)}
    table = torch.tensor([0, *(position.get(key, 0) for key in later.entities)], device=later.group.device)
    return table[later.group]


def _pure(later: Context) -> Tensor:
    """(hw,) bool: tokens that one entity, or the background, has as good as alone."""
    assert later.weights is not None
    most = later.weights.amax(0)
    return (most >= PURE) | (most <= 1 - PURE)
