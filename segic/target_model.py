"""What separates the entities of one example from each other and from its background: a linear model of its tokens.

Matching asks which of the example's tokens a token is most like. Entities that look alike differ in few directions of
the features, which the cosine over all of them hardly notices; regression from features to owners finds them. It is a
target model in the sense of Robinson et al. (CVPR 2020, arXiv:2003.00908), here in closed form.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segic.parts import by_parts

GOAL = 0.15  # asked of an owner's tokens, minus this of all others: its margins are then as large as those of matching
FEW = 20  # tokens: owners with many more count the same, whatever their size; with fewer they count less
ROWS = 1024  # tokens that are floats at once: those of two frames would take most of the memory of all this


@dataclass(frozen=True, eq=False)
class TargetModel:
    """weight: (C, 1 + n) float32, for features of length 1. offset: (1 + n,). The first column is the background's."""

    weight: Tensor
    offset: Tensor

    def margins(self, tokens: Tensor) -> Tensor:
        """tokens: (T, C) of length 1. Returns (n, T): each entity's score minus the best of all others', background
        and entities.
        """
        scores = by_parts(lambda part: part.float() @ self.weight, tokens[None])[0].T + self.offset[:, None]
        best = scores.topk(2, dim=0)
        entity = torch.arange(1, len(scores), device=scores.device)[:, None]
        others = torch.where(best.indices[0] == entity, best.values[1], best.values[0])
        return scores[1:] - others


def fit_target_model(tokens: Tensor, group: Tensor, entities: int, ridge: float) -> TargetModel:
    """That of an example's tokens (T, C), of length 1, each of which has one owner. group: (T,) int64, 0 for
    background, 1..entities. ridge: see `fit_counted`.
    """
    return fit_counted(tokens, F.one_hot(group, entities + 1).float(), ridge)


def fit_counted(tokens: Tensor, counted: Tensor, ridge: float) -> TargetModel:
    """The weight W and offset b of least sum_i s_i |W' x_i + b - y_i|^2 + ridge v |W|^2 over an example's tokens.

    tokens: (T, C) of length 1, in any precision. counted: (T, 1 + n) float32, the background's first: how many of each
    owner's x_i a token stands for; none of those that say nothing. y_i: GOAL in its owner's column, else -GOAL. s_i:
    weights of sum 1 that make rare owners count as much as the rest. v: the weighted variance of a feature, so
    that `ridge` has no unit.
    """
    share = counted / (counted.sum(0) + FEW)
    share = share / share.sum()
    of_owner = share.sum(0)
    parts = list(zip(tokens.split(ROWS), share.split(ROWS), strict=True))
    sums = torch.stack([own.T @ x.float() for x, own in parts]).sum(0)
    middle = sums.sum(0)
    # In the tokens' own precision, which the ridge leaves nothing of to be seen, a CPU takes a fifth of the time.
    precision = tokens.dtype if tokens.dtype == torch.bfloat16 else torch.float32
    known = torch.cat([((x.float() - middle) * own.sum(1, keepdim=True).sqrt()).to(precision) for x, own in parts])
    covariance = (known.T @ known).float()
    diagonal = covariance.diagonal()
    # The smallest addend keeps tokens that are all alike, of a plain picture, from making the matrix singular.
    diagonal += ridge * diagonal.mean() + 1e-8
    factor, failed = torch.linalg.cholesky_ex(covariance)
    # It fails on features that are not finite only; so then are the margins, and the loss, which is where that is told.
    factor = factor.masked_fill(failed > 0, torch.nan)
    goal = GOAL * (2 * torch.eye(len(of_owner), device=tokens.device, dtype=torch.float32) - 1)
    mean_goal = of_owner @ goal
    # All that is of one owner has one goal: its tokens' sum tells what they have in common with it.
    common = (sums - of_owner[:, None] * middle).T @ (goal - mean_goal)
    weight = torch.cholesky_solve(common, factor)
    return TargetModel(weight, mean_goal - middle @ weight)
