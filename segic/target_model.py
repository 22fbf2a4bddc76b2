"""What separates the entities of one example from each other and from its background: a linear model of its tokens.

Matching asks which of the example's tokens a token is most like. Entities that look alike differ in few directions of
the features, which the cosine over all of them hardly notices; regression from features to owners finds them. It is a
target model in the sense of Robinson et al. (CVPR 2020, arXiv:2003.00908), here in closed form.
"""

from collections.abc import Sequence
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


@dataclass(frozen=True, eq=False)
class Moments:
    """All that a linear model needs to know of one frame's tokens x_i, of goals y_i and weights s_i of sum 1.

    middle: (C,) sum_i s_i x_i. goal: (1 + n,) sum_i s_i y_i. spread: (C, C) and pull: (C, 1 + n), the sums of
    s_i (x_i - middle) (x_i - middle)' and of s_i (x_i - middle) (y_i - goal)'. float32.
    """

    middle: Tensor
    goal: Tensor
    spread: Tensor
    pull: Tensor


def moments(tokens: Tensor, group: Tensor, entities: int) -> Moments:
    """Of a frame's tokens (T, C), of length 1, with the owners `group` (T,) int64: 0 for background, 1..entities.

    The column of y_i that is the owner's is GOAL, the others are -GOAL. s_i make rare owners count as much as the rest.
    """
    x = tokens.float()
    own = F.one_hot(group, entities + 1).float()
    share = (own / (own.sum(0) + FEW)).sum(1, keepdim=True)
    share = share / share.sum()
    goal = GOAL * (2 * own - 1)
    middle, mean_goal = (share * x).sum(0), (share * goal).sum(0)
    root = share.sqrt()
    centred = root * (x - middle)
    return Moments(middle, mean_goal, centred.T @ centred, centred.T @ (root * (goal - mean_goal)))


def fit(frames: Sequence[Moments], ridge: float) -> TargetModel:
    """The weight W and offset b of least sum_i s_i |W' x_i + b - y_i|^2 + ridge v |W|^2 over the tokens of frames that
    count the same. v: the weighted variance of a feature, so that `ridge` has no unit.
    """
    middle = torch.stack([frame.middle for frame in frames]).mean(0)
    mean_goal = torch.stack([frame.goal for frame in frames]).mean(0)
    covariance, pull = torch.zeros_like(frames[0].spread), torch.zeros_like(frames[0].pull)
    for frame in frames:  # spread inside the frames and between them
        apart = frame.middle - middle
        covariance += (frame.spread + apart[:, None] * apart) / len(frames)
        pull += (frame.pull + apart[:, None] * (frame.goal - mean_goal)) / len(frames)
    diagonal = covariance.diagonal()
    # The smallest addend keeps tokens that are all alike, of a plain picture, from making the matrix singular.
    diagonal += ridge * diagonal.mean() + 1e-8
    factor, failed = torch.linalg.cholesky_ex(covariance)
    # It fails on features that are not finite only; so then are the margins, and the loss, which is where that is told.
    factor = factor.masked_fill(failed > 0, torch.nan)
    weight = torch.cholesky_solve(pull, factor)
    return TargetModel(weight, mean_goal - middle @ weight)


def fit_target_model(tokens: Tensor, group: Tensor, entities: int, ridge: float) -> TargetModel:
    """`fit` to one example's tokens; arguments as of `moments`."""
    return fit([moments(tokens, group, entities)], ridge)
