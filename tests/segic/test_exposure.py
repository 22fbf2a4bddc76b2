"""Dark pictures are brightened, others are left as they are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segic.exposure import MOST, brightened

LEAST = 128.0


def picture(seed: int = 0, size: tuple[int, int] = (64, 96), most: float = 250.0) -> torch.Tensor:
    """(1, 3, H, W) smooth, so that the spots that are looked at are as bright as what is around them."""
    noise = torch.rand(1, 3, 4, 6, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(noise, size, mode="bilinear", align_corners=True)
    return most * smooth / smooth.amax()


def test_a_bright_picture_is_left_as_it_is():
    bright = picture()
    assert brightened(bright, LEAST) is bright


@pytest.mark.parametrize("light", [0.15, 0.3, 0.45])
def test_the_same_picture_at_less_light_looks_the_same(light):
    full = picture()
    known = brightened(full * 0.4, LEAST)
    torch.testing.assert_close(brightened(full * light, LEAST), known)
    assert 128 < known.amax() <= 255
    assert known.amax() < 210  # about `LEAST`, and not all the light that there is


def test_what_is_hardly_there_is_not_blown_up():
    full = picture()
    torch.testing.assert_close(brightened(full * 0.01, LEAST), full * 0.01 * MOST)
    assert not brightened(torch.zeros(1, 3, 28, 28), LEAST).any()


def test_a_lamp_in_the_night_makes_no_day():
    """But what is a fiftieth of the picture or more does."""
    night = picture(size=(224, 448)) * 0.2
    lamp, window = night.clone(), night.clone()
    lamp[..., 16:48, 16:48] = 255
    window[..., 16:64, 16:80] = 255
    assert brightened(lamp, LEAST).mean() > 2 * night.mean()
    assert brightened(lamp, LEAST).amax() == 255
    assert brightened(window, LEAST) is window


def test_each_picture_of_a_batch_by_itself():
    one, other = picture(1), picture(2) * 0.2
    both = brightened(torch.cat([one, other]), LEAST)
    torch.testing.assert_close(both, torch.cat([one, brightened(other, LEAST)]))


def test_nothing_is_asked_for():
    dark = picture() * 0.1
    assert brightened(dark, 0.0) is dark


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 255), st.sampled_from([0.0, 1.0, 128.0, 255.0]))
def test_pictures_of_any_size_and_light_stay_pictures(height, width, light, least):
    out = brightened(torch.full((1, 3, height, width), light), least)
    assert out.shape == (1, 3, height, width)
    assert out.isfinite().all()
    assert (out >= light - 1e-3).all()
    assert (out <= 255).all()
