"""The metric in closed form: what varies inside things counts less, what tells them apart counts."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from segic.correspondence import unit
from segic.metric import Metric
from segic.training import whitening
from segic.training.episodes import Batch
from segic.training.whitening import Whitening, set_metric

WIDTH = 24
SIDE = 8


def scene(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (C, h, w) of two things on a ground and their masks. What a token is, is said by the first six features;
    in the next six it varies three times as much, whatever it is.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(SIDE, SIDE, dtype=torch.long)
    labels[:, 3:5], labels[:, 5:] = 1, 2
    kinds = torch.randn(3, 6, generator=generator)
    features = 0.2 * torch.randn(SIDE, SIDE, WIDTH, generator=generator)
    features[..., :6] += kinds[labels]
    features[..., 6:12] += 3 * torch.randn(SIDE, SIDE, 6, generator=generator)
    masks = F.one_hot(labels, 3)[..., 1:].permute(2, 0, 1).float()
    return features.permute(2, 0, 1), masks


def batches(count: int) -> list[Batch]:
    """Each of one scene of two frames, masks at four times the tokens."""
    out = []
    for seed in range(count):
        pairs = [scene(2 * seed), scene(2 * seed + 1)]
        masks = torch.stack([F.interpolate(m[None], scale_factor=4)[0] for _, m in pairs])
        pixels = torch.zeros(1, 2, 3, 8 * SIDE, 8 * SIDE)
        out.append(Batch(torch.stack([f for f, _ in pairs])[None], pixels, masks[None]))
    return out


def neighbours_of_its_own(tokens: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of the tokens whose best match among the others has their owner."""
    similarity = tokens @ tokens.T
    similarity.fill_diagonal_(-2)
    return float((labels[similarity.argmax(1)] == labels).float().mean())


def test_tells_apart_what_the_features_do_not() -> None:
    metric = Metric(WIDTH, 8)
    features, masks = scene(99)
    labels = (masks * torch.tensor([1, 2])[:, None, None]).sum(0).flatten()
    plain = neighbours_of_its_own(unit(features), labels)
    set_metric(metric, batches(30))
    found = neighbours_of_its_own(metric(features[None])[0], labels)
    assert found > 0.95
    assert found > plain + 0.2


def test_inside_things_all_directions_vary_alike(monkeypatch) -> None:
    monkeypatch.setattr(whitening, "FLOOR", 1e-4)
    sums = Whitening(WIDTH)
    for seed in range(60):
        sums.add(*scene(seed))
    middle, root = sums.metric(WIDTH)
    assert middle.shape == (WIDTH,)
    assert root.shape == (WIDTH, WIDTH)
    inside = sums._things / sums._things.trace() + sums._background / sums._background.trace()
    white = root.T @ inside @ root
    white = white / white.diagonal().mean()
    assert (white - torch.eye(WIDTH)).abs().max() < 0.02
    total = (root.T @ sums._total @ root).diagonal()
    assert (total[:-1] >= total[1:] * (1 - 1e-3)).all()  # the directions come by how much varies in them


def test_frames_without_things_say_something_of_backgrounds() -> None:
    sums = Whitening(WIDTH)
    features, masks = scene(0)
    sums.add(features, torch.zeros_like(masks[:1]))
    _, root = sums.metric(5)
    assert root.isfinite().all()
