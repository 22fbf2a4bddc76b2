"""Which tokens of an example's background a video is compared with: those that others cannot speak for.

Most of a background is many times the same. Matching asks whether a token is more like an entity than like the
background, so of tokens that are far more like each other than like any entity a few are enough to tell.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from segic.propagation import PAIRS_AT_ONCE_CPU, Context

MORE_ALIKE = 0.4  # cosine: by so much a token is more like the one that speaks for it than like any entity's
TOGETHER = 6144  # tokens of a background that may speak for each other: pairs of all of a large picture take gigabytes


def thinned(examples: Sequence[Context], topk: int) -> list[Context]:
    """The given examples of a video with representatives, for matching against many frames. topk: how many matches
    margins are means of.

    A GPU compares with all that are not left out, sooner than it finds out who could speak for them.
    """
    entities = torch.cat([_of_entities(each) for each in examples])
    return [replace(each, representatives=_representatives(each, entities, topk)) for each in examples]


def _of_entities(example: Context) -> Tensor:
    assert example.matching is not None
    assert example.group is not None
    return example.matching[example.group > 0]


def _representatives(example: Context, entities: Tensor, topk: int) -> Tensor | None:
    assert example.matching is not None
    assert example.group is not None
    left = None if example.left_out is None else (~example.left_out | (example.group > 0)).nonzero()[:, 0]
    if example.matching.device.type != "cpu":
        return left
    if left is None:
        return representatives(example.matching, example.group, topk, entities)
    return left[representatives(example.matching[left], example.group[left], topk, entities)]


def representatives(tokens: Tensor, group: Tensor, topk: int, entities: Tensor) -> Tensor:
    """tokens: (T, C) of length 1. group: (T,) int64, 0 for background, else the entity that owns the token. entities:
    (S, C), all that are entities' tokens, here or in other examples. Returns (E,) int64, rising: all positions of
    entities' tokens, and those of the background's that speak for the others.

    A token of the background speaks for another where their cosine exceeds the other's largest to any entity's token by
    MORE_ALIKE, and at most TOGETHER tokens lie from one to the other. Those that speak for most come first, until each
    is one of them or has `topk` that speak for it, as many as are looked for in a match.
    """
    background, own = (group == 0).nonzero()[:, 0], group.nonzero()[:, 0]
    if not len(entities) or not len(background):
        return torch.arange(len(group), device=group.device)
    count = -(-len(background) // TOGETHER)
    kept = [part[_speakers(tokens[part], topk, entities)] for part in background.tensor_split(count)]
    return torch.cat([own, *kept]).sort().values


def _speakers(tokens: Tensor, topk: int, entities: Tensor) -> Tensor:
    """Positions in tokens of a background, (T, C), of those that speak for the others."""
    rows = max(1, PAIRS_AT_ONCE_CPU // max(len(tokens), len(entities)))
    limit = torch.cat([(part @ entities.T).amax(1) for part in tokens.split(rows)]).float() + MORE_ALIKE
    speaks = torch.empty(len(tokens), len(tokens), dtype=torch.bool, device=tokens.device)
    for part, out in zip(tokens.split(rows), speaks.split(rows), strict=True):
        torch.gt(part @ tokens.T, limit, out=out)
    others, spoken_for = speaks.numpy(), np.zeros(len(tokens), np.int64)
    kept = []
    for one in np.argsort(-np.count_nonzero(others, axis=1), kind="stable"):  # torch's sum would make integers of all
        if spoken_for[one] < topk:
            kept.append(one)
            spoken_for += others[one]
    return torch.tensor(np.array(kept), dtype=torch.int64, device=tokens.device)
