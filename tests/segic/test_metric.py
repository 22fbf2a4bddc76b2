"""The metric of dense matching, against its definition."""

from __future__ import annotations

import torch

from segic.correspondence import unit
from segic.metric import Metric


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(features: int, width: int) -> Metric:
    metric = Metric(features, width)
    metric.middle.copy_(0.1 * randn(features, seed=1))
    metric.root.copy_(randn(features, width, seed=2))
    return metric


def test_products_are_cosines_in_the_metric() -> None:
    metric, features = filled(12, 5), randn(2, 12, 3, 4)
    tokens = metric(features)
    assert tokens.shape == (2, 12, 5)
    torch.testing.assert_close(tokens.norm(dim=-1), torch.ones(2, 12))
    matrix = (metric.root @ metric.root.T).double()
    centred = (unit(features) - metric.middle).double()
    for one, other in ((0, 1), (3, 7), (11, 4)):
        x, y = centred[0, one], centred[1, other]
        cosine = (x @ matrix @ y) / ((x @ matrix @ x) * (y @ matrix @ y)).sqrt()
        torch.testing.assert_close((tokens[0, one] @ tokens[1, other]).double(), cosine, atol=1e-5, rtol=1e-4)


def test_length_of_the_features_does_not_matter() -> None:
    metric, features = filled(12, 5), randn(1, 12, 3, 4)
    torch.testing.assert_close(metric(7 * features), metric(features))


def test_without_numbers_cosines_are_about_the_features_own() -> None:
    torch.manual_seed(0)
    features = randn(1, 64, 4, 4)
    tokens, own = Metric(64, 1000)(features)[0], unit(features)[0]
    assert (tokens @ tokens.T - own @ own.T).abs().max() < 0.15


def test_half_precision_compares_alike() -> None:
    metric, features = filled(64, 32), randn(1, 64, 5, 5)
    exact = metric(features)[0]
    low = metric.to(torch.bfloat16)(features)[0]
    assert (exact @ exact.T - low @ low.T).abs().max() < 0.01


def test_is_saved_and_not_trained() -> None:
    metric = filled(6, 3)
    assert not list(metric.parameters())
    assert set(metric.state_dict()) == {"middle", "root"}
