"""Tokens at two resolutions."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segic.backbones.dinov2 import PATCH, DinoV2, DinoV2Config
from segic.backbones.fovea import fovea
from segic.model import SEGIC


def wanted_from(h: int, w: int, seed: int, share: float) -> torch.Tensor:
    return torch.rand(h, w, generator=torch.Generator().manual_seed(seed)) < share


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 999), st.sampled_from([0.0, 0.05, 0.3, 1.0]))
def test_every_token_has_its_own_features_or_its_blocks(h: int, w: int, seed: int, share: float) -> None:
    wanted = wanted_from(h, w, seed, share)
    layout = fovea(wanted)
    assert layout.source.shape == (h * w,)
    assert sorted(set(layout.source.tolist())) == list(range(layout.tokens))
    assert torch.equal(layout.source[layout.seen], torch.arange(layout.tokens))
    for y in range(h):
        for x in range(w):
            source = int(layout.source[y * w + x])
            whole = (
                y >= h // 2 * 2
                or x >= w // 2 * 2
                or bool(wanted[y // 2 * 2 : y // 2 * 2 + 2, x // 2 * 2 : x // 2 * 2 + 2].any())
            )
            if whole:
                assert layout.fine[source] == y * w + x
            else:
                assert layout.coarse[source - len(layout.fine)] == (y // 2) * (w // 2) + x // 2


@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(0, 999), st.sampled_from([0.0, 0.05, 0.3]), st.integers(1, 9)
)
def test_blocks_become_fine_in_steps_nearest_first(h: int, w: int, seed: int, share: float, at_once: int) -> None:
    wanted = wanted_from(h, w, seed, share)
    blocks = (h // 2) * (w // 2)
    plain, stepped = set(fovea(wanted).coarse.tolist()), set(fovea(wanted, at_once).coarse.tolist())
    assert stepped <= plain
    fine = set(range(blocks)) - plain
    assert len(stepped) == max(0, blocks - -(-len(fine) // at_once) * at_once)

    def distance(block: int) -> float:
        return min(math.dist(divmod(block, w // 2), divmod(other, w // 2)) for other in fine)

    added = plain - stepped
    if added and stepped:
        assert max(map(distance, added)) <= min(map(distance, stepped)) + 1e-5


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
    torch.testing.assert_close(backbone(pixels, None, fovea(torch.ones(6, 9, dtype=torch.bool))), backbone(pixels))


@pytest.mark.parametrize("size", [(6, 8), (7, 9)], ids=str)
def test_all_coarse_is_the_backbone_on_the_picture_at_half_its_size(backbone: DinoV2, size: tuple[int, int]) -> None:
    """But for the positions, which are means of the fine ones; a row or column without a partner stays fine."""
    backbone = copy.deepcopy(backbone)
    backbone.pos_embed.fill_(0.1)
    h, w = size
    pixels = picture(h, w)
    found = backbone(pixels, None, fovea(torch.zeros(h, w, dtype=torch.bool)))
    if size == (6, 8):
        expected = backbone(torch.nn.functional.avg_pool2d(pixels, 2))
        torch.testing.assert_close(
            found, expected.repeat_interleave(2, 2).repeat_interleave(2, 3), atol=1e-4, rtol=1e-4
        )
    coarse = found[:, :, : h // 2 * 2, : w // 2 * 2]
    assert torch.equal(coarse[:, :, ::2, ::2], coarse[:, :, 1::2, 1::2])
    assert not torch.allclose(found[:, :, -1, -1], found[:, :, -2, -2]) or size == (6, 8)


@pytest.mark.parametrize("size", [(1, 5), (5, 1), (1, 1)], ids=str)
def test_grids_without_any_block_are_fine(backbone: DinoV2, size: tuple[int, int]) -> None:
    pixels = picture(*size)
    torch.testing.assert_close(backbone(pixels, None, fovea(torch.zeros(size, dtype=torch.bool))), backbone(pixels))


def test_padding_stays_zero_in_coarse_tokens(backbone: DinoV2) -> None:
    """Whatever the pixels hold there."""
    pixels, other = picture(6, 8), picture(6, 8)
    other[:, :, 56:] = 7
    wanted = fovea(wanted_from(6, 8, 3, 0.1))
    torch.testing.assert_close(backbone(pixels, (56, 112), wanted), backbone(other, (56, 112), wanted))


def test_coarse_blocks_share_their_features_and_fine_tokens_do_not(backbone: DinoV2) -> None:
    wanted = torch.zeros(6, 8, dtype=torch.bool)
    wanted[0, 0] = True
    out = backbone(picture(6, 8), None, fovea(wanted))
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
    target = dense_model.encode(images[1:], wanted_from(*dense_model.grid((90, 160)), 5, 0.05))[0]
    assert target.fovea is not None
    assert target.fovea.tokens < target.grid[0] * target.grid[1]
    found = dense_model.predict(target, [context], [context], entities=[1, 2], video=True)
    plain = dense_model.predict(replace(target, fovea=None), [context], [context], entities=[1, 2], video=True)
    torch.testing.assert_close(found.logits, plain.logits, atol=1e-4, rtol=1e-4)
