"""Whether a frame continues the one before it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segic.shots import is_cut

GRID = (9, 14)


def tokens(seed, grid=GRID):
    """(h * w, 16) of length 1, as smooth as a picture is."""
    drawn = torch.randn(1, 16, -(-grid[0] // 4), -(-grid[1] // 4), generator=torch.Generator().manual_seed(seed))
    return F.normalize(F.interpolate(drawn, grid, mode="bilinear")[0].flatten(1).T, dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_has_moved_is_of_the_same_shot(dtype):
    one = tokens(0).to(dtype)
    moved = one.unflatten(0, GRID).roll((2, 4), (0, 1)).flatten(0, 1)
    found = is_cut(moved, one, GRID, 0.4)
    assert found.dtype == torch.bool
    assert found.shape == ()
    assert not found


def test_what_is_unlike_is_of_another_shot():
    one, other = tokens(0), tokens(1)
    likeness = ((other @ one.T).amax(1).mean() + (other * one).sum(1).mean()).item() / 2
    assert is_cut(other, one, GRID, likeness + 0.1)
    assert not is_cut(other, one, GRID, likeness - 0.2)


def test_what_is_blurred_in_its_place_is_of_the_same_shot():
    one = tokens(0)
    blurred = F.normalize(one + 1.5 * F.normalize(tokens(2).mean(0), dim=0), dim=1)
    best = (blurred @ one.T).amax(1).mean().item()
    assert not is_cut(blurred, one, GRID, 0.9 * best)
    assert is_cut(blurred.flip(0), one, GRID, 0.9 * best)


@pytest.mark.parametrize("grid", [(1, 1), (2, 30), (3, 3)])
def test_of_the_smallest_grids(grid):
    assert not is_cut(tokens(0, grid), tokens(0, grid), grid, 0.9)
