"""What a GPU computes near each token is what tiles and whole products give; its operations run on any device."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import segic.neighbours
from segic.carrying import _neighbour_flow, token_flow
from segic.correspondence import window
from segic.neighbours import neighbour_margins, neighbours
from segic.tiles import near_margins

ENTITIES, C = 3, 8
GRIDS = [(1, 1), (13, 17), (20, 23), (3, 47)]


def scene(grid, frames=2, small=False):
    """(target tokens, the frames' tokens, their owners). small: entity 1 has three tokens, in a corner."""
    generator = torch.Generator().manual_seed(grid[0] + 100 * grid[1])
    n = grid[0] * grid[1]
    target, *tokens = (F.normalize(torch.randn(n, C, generator=generator), dim=1) for _ in range(1 + frames))
    group = torch.randint(0, ENTITIES + 1, (frames * n,), generator=generator)
    if small:
        group[group == 1] = 0
        group[:3] = 1
    return target, tokens, group


@pytest.mark.parametrize("radius", [0, 1, 3, 99])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_neighbours_are_the_window(grid, radius):
    near = neighbours(grid, radius, torch.device("cpu"))
    found = torch.zeros(grid[0] * grid[1], grid[0] * grid[1], dtype=torch.int64)
    found.scatter_add_(1, near.index, near.inside.long())
    assert torch.equal(found, window(grid, radius, torch.device("cpu")).long())


@pytest.mark.parametrize("small", [False, True], ids=["mixed", "small"])
@pytest.mark.parametrize("radius", [0, 3, 12, 99])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_margins_are_those_in_tiles(grid, radius, small):
    target, tokens, group = scene(grid, small=small)
    for topk in (1, 4):
        arguments = target, tokens, group, grid, radius, ENTITIES, topk
        torch.testing.assert_close(neighbour_margins(*arguments), near_margins(*arguments), atol=1e-6, rtol=0)


def test_margins_of_some_tokens_are_those_in_tiles():
    grid = (20, 23)
    target, tokens, group = scene(grid)
    seen = torch.randperm(460, generator=torch.Generator().manual_seed(1))[:150]
    arguments = target[seen], tokens, group, grid, 3, ENTITIES, 4, seen
    torch.testing.assert_close(neighbour_margins(*arguments), near_margins(*arguments), atol=1e-6, rtol=0)


@pytest.mark.parametrize("radius", [0, 1, 4, 99])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_flow_is_that_in_tiles(grid, radius):
    target, (source, _), _ = scene(grid)
    expected = token_flow(target, source, grid, radius)
    torch.testing.assert_close(_neighbour_flow(target, source, grid, radius), expected, atol=1e-4, rtol=1e-4)


def test_large_frames_go_in_parts(monkeypatch):
    grid = (13, 17)
    target, tokens, group = scene(grid)
    arguments = target, tokens, group, grid, 3, ENTITIES, 4
    margins, flow = neighbour_margins(*arguments), _neighbour_flow(target, tokens[0], grid, 3)
    monkeypatch.setattr(segic.neighbours, "PAIRS_AT_ONCE", 1000)
    torch.testing.assert_close(neighbour_margins(*arguments), margins)
    torch.testing.assert_close(_neighbour_flow(target, tokens[0], grid, 3), flow)
