"""The metric of dense matching (`segic.metric`), in closed form from training samples."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from segic.correspondence import unit
from segic.metric import Metric
from segic.ownership import partition
from segic.target_model import FEW
from segic.training.episodes import Batch

FLOOR = 0.3  # of the covariance inside things, in units of a feature's mean variance: what is rare is not trusted
SAMPLES = 400  # that are looked at
LEAST_TOKENS = 4  # of a thing whose covariance counts


class Whitening:
    """Sums over samples; `metric` gives what they say. width: C of the features."""

    def __init__(self, width: int):
        self._things = torch.zeros(width, width)
        self._background = torch.zeros(width, width)
        self._total = torch.zeros(width, width)
        self._middle = torch.zeros(width)
        self._pictures = 0

    def add(self, features: Tensor, masks: Tensor) -> None:
        """One picture: features (C, h, w) and the coverage (N, h, w) of its entities."""
        tokens, group = unit(features.float().cpu()), partition(masks.float().cpu())
        for number in range(masks.shape[0] + 1):
            own = tokens[group == number]
            if len(own) >= LEAST_TOKENS:
                inside = own - own.mean(0)
                place = self._things if number else self._background
                place += inside.T @ inside / (len(own) + FEW)
        centred = tokens - tokens.mean(0)
        self._total += centred.T @ centred / len(tokens)
        self._middle += tokens.mean(0)
        self._pictures += 1

    def metric(self, width: int) -> tuple[Tensor, Tensor]:
        """(middle (C,), root (C, width)) of `Metric`: the inverse root of the covariance inside things and backgrounds,
        each counting half, then the `width` directions in which features vary most.
        """
        inside = _scaled(self._things) + _scaled(self._background)
        inside = _scaled(inside) + FLOOR * torch.eye(len(inside))
        factor = torch.linalg.cholesky(inside)
        root = torch.linalg.solve_triangular(factor, torch.eye(len(factor)), upper=False).T
        _, directions = torch.linalg.eigh(root.T @ _scaled(self._total) @ root)
        root = root @ directions.flip(1)[:, :width]
        return self._middle / max(1, self._pictures), root / root.norm(dim=0).mean()


def set_metric(metric: Metric, samples: Iterable[Batch]) -> None:
    """Gives a metric its numbers by all frames of the samples."""
    features, width = metric.root.shape
    found = Whitening(features)
    for batch in samples:
        for scene, masks in zip(batch.features, batch.masks, strict=True):
            weights = F.interpolate(masks.float(), scene.shape[-2:], mode="area")
            for frame in range(len(scene)):
                found.add(scene[frame], weights[frame])
    middle, root = found.metric(width)
    metric.middle.copy_(middle)
    metric.root.copy_(root)


def _scaled(covariance: Tensor) -> Tensor:
    """With a mean variance of 1; nothing stays nothing."""
    return covariance / covariance.diagonal().mean().clamp(min=1e-12)
