"""Parts of masks: what belongs together, and what is left behind."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segic.canvas import coverage
from segic_vos import fragments

H, W = 6, 9


def left_behind(masks: torch.Tensor, like_any: torch.Tensor) -> torch.Tensor:
    return fragments.left_behind(masks, coverage(masks, (H, W)), like_any)


def likeness(*boxes: tuple[slice, slice], value: float = -0.2) -> torch.Tensor:
    """(1, H, W): 0.1, and `value` in the boxes of tokens."""
    out = torch.full((1, H, W), 0.1)
    for box in boxes:
        out[0][box] = value
    return out


def mask(*boxes: tuple[slice, slice]) -> torch.Tensor:
    """(1, 4H, 4W) bool: boxes of pixels."""
    out = torch.zeros(1, 4 * H, 4 * W, dtype=torch.bool)
    for box in boxes:
        out[0][box] = True
    return out


LARGE, SMALL = (slice(0, 11), slice(0, 15)), (slice(13, 19), slice(20, 31))
SMALL_TOKENS = slice(3, 5), slice(5, 8)


def test_a_part_of_background_is_left_behind() -> None:
    found = left_behind(mask(LARGE, SMALL), likeness(SMALL_TOKENS))
    expected = torch.zeros(1, H, W, dtype=torch.bool)
    expected[0][SMALL_TOKENS] = True
    assert torch.equal(found, expected)


def test_parts_that_look_like_something_followed_stay() -> None:
    assert not left_behind(mask(LARGE, SMALL), likeness()).any()


def test_the_largest_part_stays_whatever_it_looks_like() -> None:
    everywhere = slice(0, H), slice(0, W)
    assert not left_behind(mask(LARGE), likeness(everywhere)).any()
    assert not left_behind(mask(LARGE, SMALL), likeness(everywhere))[0, :3, :4].any()


def test_every_kind_of_likeness_must_agree() -> None:
    both = torch.cat([likeness(SMALL_TOKENS), likeness()])
    assert not left_behind(mask(LARGE, SMALL), both).any()


@pytest.mark.parametrize(("match", "linear", "left"), [(0.1, -0.01, True), (-0.01, 0.1, False), (0.1, 0.1, False)])
def test_of_small_parts_the_linear_model_alone_decides(match: float, linear: float, left: bool) -> None:
    tiny, tokens = (slice(16, 20), slice(24, 28)), (slice(4, 5), slice(6, 7))
    both = torch.cat([likeness(tokens, value=match), likeness(tokens, value=linear)])
    expected = torch.zeros(1, H, W, dtype=torch.bool)
    expected[0][tokens] = left
    assert torch.equal(left_behind(mask(LARGE, tiny), both), expected)


def test_what_is_connected_by_pixels_is_one_part() -> None:
    """Round a corner, over the borders of tokens; and a gap of one pixel is a gap."""
    bridge = (slice(5, 15), slice(15, 21))
    assert not left_behind(mask(LARGE, SMALL, bridge), likeness(SMALL_TOKENS)).any()
    gap = (slice(5, 15), slice(16, 21))
    assert left_behind(mask(LARGE, SMALL, gap), likeness(SMALL_TOKENS))[0][SMALL_TOKENS].all()


def test_objects_have_parts_of_their_own() -> None:
    """Each one's only part is its largest, and empty masks have none."""
    masks = torch.cat([mask(LARGE), mask(SMALL), mask()])
    assert not left_behind(masks, likeness(SMALL_TOKENS)).any()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.integers(1, 3), st.floats(0.05, 0.95))
def test_only_covered_tokens_are_left_and_never_all(seed: int, n: int, density: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(n, 4 * H, 4 * W, generator=generator) < density
    found = left_behind(masks, torch.randn(2, H, W, generator=generator))
    covered = masks.unflatten(2, (W, 4)).unflatten(1, (H, 4)).any(4).any(2)
    assert not (found & ~covered).any()
    for own, left in zip(covered, found, strict=True):
        assert not own.any() or not left[own].all()
