"""What a GPU computes near each token is what tiles and windows give (margins: test_tiles); it runs on any device."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import segic.neighbours
from segic.carrying import _neighbour_flow, token_flow
from segic.correspondence import window
from segic.neighbours import neighbour_margins, neighbours

C = 8
GRIDS = [(1, 1), (13, 17), (20, 23), (3, 47)]


def tokens(grid, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(grid[0] * grid[1], C, generator=generator), dim=1)


@pytest.mark.parametrize("radius", [0, 1, 3, 99])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_neighbours_are_the_window(grid, radius):
    near = neighbours(grid, radius, torch.device("cpu"))
    found = torch.zeros(grid[0] * grid[1], grid[0] * grid[1], dtype=torch.int64)
    found.scatter_add_(1, near.index, near.inside.long())
    assert torch.equal(found, window(grid, radius, torch.device("cpu")).long())


@pytest.mark.parametrize("radius", [0, 1, 4, 99])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_flow_is_that_in_tiles(grid, radius):
    target, source = tokens(grid, 1), tokens(grid, 2)
    expected = token_flow(target, source, grid, radius)
    torch.testing.assert_close(_neighbour_flow(target, source, grid, radius), expected, atol=1e-4, rtol=1e-4)


def test_large_frames_go_in_parts(monkeypatch):
    grid = (13, 17)
    target, source = tokens(grid, 1), tokens(grid, 2)
    group = torch.randint(0, 4, (221,), generator=torch.Generator().manual_seed(3))
    arguments = target, [source], group, grid, 3, 3, 4
    margins, flow = neighbour_margins(*arguments), _neighbour_flow(target, source, grid, 3)
    monkeypatch.setattr(segic.neighbours, "PAIRS_AT_ONCE", 1000)
    torch.testing.assert_close(neighbour_margins(*arguments), margins)
    torch.testing.assert_close(_neighbour_flow(target, source, grid, 3), flow)
