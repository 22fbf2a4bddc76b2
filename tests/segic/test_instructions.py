"""In-context instructions: pooled masks (eq. 3) and points (eq. 2)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segic.instructions import best_points, mask_pool


def test_mask_pool_is_the_mean_under_the_mask():
    features = torch.randn(2, 5, 3, 4)
    masks = (torch.rand(2, 3, 3, 4) > 0.4).float()
    masks[:, :, 0, 0] = 1
    pooled = mask_pool(features, masks)
    assert pooled.shape == (2, 3, 5)
    for b in range(2):
        for n in range(3):
            torch.testing.assert_close(pooled[b, n], features[b][:, masks[b, n] > 0].mean(1))


def test_mask_pool_weighs_fractions():
    features = torch.tensor([[[[1.0, 5.0]]]])
    assert mask_pool(features, torch.tensor([[[[0.75, 0.25]]]])).item() == pytest.approx(2.0)


@pytest.mark.parametrize("share", [1.0, 1e-2, 1e-5])
def test_mask_pool_of_a_speck_is_its_token(share):
    features = torch.randn(1, 5, 3, 4)
    weights = torch.zeros(1, 1, 3, 4)
    weights[..., 1, 2] = share
    torch.testing.assert_close(mask_pool(features, weights)[0, 0], features[0, :, 1, 2], atol=1e-5, rtol=1e-4)


def test_mask_pool_of_nothing_is_zero():
    assert not mask_pool(torch.randn(1, 5, 3, 4), torch.zeros(1, 2, 3, 4)).any()


def test_mask_pool_of_half_precision_is_float32():
    features = torch.full((1, 1, 64, 64), 1.0, dtype=torch.bfloat16)
    pooled = mask_pool(features, torch.ones(1, 1, 64, 64))
    assert pooled.dtype == torch.float32
    assert pooled.item() == 1.0  # a bfloat16 sum of 4096 ones would stop at 256


@given(st.integers(1, 9), st.integers(1, 9), st.data())
@settings(max_examples=60, deadline=None)
def test_best_point_is_at_the_centre_of_the_largest_value(height, width, data):
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    maps = torch.zeros(2, 3, height, width)
    maps[1, 2, y, x] = 1
    points = best_points(maps)
    assert points.shape == (2, 3, 2)
    torch.testing.assert_close(points[1, 2], torch.tensor([(x + 0.5) / width, (y + 0.5) / height]))
    raw = points - torch.tensor([0.5 / width, 0.5 / height])
    torch.testing.assert_close(raw[1, 2], torch.tensor([x / width, y / height]))


def test_best_point_of_equals_lies_on_one_of_them():
    maps = torch.zeros(1, 4, 4)
    maps[0, 1, 3] = maps[0, 2, 0] = 2
    assert (best_points(maps) - 0.125)[0].tolist() in ([0.75, 0.25], [0.0, 0.5])
