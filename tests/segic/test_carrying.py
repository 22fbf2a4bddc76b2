"""Masks carried along the correspondences of tokens."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from segic.carrying import FAR, SCALE, TEMPERATURE, carry, token_flow, within_reach
from segic.tiles import TILE

C = 16


def tokens(grid, seed=0):
    return F.normalize(torch.randn(grid[0] * grid[1], C, generator=torch.Generator().manual_seed(seed)), dim=1)


def full(target, source, grid, radius):
    """All pairs are formed, in the words of the docstring."""
    y, x = (axis.flatten().float() for axis in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
    right, down = x - x[:, None], y - y[:, None]
    score = (target @ source.T - FAR * (right**2 + down**2)) / TEMPERATURE
    share = score.masked_fill(torch.maximum(right.abs(), down.abs()) > radius, -torch.inf).softmax(1)
    return torch.stack([(share * right).sum(1), (share * down).sum(1)]).unflatten(1, grid)


@pytest.mark.parametrize("radius", [0, 1, 4, 99])
@pytest.mark.parametrize("grid", [(1, 1), TILE, (TILE[0] + 1, TILE[1] - 3), (20, 23), (3, 47)], ids=str)
def test_flow_in_tiles_is_that_of_all_pairs(grid, radius):
    target, source = tokens(grid, 1), tokens(grid, 2)
    found = token_flow(target, source, grid, radius)
    torch.testing.assert_close(found, full(target, source, grid, radius), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shift", [(0, 0), (2, 0), (0, -3), (-1, 3)])
def test_a_picture_that_moved_is_followed(shift):
    """By whole tokens, each of which is only like itself."""
    grid, (down, right) = (14, 18), shift
    before = tokens(grid).unflatten(0, grid)
    after = before.roll((down, right), (0, 1))
    flow = token_flow(after.flatten(0, 1), before.flatten(0, 1), grid, 4)
    inside = (slice(None), slice(4, -4), slice(4, -4))
    moved = torch.tensor([-right, -down])[:, None, None].expand(2, *grid)
    torch.testing.assert_close(flow[inside], moved[inside].float(), atol=2e-2, rtol=0)


def test_of_matches_that_are_alike_the_nearest_is_meant():
    """A plain picture stays where it is, but for its border, beyond which there is nothing."""
    grid = (9, 9)
    plain = F.normalize(torch.ones(81, C), dim=1)
    assert token_flow(plain, plain, grid, 3)[:, 3:-3, 3:-3].abs().max() < 1e-4


def test_displacements_between_tokens_are_found():
    """Features that change smoothly, moved by a fraction of a token."""
    grid, part = (10, 16), 0.4
    wave = torch.linspace(0.05, 0.3, C)

    def seen(shift):
        x = (torch.arange(grid[1]) + shift)[:, None] * wave
        return F.normalize(torch.cat([x.sin(), x.cos()], 1), dim=1).expand(grid[0], -1, -1).flatten(0, 1)

    flow = token_flow(seen(part), seen(0.0), grid, 3)
    assert (flow[0, :, 4:-4] - part).abs().max() < 0.15


@given(st.integers(-2, 2), st.integers(-2, 2), st.integers(0, 2**16))
def test_masks_move_with_a_flow_of_whole_tokens(down, right, seed):
    h, w = 6, 8
    masks = (torch.rand(2, SCALE * h, SCALE * w, generator=torch.Generator().manual_seed(seed)) > 0.5).float()
    flow = torch.tensor([-right, -down]).float()[:, None, None].expand(2, h, w)
    moved = masks.roll((SCALE * down, SCALE * right), (1, 2))
    inside = (slice(None), slice(SCALE * 2, SCALE * -2), slice(SCALE * 2, SCALE * -2))
    torch.testing.assert_close(carry(masks, flow)[inside], moved[inside], atol=1e-4, rtol=0)


@given(st.integers(0, 2**16))
def test_what_is_carried_stays_between_what_there_was(seed):
    generator = torch.Generator().manual_seed(seed)
    masks, flow = torch.rand(3, 20, 28, generator=generator), 9 * torch.randn(2, 5, 7, generator=generator)
    out = carry(masks, flow)
    assert out.shape == masks.shape
    assert out.min() >= masks.min() - 1e-6
    assert out.max() <= masks.max() + 1e-6


def test_nobody_is_carried():
    assert not within_reach(torch.zeros(0, 8, 12), 2).any()
    assert carry(torch.zeros(0, 8, 12), torch.zeros(2, 2, 3)).shape == (0, 8, 12)


@given(st.integers(0, 2**16), st.integers(0, 3))
def test_flow_out_of_reach_of_the_masks_changes_nothing(seed, radius):
    """Whatever it is there."""
    generator = torch.Generator().manual_seed(seed)
    h, w = 9, 14
    masks = torch.zeros(2, SCALE * h, SCALE * w)
    for one in masks:
        y, x = (int(torch.randint(0, SCALE * side, (), generator=generator)) for side in (h, w))
        one[y : y + 3, x : x + 5] = 1
    flow = radius * (2 * torch.rand(2, h, w, generator=generator) - 1)
    other = radius * (2 * torch.rand(2, h, w, generator=generator) - 1)
    mixed = torch.where(within_reach(masks, radius), flow, other)
    torch.testing.assert_close(carry(masks, mixed), carry(masks, flow), atol=1e-5, rtol=0)


def test_flow_is_found_where_it_is_wanted_only():
    grid = (2 * TILE[0], 2 * TILE[1])
    target, source = tokens(grid, 1), tokens(grid, 2)
    wanted = torch.zeros(grid, dtype=torch.bool)
    wanted[3, TILE[1] + 2] = True
    found, full = token_flow(target, source, grid, 3, wanted), token_flow(target, source, grid, 3)
    corner = (slice(None), slice(0, TILE[0]), slice(TILE[1], None))
    assert torch.equal(found[corner], full[corner])
    assert found.count_nonzero() == found[corner].count_nonzero()
