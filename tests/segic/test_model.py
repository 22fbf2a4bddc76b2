"""The four stages wired: encoding, examples, propagation and prediction on small models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import segic.model
import segic.propagation
from segic.canvas import Canvas, coverage
from segic.config import InstructionConfig, MatchingConfig
from segic.errors import UsageError
from segic.model import token_centres
from segic.propagation import Context, dense_maps, margins_to

FRAME = (60, 107)


def pictures(count, frame=FRAME, seed=0):
    return torch.randint(0, 256, (count, 3, *frame), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def blocks(count, frame=FRAME):
    """(count, H, W) bool: upright stripes that do not overlap, with background between."""
    masks = torch.zeros(count, *frame, dtype=torch.bool)
    step = frame[1] // count
    for i in range(count):
        masks[i, 5 : frame[0] - 5, i * step : i * step + max(1, step * 2 // 3)] = True
    return masks


def text(count):
    return torch.randn(count, 768, generator=torch.Generator().manual_seed(9))


@pytest.fixture(params=["dense", "released"])
def model(request):
    return request.getfixturevalue(f"{request.param}_model")


def meta_for(model, count):
    return text(count) if model.config.instructions.meta == "text" else None


# Encoding


def test_encoded_dense(dense_model):
    one, two = dense_model.encode(pictures(2))
    assert one.grid == (8, 14)
    assert one.features.shape == (1, 64, 8, 14)
    assert one.embedding.shape == (1, 256, 8, 14)
    assert one.matching.shape == (112, 24)
    assert one.norm is None
    assert one.detail.shape == (1, 8, 32, 56)
    assert one.canvas == two.canvas == Canvas.own_aspect(FRAME, 112, 14)


def test_encoded_as_released(released_model):
    (one,) = released_model.encode(pictures(1))
    assert one.grid == (8, 8)
    assert one.matching is None
    assert one.norm.shape == (1, 28, 28)
    assert one.detail is None
    assert one.canvas == Canvas.square(FRAME, 112)


def test_batches_equal_single_images(model):
    images = pictures(3)
    for i, together in enumerate(model.encode(images)):
        (alone,) = model.encode(images[i : i + 1])
        for name in ("features", "embedding", "matching", "norm", "detail"):
            a, b = getattr(together, name), getattr(alone, name)
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-4)


def test_matching_features_do_not_hold_their_batch(dense_model):
    """They stay with a session; a view would keep the other images of the batch in memory."""
    encoded = dense_model.encode(pictures(3))[1]
    assert encoded.matching.untyped_storage().nbytes() == encoded.matching.numel() * 4


@pytest.mark.parametrize("bad", [torch.zeros(1, 3, 8, 8), pictures(1)[0], pictures(1).permute(0, 2, 3, 1)])
def test_images_of_another_kind(dense_model, bad):
    with pytest.raises(UsageError, match=r"expected uint8 of shape \(B, 3, H, W\), RGB"):
        dense_model.encode(bad)


@pytest.mark.parametrize("frame", [(1, 1), (1, 300), (300, 1), (13, 17), (400, 30)])
def test_odd_frames_come_through(model, frame):
    target = model.encode(pictures(1, frame))[0]
    example = model.context(target, torch.ones(1, *frame), ["all"])
    out = model.predict(target, [example], entities=["all"], meta=meta_for(model, 1))
    assert model.upsample(out.logits, target.canvas).shape == (1, *frame)
    assert out.logits.isfinite().all()


def test_model_is_frozen(model):
    assert not any(p.requires_grad for p in [*model.decoder.parameters(), *model.backbone.parameters()])
    assert not model.decoder.training
    assert model.device == torch.device("cpu")
    assert model.dtype == torch.float32


# Examples


def test_context_dense(dense_model):
    target = dense_model.encode(pictures(1))[0]
    masks = torch.cat([blocks(2), torch.zeros(1, *FRAME, dtype=torch.bool)])
    context = dense_model.context(target, masks, [7, 300, 9])
    assert context.entities == (7, 300, 9)
    assert context.present == (True, True, False)
    assert context.visual.shape == (3, 64)
    assert not context.visual[2].any()
    assert set(context.group.tolist()) == {0, 1, 2}
    weights = coverage(masks, (8, 14))
    expected = (target.features[0] * weights[0]).sum((1, 2)) / weights[0].sum()
    torch.testing.assert_close(context.visual[0], expected, atol=1e-4, rtol=1e-4)


def test_context_masks_of_another_resolution(model):
    """Masks may have any resolution of the whole frame."""
    target = model.encode(pictures(1))[0]
    masks = blocks(2)
    large = masks.repeat_interleave(3, 1).repeat_interleave(3, 2)
    own, other = (model.context(target, m, [1, 2]).visual for m in (masks, large))
    assert F.cosine_similarity(own, other).min() > 0.9  # tokens at the rim may fall on the other side


def test_context_of_a_single_pixel(model):
    """The smallest object is one still, though resizing a large frame steps over it."""
    frame = (600, 1070)
    target = model.encode(pictures(1, frame))[0]
    for y, x in ((0, 0), (301, 502), (599, 1069)):
        mask = torch.zeros(1, *frame)
        mask[0, y, x] = 1
        context = model.context(target, mask, [1])
        assert context.present == (True,)
        row = (y * target.canvas.picture[0] // frame[0]) // 14
        column = (x * target.canvas.picture[1] // frame[1]) // 14
        torch.testing.assert_close(context.visual[0], target.features[0, :, row, column], atol=1e-4, rtol=1e-4)


def test_token_centres_as_released():
    masks = (torch.rand(3, 112, 112, generator=torch.Generator().manual_seed(0)) > 0.2).float()
    masks[:, :50] = 0
    expected = (F.interpolate(masks[None], (8, 8), mode="bilinear")[0] > 0.5).float()
    assert expected.flatten(1).any(1).all()
    assert torch.equal(token_centres(masks, (8, 8)), expected)


def test_token_centres_keep_small_masks():
    """A 6 px square is lost eight times in nine by the released rule; here it stays on the tokens that it touches."""
    lost = 0
    for y in range(14):
        for x in range(14):
            mask = torch.zeros(1, 56, 56)
            mask[:, y + 14 : y + 20, x + 14 : x + 20] = 1
            weights = token_centres(mask, (4, 4))
            assert weights.any()
            centres = F.interpolate(mask[None], (4, 4), mode="bilinear")[0] > 0.5
            lost += not centres.any()
            if not centres.any():
                torch.testing.assert_close(weights.sum(), torch.tensor(36 / 196))
    assert lost > 100


# Prediction


def predict(model, count, *, order=None, recent=True, video=True, masks=None):
    """`count` entities of one example on another picture, with a recent frame."""
    encoded = model.encode(pictures(3))
    keys = [10 * (i + 1) for i in range(count)]
    masks = blocks(count) if masks is None else masks
    given = [model.context(encoded[0], masks, keys)]
    seen = [model.context(encoded[1], masks, keys)] if recent else []
    rows = order or list(range(count))
    meta = meta_for(model, count)
    return model.predict(
        encoded[2],
        given,
        seen,
        entities=[keys[i] for i in rows],
        meta=None if meta is None else meta[rows],
        video=video,
    )


@pytest.mark.parametrize("count", [1, 2, 5])
def test_prediction_shapes(model, count):
    out = predict(model, count)
    grid = (8, 14) if model.config.matching else (8, 8)
    assert out.logits.shape == (count, 4 * grid[0], 4 * grid[1])
    assert out.scores.shape == (count,)
    assert out.propagated.shape == ((count, 8, 14) if model.config.matching else (count, 112, 112))
    assert out.logits.dtype == out.scores.dtype == out.propagated.dtype == torch.float32
    assert out.logits.isfinite().all()


def test_order_of_entities_does_not_matter(model):
    expected, found = predict(model, 4), predict(model, 4, order=[3, 1, 0, 2])
    torch.testing.assert_close(found.logits, expected.logits[[3, 1, 0, 2]], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.propagated, expected.propagated[[3, 1, 0, 2]], atol=1e-5, rtol=1e-4)


def test_more_entities_than_are_decoded_at_once(model, monkeypatch):
    monkeypatch.setattr(segic.model, "ENTITIES_AT_ONCE_CPU", 5)
    expected = predict(model, 5)
    monkeypatch.setattr(segic.model, "ENTITIES_AT_ONCE_CPU", 2)
    found = predict(model, 5)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-3, rtol=1e-3)


def test_twenty_entities_are_each_others_negatives(build_model, dense_config):
    instructions = replace(dense_config.instructions, negatives=False)
    out = predict(build_model(dense_config), 20)
    other = predict(build_model(replace(dense_config, instructions=instructions)), 20)
    assert out.logits.shape[0] == 20
    assert ((out.logits - other.logits).abs().flatten(1).amax(1) > 1e-3).all()


def test_entity_without_example(model):
    encoded = model.encode(pictures(1))[0]
    masks = blocks(2)
    masks[1] = False
    context = model.context(encoded, masks, [1, 2])
    for entities in ([1, 2], [1, 3]):
        with pytest.raises(UsageError, match=rf"entity {entities[1]} has no example"):
            model.predict(encoded, [context], entities=entities, meta=meta_for(model, 2))


def test_recent_masks_may_be_empty(model):
    """An object that went out of sight keeps its first example."""
    encoded = model.encode(pictures(3))
    given = model.context(encoded[0], blocks(2), [1, 2])
    gone = model.remember(encoded[1], torch.full((2, 32, 4 * encoded[1].grid[1]), -3.0), [1, 2])
    assert gone.present == (False, False)
    out = model.predict(encoded[2], [given], [gone], entities=[1, 2], meta=meta_for(model, 2))
    assert out.logits.isfinite().all()


def test_text_models_want_text(released_model):
    encoded = released_model.encode(pictures(1))[0]
    context = released_model.context(encoded, blocks(1), [1])
    with pytest.raises(UsageError, match="the model tiny takes text"):
        released_model.predict(encoded, [context], entities=[1])
    shared = released_model.predict(encoded, [context], entities=[1], meta=text(1)[0])
    own = released_model.predict(encoded, [context], entities=[1], meta=text(1))
    assert torch.equal(shared.logits, own.logits)
    assert not torch.equal(
        shared.logits, released_model.predict(encoded, [context], entities=[1], meta=text(2)[1]).logits
    )


def test_instance_tokens(dense_model):
    """One an example, and one of the last recent frame unless it is an example; shorter lists repeat their first."""
    encoded = dense_model.encode(pictures(4))
    masks = blocks(2)
    first = dense_model.context(encoded[0], masks, [1, 2])
    second = dense_model.context(encoded[1], masks[1:], [2])
    older = dense_model.context(encoded[2], masks, [1, 2])
    last = dense_model.context(encoded[3], masks, [1, 2])

    def tokens(given, recent):
        return dense_model._visual(given, recent, [1, 2])[0]

    assert torch.equal(tokens([first], []), first.visual[:, None])
    assert torch.equal(tokens([first], [first]), first.visual[:, None])
    expected = torch.stack([first.visual, last.visual], 1)
    assert torch.equal(tokens([first], [older, last]), expected)
    ragged = tokens([first, second], [older, last])
    assert torch.equal(ragged[0], torch.stack([first.visual[0], last.visual[0], first.visual[0]]))
    assert torch.equal(ragged[1], torch.stack([first.visual[1], second.visual[0], last.visual[1]]))


def test_who_is_not_in_the_last_frame_has_the_examples_token_again(dense_model):
    """As in training."""
    encoded = dense_model.encode(pictures(2))
    first = dense_model.context(encoded[0], blocks(2), [1, 2])
    lost = blocks(2).clone()
    lost[0] = 0
    last = dense_model.context(encoded[1], lost, [1, 2])
    tokens = dense_model._visual([first], [last], [1, 2])[0]
    assert torch.equal(tokens[0], torch.stack([first.visual[0]] * 2))
    assert torch.equal(tokens[1], torch.stack([first.visual[1], last.visual[1]]))
    nobody = dense_model.context(encoded[1], torch.zeros_like(lost), [1, 2])
    assert torch.equal(dense_model._visual([first], [nobody], [1, 2])[0], torch.stack([first.visual] * 2, 1))


def test_recent_frames_count_only_nearby(build_model, dense_config):
    """Beyond the radius a recent frame's token is as good as none."""
    model = build_model(dense_config)
    encoded = model.encode(pictures(2))
    context = model.context(encoded[0], blocks(2), [1, 2])
    margins = dense_maps(encoded[1].matching, encoded[1].grid, [context], [context], [1, 2], dense_config.matching)
    similarity = encoded[1].matching @ encoded[0].matching.T
    width, radius = 14, dense_config.matching.radius
    for entity, y, x in ((0, 0, 0), (1, 7, 13), (0, 4, 6)):
        row = similarity[y * width + x].view(8, 14).clone()
        near = torch.zeros(8, 14, dtype=torch.bool)
        near[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1] = True
        for plane, values in ((0, row), (1, row * near)):
            own = (context.group == entity + 1).view(8, 14)
            expected = values[own].topk(3).values.mean() - values[~own].topk(3).values.mean()
            torch.testing.assert_close(margins[entity, plane, y, x], expected, atol=1e-5, rtol=1e-4)


def test_target_models_of_several_examples(dense_model):
    """An entity's margins are the mean over the examples that show it; predicted frames have no model."""
    encoded = dense_model.encode(pictures(3))
    masks = blocks(3)
    one = dense_model.context(encoded[0], masks[:2], [1, 2])
    two = dense_model.context(encoded[1], masks[1:], [2, 5])
    predicted = dense_model.remember(encoded[1], torch.randn(2, 32, 4 * encoded[1].grid[1]), [1, 2])
    assert predicted.target_model is None
    target = encoded[2].matching
    first, second = one.target_model.margins(target), two.target_model.margins(target)
    matching = dense_model.config.matching
    found = dense_maps(target, encoded[2].grid, [one, two], [predicted], [5, 2, 1], matching)[:, 2].flatten(1)
    torch.testing.assert_close(found, torch.stack([second[1], (first[1] + second[0]) / 2, first[0]]))


def test_models_without_target_models(build_model, dense_config):
    plain = build_model(replace(dense_config, matching=replace(dense_config.matching, ridge=0.0)))
    encoded = plain.encode(pictures(2))
    context = plain.context(encoded[0], blocks(1), [1])
    assert context.target_model is None
    assert plain._propagate(encoded[1], [context], [], [1]).shape[2] == 2


def test_margins_without_recent_frames_are_zero(dense_model):
    encoded = dense_model.encode(pictures(2))
    context = dense_model.context(encoded[0], blocks(1), [1])
    maps = dense_model._propagate(encoded[1], [context], [], [1])
    assert maps.shape == (1, 1, 3, 8, 14)
    assert maps[:, :, [0, 2]].flatten(3).any(3).all()
    assert not maps[:, :, 1].any()


@pytest.mark.parametrize("local", [True, False], ids=["near", "far"])
def test_margins_in_chunks(dense_model, monkeypatch, local):
    encoded = dense_model.encode(pictures(3))
    contexts = [dense_model.context(image, blocks(2), [1, 2]) for image in encoded[:2]]
    matching = MatchingConfig(3, 3)
    grid = encoded[2].grid if local else None
    expected = margins_to(encoded[2].matching, contexts, [2, 1], matching, grid)
    assert expected.shape == (2, 112)
    monkeypatch.setattr(segic.propagation, "PAIRS_AT_ONCE_CPU", 224 * 5)
    torch.testing.assert_close(margins_to(encoded[2].matching, contexts, [2, 1], matching, grid), expected)
    monkeypatch.setattr(segic.propagation, "PAIRS_AT_ONCE_CPU", 1)
    torch.testing.assert_close(margins_to(encoded[2].matching, contexts, [2, 1], matching, grid), expected)


def test_margins_take_unasked_entities_as_background(dense_model):
    encoded = dense_model.encode(pictures(2))
    both = dense_model.context(encoded[0], blocks(2), [1, 2])
    alone = dense_model.context(encoded[0], blocks(2)[:1], [1])
    expected = margins_to(encoded[1].matching, [alone], [1], MatchingConfig(3))
    torch.testing.assert_close(margins_to(encoded[1].matching, [both], [1], MatchingConfig(3)), expected)


def test_first_example_alone_propagates_as_released(textless_model):
    """Later examples add instance tokens; the similarity map is the first one's."""
    model = textless_model
    encoded = model.encode(pictures(3))
    first, second = (model.context(image, blocks(1), [1]) for image in encoded[:2])
    one = model.predict(encoded[2], [first], entities=[1])
    two = model.predict(encoded[2], [first, second], entities=[1])
    assert torch.equal(one.propagated, two.propagated)
    assert not torch.equal(one.logits, two.logits)
    assert one.propagated.abs().max() <= 1.0001


def test_remembered_dense_masks_do_not_overlap(dense_model):
    encoded = dense_model.encode(pictures(1))[0]
    logits = torch.full((2, 32, 56), -1.0)
    logits[0, :, :28] = 2.0
    logits[1, :, 20:40] = 1.0  # the first is larger where both are positive
    context = dense_model.remember(encoded, logits, [5, 6])
    expected = torch.zeros(8, 14, dtype=torch.int64)
    expected[:, :7], expected[:, 7:10] = 1, 2
    assert torch.equal(context.group.view(8, 14), expected)


def test_remember_and_context_agree(model):
    """A prediction that is sure of itself and the masks written from it come to the same example."""
    encoded = model.encode(pictures(1))[0]
    grid = encoded.grid
    logits = torch.full((1, 4 * grid[0], 4 * grid[1]), -20.0)
    logits[:, 8:16, 12:28] = 20.0
    remembered = model.remember(encoded, logits, [1])
    written = model.upsample(logits, encoded.canvas) > 0
    restored = model.context(encoded, written, [1])
    assert F.cosine_similarity(remembered.visual, restored.visual).item() > 0.98
    if remembered.group is not None:
        assert (remembered.group == restored.group).float().mean() > 0.97


def test_contexts_are_equal_to_themselves_only(dense_model):
    encoded = dense_model.encode(pictures(1))[0]
    one, two = (dense_model.context(encoded, blocks(1), [1]) for _ in range(2))
    assert one == one
    assert one != two
    assert one not in [two]
    assert isinstance(hash(one), int)
    assert isinstance(one, Context)


@pytest.mark.parametrize("backbone_only", [True, False], ids=["as on CPUs", "as on GPUs"])
def test_bfloat16(build_model, dense_config, released_config, backbone_only):
    """The backbone alone, or all of it: finite, float32 results that are near the exact ones."""
    plain = replace(released_config, instructions=InstructionConfig(meta="none"))
    for config in (dense_config, plain):
        exact = predict(build_model(config), 3)
        model = build_model(config)
        model.backbone.to(torch.bfloat16)
        if not backbone_only:
            model.decoder.to(torch.bfloat16)
        out = predict(model, 3)
        assert out.logits.dtype == out.propagated.dtype == torch.float32
        assert out.logits.isfinite().all()
        error = (out.propagated - exact.propagated).square().mean() / exact.propagated.var()
        assert error < 0.05
        agreement = np.corrcoef(out.logits.flatten(), exact.logits.flatten())[0, 1]
        assert agreement > 0.9


def test_deterministic(model):
    one, two = predict(model, 3), predict(model, 3)
    assert torch.equal(one.logits, two.logits)
    assert torch.equal(one.scores, two.scores)


def test_upsampling_follows_the_canvas(dense_model, released_model):
    logits = torch.randn(2, 32, 32)
    canvas = Canvas.square(FRAME, 112)
    assert torch.equal(released_model.upsample(logits, canvas), canvas.restore(logits, through_padded=True))
    own = Canvas.own_aspect(FRAME, 112, 14)
    assert torch.equal(dense_model.upsample(logits, own), canvas_in_one_step(logits))


def canvas_in_one_step(logits):
    return F.interpolate(logits[None], FRAME, mode="bilinear", align_corners=False)[0]


def test_dense_matching_on_a_padded_canvas(build_model, dense_config):
    """Masks land on the tokens of the picture, not of the padded square."""
    model = build_model(replace(dense_config, canvas="square"))
    encoded = model.encode(pictures(1))[0]
    context = model.context(encoded, torch.ones(1, *FRAME), [1])
    rows = encoded.canvas.picture[0] // 14
    group = context.group.view(8, 8)
    assert group[:rows].all()
    assert not group[rows + 1 :].any()
