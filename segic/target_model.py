"""What separates the entities of one example from each other and from its background: a linear model of its tokens.

Matching asks which of the example's tokens a token is most like. Entities that look alike differ in few directions of
the features, which the cosine over all of them hardly notices; regression from features to owners finds them. It is a
target model in the sense of Robinson et al. (CVPR 2020, arXiv:2003.00908), here in closed form.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

GOAL = 0.15  # asked of an owner's tokens, minus this of all others: its margins are then as large as those of matching
FEW = 20  # tokens: owners with many more count the same, whatever their size; with fewer they count less


@dataclass(frozen=True, eq=False)
class TargetModel:
    """weight: (C, 1 + n) float32, for features of length 1. offset: (1 + n,). The first column is the background's."""

    weight: Tensor
    offset: Tensor

    def margins(self, tokens: Tensor) -> Tensor:
        """tokens: (T, C) of length 1. Returns (n, T): each entity's score minus the best of all others', background
        and entities.
        """
        scores = (tokens.float() @ self.weight + self.offset).T
        best = scores.topk(2, dim=0)
        entity = torch.arange(1, len(scores), device=scores.device)[:, None]
        others = torch.where(best.indices[0] == entity, best.values[1], best.values[0])
        return scores[1:] - others


def fit_target_model(
    tokens: Tensor, group: Tensor, entities: int, ridge: float, kept: Tensor | None = None
) -> TargetModel:
    """The weight W and offset b of least sum_i s_i |W' x_i + b - y_i|^2 + ridge v |W|^2 over an example's tokens.

    tokens: (T, C) x_i, of length 1. group: (T,) int64, 0 for background, 1..entities for the entity that owns the
    token: its column of y_i is GOAL, the others are -GOAL. s_i: weights of sum 1 that make rare owners count as much as
    the rest. v: the weighted variance of a feature, so that `ridge` has no unit. kept: (T,) bool, which of the tokens
    count; None for all.
    """
    x = tokens.float()
    own = F.one_hot(group, entities + 1).float()
    counted = own if kept is None else own * kept[:, None]
    share = (counted / (counted.sum(0) + FEW)).sum(1, keepdim=True)
    share = share / share.sum()
    goal = GOAL * (2 * own - 1)
    middle, mean_goal = (share * x).sum(0), (share * goal).sum(0)
    root = share.sqrt()
    centred = root * (x - middle)
    # In the tokens' own precision, which the ridge leaves nothing of to be seen, a CPU takes a fifth of the time.
    known = centred.to(tokens.dtype) if tokens.dtype == torch.bfloat16 else centred
    covariance = (known.T @ known).float()
    diagonal = covariance.diagonal()
    # The smallest addend keeps tokens that are all alike, of a plain picture, from making the matrix singular.
    diagonal += ridge * diagonal.mean() + 1e-8
    factor, failed = torch.linalg.cholesky_ex(covariance)
    # It fails on features that are not finite only; so then are the margins, and the loss, which is where that is told.
    factor = factor.masked_fill(failed > 0, torch.nan)
    weight = torch.cholesky_solve(centred.T @ (root * (goal - mean_goal)), factor)
    return TargetModel(weight, mean_goal - middle @ weight)
