"""Tokens at several resolutions."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segic.backbones.dinov2 import PATCH, DinoV2, DinoV2Config
from segic.backbones.fovea import BESIDE, ROWS, SCALES, fovea
from segic.model import SEGIC


def scales_from(h: int, w: int, seed: int, share: float, coarsest: int = 2) -> torch.Tensor:
    """(h, w) 1 for about this share of tokens, else `coarsest`; up to it at random where that is 0."""
    generator = torch.Generator().manual_seed(seed)
    fine = torch.rand(h, w, generator=generator) < share
    others = torch.full((h, w), coarsest) if coarsest else 2 ** torch.randint(1, 3, (h, w), generator=generator)
    return torch.where(fine, 1, others)


def block(y: int, x: int, scale: int) -> tuple[slice, slice]:
    """The tokens of the block of scale x scale that (y, x) is in."""
    return tuple(slice(i // scale * scale, i // scale * scale + scale) for i in (y, x))  # type: ignore[return-value]


sides = st.integers(1, 13)
shares = st.sampled_from([0.0, 0.05, 0.3, 1.0])


@given(sides, sides, st.integers(0, 999), shares, st.sampled_from([0, 2, 4]))
def test_every_token_has_its_own_features_or_its_blocks(h: int, w: int, seed: int, share: float, most: int) -> None:
    coarsest = scales_from(h, w, seed, share, most)
    layout = fovea(coarsest)
    assert layout.source.shape == (h * w,)
    assert sorted(set(layout.source.tolist())) == list(range(len(layout)))
    assert torch.equal(layout.source[layout.seen], torch.arange(len(layout)))
    assert sum(map(len, layout.tokens)) == len(layout)
    for y in range(h):
        for x in range(w):
            inside = [scale for scale in SCALES if y < h // scale * scale and x < w // scale * scale]
            scale = max(scale for scale in inside if int(coarsest[block(y, x, scale)].min()) >= scale)
            level = SCALES.index(scale)
            source = int(layout.source[y * w + x]) - sum(map(len, layout.tokens[:level]))
            assert layout.tokens[level][source] == (y // scale) * (w // scale) + x // scale


@given(sides, sides, st.integers(0, 999), shares, st.integers(1, 40), st.sampled_from([0, 2, 4]))
def test_blocks_stay_apart_in_steps(h: int, w: int, seed: int, share: float, at_once: int, most: int) -> None:
    """And nobody is seen more coarsely than without steps; no more stay apart than a step needs."""
    coarsest = scales_from(h, w, seed, share, most)
    plain, stepped = fovea(coarsest), fovea(coarsest, at_once)
    assert sorted(set(stepped.source.tolist())) == list(range(len(stepped)))
    assert torch.equal(stepped.source[stepped.seen], torch.arange(len(stepped)))
    own, once = (torch.bincount(layout.source)[layout.source] for layout in (stepped, plain))
    assert (own <= once).all()
    before, joined = ((h * w - len(layout)) // 3 for layout in (plain, stepped))
    assert 0 <= before - joined < at_once
    if at_once % ROWS == 0 and joined:
        assert (len(stepped) + BESIDE) % ROWS == 0
    # The least number of joined blocks that fills rows, and whole steps more.
    filling = next(n for n in range(ROWS) if (h * w + BESIDE - 3 * n) % ROWS == 0)
    assert (joined - filling) % at_once == 0 or not joined


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 999), st.sampled_from([0.05, 0.3]), st.integers(1, 20))
def test_blocks_become_fine_in_steps_nearest_first(h: int, w: int, seed: int, share: float, at_once: int) -> None:
    coarsest = scales_from(h, w, seed, share)
    blocks = (h // 2) * (w // 2)
    plain, stepped = (set(fovea(coarsest, step).tokens[1].tolist()) for step in (1, at_once))
    assert stepped <= plain
    fine = set(range(blocks)) - plain

    def distance(block: int) -> float:
        return min(math.dist(divmod(block, w // 2), divmod(other, w // 2)) for other in fine)

    added = plain - stepped
    if added and stepped and fine:
        assert max(map(distance, added)) <= min(map(distance, stepped)) + 1e-5


def test_quads_come_apart_when_no_pair_is_left_to() -> None:
    coarsest = torch.full((8, 8), 4)
    coarsest[:2, :2] = 1
    assert [len(tokens) for tokens in fovea(coarsest).tokens] == [4, 3, 3]
    apart = fovea(coarsest, 100)  # of 18 joined blocks, 3 of them quads, 11 fill rows: 64 + 1 - 3 * 11 tokens
    assert [len(tokens) for tokens in apart.tokens] == [20, 11, 0]


@pytest.fixture(scope="module")
def backbone() -> DinoV2:
    torch.manual_seed(0)
    model = DinoV2(DinoV2Config("tiny", width=32, depth=3, heads=2), (1, 3))
    torch.nn.init.normal_(model.pos_embed, std=0.3)
    return model


def picture(h: int, w: int) -> torch.Tensor:
    return 255 * torch.rand(2, 3, PATCH * h, PATCH * w, generator=torch.Generator().manual_seed(1))


def test_all_fine_is_the_plain_backbone(backbone: DinoV2) -> None:
    pixels = picture(6, 9)
    torch.testing.assert_close(backbone(pixels, None, fovea(torch.ones(6, 9, dtype=torch.int64))), backbone(pixels))


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", [(8, 12), (9, 13)], ids=str)
def test_all_coarse_is_the_backbone_on_a_smaller_picture(backbone: DinoV2, size: tuple[int, int], scale: int) -> None:
    """But for the positions, which are means of the fine ones; a row or column without a partner stays fine."""
    backbone = copy.deepcopy(backbone)
    backbone.pos_embed.fill_(0.1)
    h, w = size
    pixels = picture(h, w)
    found = backbone(pixels, None, fovea(torch.full((h, w), scale)))
    if size == (8, 12):
        expected = backbone(torch.nn.functional.avg_pool2d(pixels, scale))
        torch.testing.assert_close(
            found, expected.repeat_interleave(scale, 2).repeat_interleave(scale, 3), atol=1e-4, rtol=1e-4
        )
    coarse = found[:, :, : h // scale * scale, : w // scale * scale]
    for y in range(scale):
        for x in range(scale):
            assert torch.equal(coarse[:, :, ::scale, ::scale], coarse[:, :, y::scale, x::scale])
    assert not torch.allclose(found[:, :, -1, -1], found[:, :, -2, -2]) or size == (8, 12)


@pytest.mark.parametrize("size", [(1, 5), (5, 1), (1, 1)], ids=str)
def test_grids_without_any_block_are_fine(backbone: DinoV2, size: tuple[int, int]) -> None:
    pixels = picture(*size)
    torch.testing.assert_close(backbone(pixels, None, fovea(torch.full(size, 4))), backbone(pixels))


def test_padding_stays_zero_in_coarse_tokens(backbone: DinoV2) -> None:
    """Whatever the pixels hold there."""
    pixels, other = picture(6, 8), picture(6, 8)
    other[:, :, 56:] = 7
    layout = fovea(scales_from(6, 8, 3, 0.1, 4))
    torch.testing.assert_close(backbone(pixels, (56, 112), layout), backbone(other, (56, 112), layout))


def test_what_is_made_of_shared_features_is_what_would_be_made_of_all(dense_model: SEGIC) -> None:
    frame = (60, 96)
    canvas, grid = dense_model.canvas(frame), dense_model.grid(frame)
    layout = fovea(scales_from(*grid, 5, 0.2, 4))
    features = torch.randn(2, dense_model.backbone.width, len(layout), generator=torch.Generator().manual_seed(0))
    features = features[:, :, layout.source].unflatten(2, grid)
    shared = dense_model.encode_features(features, canvas, layout=layout)
    for one, other in zip(shared, dense_model.encode_features(features, canvas), strict=True):
        torch.testing.assert_close(one.embedding, other.embedding)
        torch.testing.assert_close(one.matching, other.matching)


def test_coarse_blocks_share_their_features_and_fine_tokens_do_not(backbone: DinoV2) -> None:
    coarsest = torch.full((6, 8), 2)
    coarsest[0, 0] = 1
    out = backbone(picture(6, 8), None, fovea(coarsest))
    assert out.shape == (2, 64, 6, 8)
    assert torch.equal(out[..., 2, 2], out[..., 3, 3])
    assert not torch.allclose(out[..., 0, 0], out[..., 1, 1])
    assert not torch.allclose(out[..., 2, 2], out[..., 2, 4])


def test_what_is_found_is_the_same_as_for_features_that_happen_to_be_alike(dense_model: SEGIC) -> None:
    """Work that is saved on a foveated frame changes nothing, where all of a frame lies within the radius."""
    assert dense_model.config.matching is not None
    config = replace(dense_model.config, matching=replace(dense_model.config.matching, radius=99))
    dense_model = SEGIC(config, dense_model.backbone, dense_model.decoder)
    images = torch.randint(0, 255, (2, 3, 90, 160), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 90, 160, dtype=torch.bool)
    masks[0, 20:60, 10:50] = True
    masks[1, 40:80, 80:150] = True
    context = dense_model.context(dense_model.encode(images[:1])[0], masks, [1, 2])
    target = dense_model.encode(images[1:], scales_from(*dense_model.grid((90, 160)), 5, 0.05, 0))[0]
    assert target.fovea is not None
    assert len(target.fovea) < target.grid[0] * target.grid[1]
    found = dense_model.predict(target, [context], [context], entities=[1, 2], video=True)
    plain = dense_model.predict(replace(target, fovea=None), [context], [context], entities=[1, 2], video=True)
    torch.testing.assert_close(found.logits, plain.logits, atol=1e-4, rtol=1e-4)
