"""Margins in tiles, and of each token's neighbours as on a GPU, are those of the masked full product."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segic.correspondence import entity_margins, window
from segic.neighbours import neighbour_margins
from segic.tiles import TILE, near_margins, tiles

ENTITIES, C = 3, 8


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


def masked(target, tokens, group, grid, radius, topk):
    """All pairs are formed."""
    near = window(grid, radius, target.device).repeat(1, len(tokens))
    similarity = (target @ torch.cat(tokens).T).float().masked_fill(~near, 0)
    return entity_margins(similarity, group, ENTITIES, topk)


both_ways = pytest.mark.parametrize("margins", [near_margins, neighbour_margins], ids=["tiles", "neighbours"])
GRIDS = [(1, 1), TILE, (TILE[0] + 1, TILE[1] - 3), (20, 23), (3, 47)]


@pytest.mark.parametrize("radius", [0, 1, 3, 12, 99])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_every_pair_within_the_radius_is_in_the_targets_tile(grid, radius):
    seen = torch.zeros(grid, dtype=torch.int64)
    near = window(grid, radius, torch.device("cpu")).unflatten(0, grid).unflatten(2, grid)
    for tile in tiles(grid, radius):
        rows, columns = slice(tile.rows.start, tile.rows.stop), slice(tile.columns.start, tile.columns.stop)
        seen[rows, columns] += 1
        reached = near[rows, columns].flatten(0, 1).any(0)
        inside = torch.zeros(grid, dtype=torch.bool)
        inside[tile.near_rows.start : tile.near_rows.stop, tile.near_columns.start : tile.near_columns.stop] = True
        assert not (reached & ~inside).any()
    assert (seen == 1).all()


@both_ways
@pytest.mark.parametrize("small", [False, True], ids=["mixed", "small"])
@pytest.mark.parametrize("radius", [0, 3, 12, 99])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_equal_to_the_masked_product(grid, radius, small, margins):
    """Also where an entity, or everything else, has fewer than `topk` tokens near: the rest count as similarity 0."""
    target, tokens, group = scene(grid, small=small)
    for topk in (1, 4):
        found = margins(target, tokens, group, grid, radius, ENTITIES, topk)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, masked(target, tokens, group, grid, radius, topk), atol=1e-6, rtol=0)


@both_ways
@pytest.mark.parametrize("share", [0.3, 0.97])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_tokens_that_are_left_out_are_as_if_they_were_not_there(grid, share, margins):
    target, tokens, group = scene(grid)
    out = torch.rand(len(group), generator=torch.Generator().manual_seed(2)) < share
    found = margins(target, tokens, torch.where(out, ENTITIES + 1, group), grid, 3, ENTITIES, 4)
    near = window(grid, 3, target.device).repeat(1, len(tokens))
    similarity = (target @ torch.cat(tokens).T).masked_fill(~near, 0)[:, ~out]
    torch.testing.assert_close(found, entity_margins(similarity, group[~out], ENTITIES, 4), atol=1e-6, rtol=0)


@both_ways
def test_products_in_bfloat16(margins):
    """Similarities are rounded; margins are formed of them in float32."""
    grid = (20, 23)
    target, tokens, group = scene(grid, frames=3)
    low = [t.bfloat16() for t in (target, *tokens)]
    found = margins(low[0], low[1:], group, grid, 5, ENTITIES, 4)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, masked(low[0], low[1:], group, grid, 5, 4), atol=1e-6, rtol=0)
    torch.testing.assert_close(found, masked(target, tokens, group, grid, 5, 4), atol=0.01, rtol=0)


@both_ways
def test_one_entity_that_no_frame_shows(margins):
    target, tokens, group = scene((10, 21))
    group[group == 2] = 0
    found = margins(target, tokens, group, (10, 21), 2, ENTITIES, 4)
    torch.testing.assert_close(found, masked(target, tokens, group, (10, 21), 2, 4), atol=1e-6, rtol=0)


@both_ways
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_some_of_the_tokens_are_as_among_all(grid, margins):
    """In any order, and where whole tiles have none."""
    target, tokens, group = scene(grid)
    n = grid[0] * grid[1]
    seen = torch.randperm(n, generator=torch.Generator().manual_seed(1))[: n // 3]
    if grid == (3, 47):
        seen = seen[seen % 47 < TILE[1]]
    found = margins(target[seen], tokens, group, grid, 3, ENTITIES, 4, seen)
    whole = margins(target, tokens, group, grid, 3, ENTITIES, 4)
    torch.testing.assert_close(found, whole[:, seen], atol=1e-6, rtol=0)
