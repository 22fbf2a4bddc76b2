"""Which tokens of an example's background a video is compared with: those that others cannot speak for.

Most of a background is many times the same. Matching asks whether a token is more like an entity than like the
background, so of tokens that are far more like each other than like any entity a few are enough to tell.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from segic.propagation import PAIRS_AT_ONCE_CPU, Context

MORE_ALIKE = 0.4  # cosine: by so much a token is more like the one that speaks for it than like any entity's


def thinned(example: Context, topk: int) -> Context:
    """`example` with representatives of its background, for matching against many frames on a CPU. A GPU compares
    with all sooner than it finds out. topk: how many matches margins are means of.
    """
    assert example.matching is not None
    assert example.group is not None
    if example.matching.device.type != "cpu":
        return example
    return replace(example, representatives=representatives(example.matching, example.group, topk))


def representatives(tokens: Tensor, group: Tensor, topk: int) -> Tensor:
    """tokens: (T, C) of length 1. group: (T,) int64, 0 for background, else the entity that owns the token. Returns
    (E,) int64, rising: all positions of entities' tokens, and those of the background's that speak for the others.

    A token of the background speaks for another where their cosine exceeds the other's largest to any entity's token by
    MORE_ALIKE. Those that speak for most come first, until each is one of them or has `topk` that speak for it, as many
    as are looked for in a match.
    """
    background, own = (group == 0).nonzero()[:, 0], group.nonzero()[:, 0]
    if not len(own) or not len(background):
        return torch.arange(len(group), device=group.device)
    theirs = tokens[background]
    rows = max(1, PAIRS_AT_ONCE_CPU // len(group))
    limit = torch.cat([(part @ tokens[own].T).amax(1) for part in theirs.split(rows)]).float() + MORE_ALIKE
    speaks = torch.cat([(part @ theirs.T) > limit for part in theirs.split(rows)])
    others, spoken_for = speaks.numpy(), np.zeros(len(theirs), np.int64)
    kept = []
    for one in np.argsort(-np.count_nonzero(others, axis=1), kind="stable"):  # torch's sum would make integers of all
        if spoken_for[one] < topk:
            kept.append(one)
            spoken_for += others[one]
    return torch.cat([own, background[kept]]).sort().values
