"""Everything that is trained: shapes, gradients, and what each instruction does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segic.config import InstructionConfig, MatchingConfig, ModelConfig
from segic.decoder import Decoder
from segic.decoder.detail import REACH, DetailBranch, shrink
from segic.decoder.layers import VECTOR, ChannelNorm, FourierPositions, Gelu, as_map
from segic.decoder.transformer import FEW, FOLDED, Attention, trained_in_float32
from segic.instructions import Instructions

C, H, W = 24, 3, 4  # backbone channels, tokens
PAPER = ModelConfig()
DENSE = replace(
    PAPER,
    matching=MatchingConfig(ridge=0.02, width=24, carry=2),
    residual=True,
    detail=8,
    instructions=InstructionConfig(meta="constant"),
)

# Held by the released files and never used: box corners, and the heads of three mask tokens.
UNUSED = {
    "prompt_encoder.point_embeddings.2.weight",
    "prompt_encoder.point_embeddings.3.weight",
    *(
        f"mask_decoder.output_hypernetworks_mlps.{head}.layers.{layer}.{part}"
        for head in (1, 2, 3)
        for layer in range(3)
        for part in ("weight", "bias")
    ),
}


def build(config: ModelConfig, seed: int = 0) -> Decoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = Decoder(config, C, C)
        if decoder.detail is not None:
            torch.nn.init.normal_(decoder.detail.leave.weight)
    return decoder


def randn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def instructions(config: ModelConfig, entities: int, batch: int = 1, references: int = 2) -> Instructions:
    size = (H, W) if config.matching else (14 * H, 14 * W)
    maps = config.matching.maps if config.matching else 1
    return Instructions(
        propagated=randn(1, batch, entities, maps, *size),
        points=randn(2, batch, entities, 2).sigmoid(),
        visual=randn(3, batch, entities, references, C),
        meta=randn(4, batch, entities, 768) if config.instructions.meta == "text" else None,
        carried=randn(8, batch, entities, 4 * H, 4 * W).sigmoid()
        if config.matching and config.matching.carry
        else None,
    )


def decode(decoder, config, given, *, batch=1, cross_points=True, chosen=slice(None), at_once=None, detail=True):
    """The decoder on random features and pictures; at_once: of a single target, so many entities together."""
    entities = given.points.shape[1]
    embedding = decoder.embed(randn(5, batch, C, H, W))
    pixels = 128 + 50 * randn(6, batch, 3, 14 * H, 14 * W)
    frame = decoder.frame_detail(pixels, (H, W)) if detail else None
    if at_once is None:
        return decoder(embedding, given, frame, entities=entities, cross_points=cross_points, chosen=chosen)
    return decoder.masks(embedding, given, frame, entities=entities, cross_points=cross_points, at_once=at_once)


@pytest.mark.parametrize(("entities", "batch"), [(1, 2), (2, 2), (40, 1)])
@pytest.mark.parametrize("config", [PAPER, DENSE], ids=["paper", "dense"])
@torch.no_grad()
def test_shapes(config, entities, batch):
    decoder = build(config)
    out = decode(decoder, config, instructions(config, entities, batch=batch), batch=batch)
    assert out.logits.shape == (batch, entities, 4 * H, 4 * W)
    assert out.scores.shape == (batch, entities)
    assert out.logits.isfinite().all()
    assert out.scores.isfinite().all()


@pytest.mark.parametrize("config", [PAPER, DENSE], ids=["paper", "dense"])
def test_every_parameter_learns(config):
    """Two entities in video reach everything but what is listed and what stands in where there are no masks."""
    decoder = build(config)
    out = decode(decoder, config, instructions(config, 2))
    (out.logits.square().sum() + out.scores.square().sum()).backward()
    without = {name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == UNUSED | {"prompt_encoder.no_mask_embed.weight"}
    assert all(p.grad.isfinite().all() for p in decoder.parameters() if p.grad is not None)


def test_no_mask_embedding_learns_without_the_propagated_mask():
    config = replace(PAPER, instructions=InstructionConfig(geometric=False))
    decoder = build(config)
    decode(decoder, config, instructions(config, 2)).logits.sum().backward()
    assert decoder.prompt_encoder.no_mask_embed.weight.grad.any()
    assert decoder.prompt_encoder.mask_downscaling[0].weight.grad is None


OFF = {
    "geometric": InstructionConfig(geometric=False),
    "points": InstructionConfig(points=False),
    "visual": InstructionConfig(visual=False),
    "meta": InstructionConfig(meta="none"),
}


@pytest.mark.parametrize("name", OFF)
@torch.no_grad()
def test_instruction_switched_off(name):
    """Table 4: without one instruction, its input has no effect, and the others' have."""
    config = replace(PAPER, instructions=OFF[name])
    decoder, given = build(config), instructions(PAPER, 2)
    expected = decode(decoder, config, given).logits
    for part in ("propagated", "points", "visual", "meta"):
        changed = replace(given, **{part: 1 - getattr(given, part)})
        same = torch.equal(decode(decoder, config, changed).logits, expected)
        assert same == (part == {"geometric": "propagated"}.get(name, name)), part


@torch.no_grad()
def test_every_instruction_switched_off():
    config = replace(PAPER, instructions=InstructionConfig(geometric=False, points=False, visual=False, meta="none"))
    out = decode(build(config), config, instructions(PAPER, 2))
    torch.testing.assert_close(out.logits[:, 0], out.logits[:, 1])
    assert out.logits.shape == (1, 2, 4 * H, 4 * W)


@pytest.mark.parametrize("missing", ["propagated", "points", "visual", "meta"])
@torch.no_grad()
def test_instruction_that_is_not_given(missing):
    given = instructions(PAPER, 2)
    changed = replace(given, **{missing: None})
    decoder = build(PAPER)
    embedding = decoder.embed(randn(5, 1, C, H, W))
    out = decoder(embedding, changed, entities=2, cross_points=False)
    assert out.logits.isfinite().all()
    assert not torch.equal(out.logits, decoder(embedding, given, entities=2, cross_points=False).logits)


@torch.no_grad()
def test_negatives():
    """With negatives an entity's mask depends on the other's instructions, without them on its own alone."""
    for negatives in (True, False):
        config = replace(PAPER, instructions=InstructionConfig(negatives=negatives))
        decoder, given = build(config), instructions(config, 2)
        expected = decode(decoder, config, given).logits[:, 0]
        for part in ("points", "visual"):
            value = getattr(given, part).clone()
            value[:, 1] = 1 - value[:, 1]
            found = decode(decoder, config, replace(given, **{part: value})).logits[:, 0]
            assert torch.equal(found, expected) == (not negatives), part


@torch.no_grad()
def test_points_cross_in_video_only():
    decoder, given = build(PAPER), instructions(PAPER, 2)
    points = given.points.clone()
    points[:, 1] = 1 - points[:, 1]
    changed = replace(given, points=points)
    for cross in (True, False):
        before = decode(decoder, PAPER, given, cross_points=cross).logits[:, 0]
        after = decode(decoder, PAPER, changed, cross_points=cross).logits[:, 0]
        assert torch.equal(before, after) == (not cross)


@torch.no_grad()
def test_token_lists():
    """Points, padding point, text, instance tokens: as many as the released order has, own ones marked positive."""
    decoder, given = build(PAPER), instructions(PAPER, 3, references=2)
    video = decoder.tokens(given, 3, cross_points=True)
    assert video.shape == (1, 3, 3 + 1 + 1 + 3 * 2, 256)
    image = decoder.tokens(given, 3, cross_points=False)
    assert image.shape == (1, 3, 1 + 1 + 1 + 3 * 2, 256)
    torch.testing.assert_close(video[0, :, 3], decoder.prompt_encoder.padding_point().expand(3, -1))
    torch.testing.assert_close(video[0, :, 4], decoder.prompt_proj(given.meta[0]))
    projected = decoder.inst_proj(given.visual[0])
    for own in range(3):
        for whose in range(3):
            kind = decoder.inst_type_embed.weight[int(own == whose)]
            torch.testing.assert_close(video[0, own, 5 + 2 * whose : 7 + 2 * whose], projected[whose] + kind)
            place = decoder.prompt_encoder.pe_layer.encode(given.points[0, whose])
            label = decoder.prompt_encoder.point_embeddings[int(own == whose)].weight[0]
            torch.testing.assert_close(video[0, own, whose], place + label)


@torch.no_grad()
def test_token_lists_without_negatives():
    """Only the entity's own, marked positive all the same."""
    config = replace(PAPER, instructions=InstructionConfig(negatives=False))
    decoder, given = build(config), instructions(PAPER, 3, references=2)
    tokens = decoder.tokens(given, 3, cross_points=True)
    assert tokens.shape == (1, 3, 1 + 1 + 1 + 2, 256)
    own_point = decoder.prompt_encoder.pe_layer.encode(given.points) + decoder.prompt_encoder.point_embeddings[1].weight
    torch.testing.assert_close(tokens[:, :, 0], own_point)
    torch.testing.assert_close(tokens[:, :, 3:], decoder.inst_proj(given.visual) + decoder.inst_type_embed.weight[1])


@pytest.mark.parametrize("config", [PAPER, DENSE], ids=["paper", "dense"])
@torch.no_grad()
def test_chosen_entities_equal_the_full_run(config):
    decoder, given = build(config), instructions(config, 5, batch=2)
    full = decode(decoder, config, given, batch=2)
    for chosen in (slice(0, 2), slice(2, 5), slice(4, 5)):
        part = decode(decoder, config, given, batch=2, chosen=chosen)
        torch.testing.assert_close(part.logits, full.logits[:, chosen], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(part.scores, full.scores[:, chosen], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", [PAPER, DENSE], ids=["paper", "dense"])
@torch.no_grad()
def test_entities_a_few_at_a_time_equal_the_full_run(config):
    decoder, given = build(config), instructions(config, 5)
    full = decode(decoder, config, given)
    for at_once in (1, 2, 5, 16):
        part = decode(decoder, config, given, at_once=at_once)
        torch.testing.assert_close(part.logits, full.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(part.scores, full.scores, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", [PAPER, DENSE], ids=["paper", "dense"])
@torch.no_grad()
def test_order_of_entities_does_not_matter(config):
    decoder, given = build(config), instructions(config, 4)
    order = [2, 0, 3, 1]
    parts = {name: getattr(given, name) for name in ("propagated", "points", "visual", "meta", "carried")}
    permuted = Instructions(**{name: None if value is None else value[:, order] for name, value in parts.items()})
    expected, found = decode(decoder, config, given), decode(decoder, config, permuted)
    torch.testing.assert_close(found.logits, expected.logits[:, order], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.scores, expected.scores[:, order], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_targets_do_not_mix():
    decoder, given = build(DENSE), instructions(DENSE, 2, batch=2)
    both = decode(decoder, DENSE, given, batch=2).logits
    other = replace(given, propagated=given.propagated.clone(), visual=given.visual.clone())
    other.propagated[1].neg_()
    other.visual[1].neg_()
    changed = decode(decoder, DENSE, other, batch=2).logits
    torch.testing.assert_close(changed[0], both[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(changed[1], both[1], atol=1e-2)


@torch.no_grad()
def test_residual_adds_the_propagated_masks():
    plain = replace(DENSE, residual=False, detail=0)
    given = instructions(DENSE, 2)
    with_residual, without = build(replace(plain, residual=True)), build(plain)
    without.load_state_dict(with_residual.state_dict(), strict=False)
    with_residual.residual_offset.fill_(-1.5)
    with_residual.residual_gain.copy_(torch.tensor([2.0, 3.0, 4.0]))
    maps = F.interpolate(given.propagated[0], (4 * H, 4 * W), mode="bilinear")
    added = 2 * maps[:, 0] + 3 * maps[:, 1] + 4 * maps[:, 2] - 1.5
    expected = decode(without, plain, given).logits[0] + added
    torch.testing.assert_close(decode(with_residual, plain, given).logits[0], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_untrained_detail_branch_changes_nothing():
    decoder, given = build(DENSE), instructions(DENSE, 2)
    with_detail = decode(decoder, DENSE, given).logits
    without = decode(decoder, DENSE, given, detail=False).logits
    assert not torch.allclose(with_detail, without)
    fresh = Decoder(DENSE, C, C)
    torch.testing.assert_close(
        decode(fresh, DENSE, given).logits, decode(fresh, DENSE, given, detail=False).logits, atol=0, rtol=0
    )


@pytest.mark.parametrize("pixels", [(14 * H, 14 * W), (8 * H, 8 * W), (16 * H, 16 * W)])
@torch.no_grad()
def test_detail_of_any_stride(pixels):
    decoder = build(DENSE)
    assert decoder.frame_detail(torch.zeros(2, 3, *pixels), (H, W)).shape == (2, 8, 4 * H, 4 * W)


@pytest.mark.parametrize(
    ("before", "after"), [((42, 70), (24, 40)), ((28, 14), (16, 8)), ((40, 60), (20, 30)), ((33, 47), (20, 31))]
)
def test_shrink_is_the_mean_over_what_a_pixel_covers(before, after):
    pictures = 255 * randn(4, 2, 3, *before)
    expected = F.interpolate(pictures, after, mode="area")
    torch.testing.assert_close(shrink(pictures, after), expected, atol=1e-3, rtol=0)


def test_no_detail_branch():
    assert build(PAPER).frame_detail(torch.zeros(1, 3, 14 * H, 14 * W), (H, W)) is None


@pytest.mark.parametrize("config", [PAPER, DENSE], ids=["paper", "dense"])
@torch.no_grad()
def test_bfloat16(config):
    """The precision on GPUs and some CPUs: logits are float32 all the same, and near float32's results."""
    decoder, given = build(config), instructions(config, 3)
    exact = decode(decoder, config, given).logits
    decoder.to(torch.bfloat16)
    embedding = decoder.embed(randn(5, 1, C, H, W).bfloat16())
    frame = decoder.frame_detail((128 + 50 * randn(6, 1, 3, 14 * H, 14 * W)).bfloat16(), (H, W))
    out = decoder(embedding, given, frame, entities=3, cross_points=True)
    assert out.logits.dtype == torch.float32
    assert out.scores.dtype == torch.bfloat16
    assert out.logits.isfinite().all()
    error = (out.logits.float() - exact).square().mean() / exact.var()
    assert error < 0.02


def test_channel_norm_is_layer_norm_over_channels():
    norm, x = ChannelNorm(5), randn(0, 2, 5, 3, 4) * 3 + 1
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    expected = F.layer_norm(x.permute(0, 2, 3, 1), (5,), norm.weight, norm.bias, 1e-6).permute(0, 3, 1, 2)
    torch.testing.assert_close(norm(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("channels", [VECTOR, VECTOR - 8])
def test_channel_norm_in_half_precision(channels):
    """CPUs take rows that fill no vector in float32: the result is at most rounded."""
    norm, x = ChannelNorm(channels), randn(0, 2, channels, 3, 4) * 3 + 1
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    norm.bfloat16()
    expected = norm.float()(x.bfloat16().float())
    found = norm.bfloat16()(x.bfloat16())
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.float(), expected, atol=2**-6, rtol=2**-7)


def test_positions_stay_exact_in_half_precision():
    """The matrix keeps its float32 values, which a rounded one's angles would miss by degrees."""
    layer = nn.Sequential(FourierPositions(16), nn.Linear(2, 2))
    expected = layer[0].grid(3, 4)
    layer.to(torch.bfloat16)
    assert layer[1].weight.dtype == torch.bfloat16
    assert torch.equal(layer[0].grid(3, 4), expected)
    assert layer.to("meta")[0].positional_encoding_gaussian_matrix.is_meta


def test_position_grid_follows_the_numbers():
    layer = FourierPositions(16)
    before = layer.grid(3, 4)
    assert layer.grid(3, 4) is before
    layer.load_state_dict({"positional_encoding_gaussian_matrix": torch.ones(2, 8)})
    assert not torch.allclose(layer.grid(3, 4), before)
    with torch.inference_mode():
        other = FourierPositions(16)
        other.load_state_dict(layer.state_dict())
        torch.testing.assert_close(other.grid(3, 4), layer.grid(3, 4))
        other.load_state_dict({"positional_encoding_gaussian_matrix": torch.full((2, 8), 0.5)})
        assert not torch.allclose(other.grid(3, 4), layer.grid(3, 4))


def test_position_grid_of_inference_can_be_trained_with():
    layer = FourierPositions(16)
    with torch.inference_mode():
        kept = layer.grid(3, 4)
    assert layer.grid(3, 4) is kept
    image = torch.ones(1, 16, 3, 4, requires_grad=True)
    (image * layer.grid(3, 4)).sum().backward()
    torch.testing.assert_close(image.grad, kept)


def test_position_grid_is_the_encoding_of_token_centres():
    layer = FourierPositions(16)
    grid = layer.grid(3, 4)
    assert grid.shape == (1, 16, 3, 4)
    centre = torch.tensor([(1 + 0.5) / 4, (2 + 0.5) / 3])
    torch.testing.assert_close(grid[0, :, 2, 1], layer.encode(centre), atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch", [1, 3])
def test_attention_to_few_keys_is_attention(batch):
    """Which is put differently where nothing is trained."""
    torch.manual_seed(0)
    layer = Attention(32, 4, 16)
    queries, keys, values = randn(1, batch, 5 * FEW, 32), randn(2, batch, 4, 32), randn(3, batch, 4, 32)
    expected = layer(queries, keys, values)
    calls = []
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        of_few = Attention._of_few
        patch.setattr(Attention, "_of_few", lambda *given: (calls.append(1), of_few(*given))[1])
        torch.testing.assert_close(layer(queries, keys, values), expected, atol=1e-5, rtol=1e-5)
    assert calls == [1]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("queries", "keys", "way"),
    [
        (FOLDED, FEW * FOLDED + 1, "_by_few"),
        (FEW * FOLDED + 1, FOLDED, "_of_few"),
        (FEW * (FOLDED + 1) + 1, FOLDED + 1, "_column_by_column"),
        (FOLDED + 1, FEW * (FOLDED + 1) + 1, None),
        (FOLDED, FEW * FOLDED, None),
        (FEW * FOLDED, FOLDED, None),
    ],
)
def test_attention_is_the_same_by_each_way(batch, queries, keys, way):
    torch.manual_seed(0)
    layer = Attention(32, 4, 16)
    given = randn(1, batch, queries, 32), randn(2, batch, keys, 32), randn(3, batch, keys, 32)
    expected = layer(*given)
    calls = []
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        for name in ("_by_few", "_of_few", "_column_by_column"):
            inner = getattr(Attention, name)
            patch.setattr(Attention, name, lambda *a, name=name, inner=inner: (calls.append(name), inner(*a))[1])
        torch.testing.assert_close(layer(*given), expected, atol=1e-5, rtol=1e-5)
    assert calls == ([] if way is None else [way])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("queries", [FOLDED, FOLDED + 1], ids=["by few", "torch's"])
def test_a_key_counts_for_as_many_as_it_stands_for(batch, queries):
    """Those that stand for none are not there."""
    torch.manual_seed(0)
    layer = Attention(32, 4, 16)
    count = torch.arange(FEW * FOLDED + 50) % 4
    given, keys, values = randn(1, batch, queries, 32), *(randn(i, batch, len(count), 32) for i in (2, 3))
    with torch.no_grad():
        expected = layer(given, keys.repeat_interleave(count, 1), values.repeat_interleave(count, 1))
        found = layer(given, keys, values, count.log().expand(batch, -1))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("count", [1, 2])
def test_gelu_is_the_same_however_channels_lie(count, memory):
    given = randn(1, count, 5, 4, 6)
    x = given.contiguous(memory_format=memory)
    found = Gelu()(x)
    assert torch.equal(found, F.gelu(given))
    assert found.is_contiguous(memory_format=memory)
    assert torch.equal(Gelu()(given[0, 0]), F.gelu(given[0, 0]))


@pytest.mark.parametrize("count", [1, 2])
def test_a_map_of_tokens_has_the_strides_of_channels_side_by_side(count):
    tokens = randn(1, count, 12, 5)
    found = as_map(tokens, 3, 4)
    assert torch.equal(found, tokens.transpose(1, 2).reshape(count, 5, 3, 4))
    assert found.stride() == (60, 1, 20, 5)


def test_the_detail_branchs_gradients_in_bfloat16_are_those_of_float32():
    """With channels side by side, oneDNN's gradient of a dilated bfloat16 convolution is anything."""
    torch.manual_seed(0)
    branch = DetailBranch(24, 32)
    torch.nn.init.normal_(branch.leave.weight, std=0.1)
    logits, upscaled, frame = (torch.randn(2, c, 112, 112) for c in (1, 32, 24))
    norms = []
    for lower in (False, True):
        branch.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=lower):
            out = branch(logits, upscaled, frame)
        out.float().square().mean().backward()
        parts = (branch.enter, branch.mix, branch.leave)
        norms.append(torch.stack([p.grad.norm() for part in parts for p in part.parameters()]))
    torch.testing.assert_close(norms[1], norms[0], rtol=0.05, atol=1e-4)


@pytest.mark.parametrize("trained", [True, False])
def test_attention_is_trained_in_float32(trained):
    """In bfloat16 a CPU takes its gradient three to four times as long; without a gradient bfloat16 is kept."""
    x = randn(1, 2, 6, 8).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(trained):
        low = F.linear(x, torch.eye(8))
        out = trained_in_float32(F.scaled_dot_product_attention, low, low, low)
        assert low.dtype == torch.bfloat16
        assert F.linear(x, torch.eye(8)).dtype == torch.bfloat16, "autocast must be on again afterwards"
    assert out.dtype == (torch.float32 if trained else torch.bfloat16)
    same = F.scaled_dot_product_attention(x, x, x)
    assert (out.float() - same).abs().max() < 0.03


@pytest.mark.parametrize("frames", [1, 3])
def test_detail_around_an_entity_is_that_of_the_whole_picture(frames):
    """In the box of what may be the entity's; elsewhere nothing is done. The third entity is nowhere."""
    torch.manual_seed(0)
    branch = DetailBranch(8, 4)
    torch.nn.init.normal_(branch.leave.weight, std=0.3)
    logits = torch.full((3, 1, 100, 140), -REACH - 1.0)
    boxes = [(slice(0, 37), slice(60, 140)), (slice(50, 53), slice(7, 90))]
    for own, box in zip(logits, boxes, strict=False):
        own[0][box] = torch.randn(own[0][box].shape).clamp(min=-REACH + 0.1)
    known = torch.randn(3, 3, 100, 140), torch.randn(frames, 8, 100, 140), torch.rand(3, 1, 100, 140)
    with torch.no_grad():
        whole, found = branch(logits, *known), branch.in_boxes(logits, *known)
    for number, box in enumerate(boxes):
        torch.testing.assert_close(found[number, 0][box], whole[number, 0][box], atol=1e-5, rtol=1e-5)
        rest = torch.ones(100, 140, dtype=torch.bool)
        rest[box] = False
        assert torch.equal(found[number, 0][rest], logits[number, 0][rest])
    assert torch.equal(found[2], logits[2])
    assert not torch.allclose(whole[2], logits[2])
