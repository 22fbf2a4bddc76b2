"""The mask loss and the sampling of its points."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segic.training.losses import mask_loss, point_values, sample_points, soft_iou


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=30)
@given(
    count=st.integers(1, 400), oversampling=st.floats(1, 4), uncertain=st.floats(0, 1), masks=st.integers(1, 3),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_points_are_as_many_as_asked_and_inside(
    count: int, oversampling: float, uncertain: float, masks: int, seed: int
) -> None:
    points = sample_points(torch.randn(masks, 9, 7), count, oversampling, uncertain, generator(seed))
    assert points.shape == (masks, count, 2)
    assert (points >= 0).all()
    assert (points <= 1).all()


def test_three_quarters_of_the_points_lie_where_the_model_doubts() -> None:
    """Doubt is in the left tenth of the map: three times oversampled, 0.3 of `count` candidates fall there, and all of
    them are among the 0.75 that are kept; with a uniform choice it would be a tenth."""
    logits = torch.full((1, 100, 100), 9.0)
    logits[..., :10] = 0.0
    points = sample_points(logits, 4000, 3.0, 0.75, generator())
    assert (points[0, :, 0] < 0.1).float().mean() == pytest.approx(0.3 + 0.25 * 0.1, abs=0.03)
    uniform = sample_points(logits, 4000, 3.0, 0.0, generator())
    assert (uniform[0, :, 0] < 0.1).float().mean() == pytest.approx(0.1, abs=0.02)


def test_a_wide_band_of_doubt_gets_exactly_its_share() -> None:
    logits = torch.full((1, 100, 100), 9.0)
    logits[..., :50] = 0.0
    points = sample_points(logits, 4000, 3.0, 0.75, generator())
    # All 75 % that are chosen by doubt, and half of the uniform rest. The map is blurred at the border by a pixel.
    assert (points[0, :, 0] < 0.51).float().mean() == pytest.approx(0.75 + 0.25 * 0.51, abs=0.03)


def test_points_are_repeated_by_the_same_seed() -> None:
    logits = torch.randn(2, 20, 20)
    a, b, c = (sample_points(logits, 50, 3.0, 0.75, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_point_values_are_bilinear() -> None:
    ramp = torch.arange(8.0).expand(1, 8, 8)
    xy = torch.tensor([[[0.5, 0.5], [(2 + 0.5) / 8, 0.3], [(2 + 0.75) / 8, 0.9]]])
    assert torch.allclose(point_values(ramp, xy), torch.tensor([[3.5, 2.0, 2.25]]))


def test_losses_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [20.0, -20.0]])
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    entropy, dice = mask_loss(logits, target)
    assert torch.allclose(entropy, torch.tensor([0.6931, 0.0]), atol=1e-4)
    assert torch.allclose(dice, torch.tensor([1 - 2 / 3, 0.0]), atol=1e-4)


def test_an_empty_target_has_a_finite_loss_with_a_gradient() -> None:
    logits = torch.zeros(1, 10, requires_grad=True)
    entropy, dice = mask_loss(logits, torch.zeros(1, 10))
    (entropy + dice).sum().backward()
    assert logits.grad is not None
    assert (logits.grad > 0).all()


def test_iou_of_empty_and_full() -> None:
    logits = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0]])
    target = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert soft_iou(logits, target).tolist() == [1.0, 0.0, 0.5]


def test_more_points_than_candidates_keep_the_count() -> None:
    assert sample_points(torch.randn(1, 4, 4), 5, 1.0, 1.0, generator()).shape == (1, 5, 2)
