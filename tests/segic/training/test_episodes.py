"""Training sees what inference will see: the same predictions from the same features and masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segic.canvas import Canvas
from segic.config import InstructionConfig, MatchingConfig, ModelConfig
from segic.decoder import Decoder, Output
from segic.model import SEGIC
from segic.training.chains import group_loss
from segic.training.disturbance import lose
from segic.training.episodes import Batch, as_example, predict, prepare
from segic.training.groups import Group, encode
from segic.training.losses import soft_iou
from segic.training.plan import StepPlan, plan_step
from segic.training.recipe import Loss
from segic.training.recipe_file import load_recipe

PAPER = ModelConfig(size=112)
DENSE = ModelConfig(
    size=112, canvas="frame", matching=MatchingConfig(2, 3, 0.02, 0.3, 20, carry=2), residual=True, detail=4,
    recent=1,
    instructions=InstructionConfig(meta="constant"),
)  # fmt: skip
CANVAS = Canvas((112, 112), (112, 112), (112, 112))
SMALL = (32, 32)
PLAN = StepPlan(0, True, 2, False, False, False, False, False, True)


@pytest.fixture
def masks() -> torch.Tensor:
    """(2, 3, 2, 112, 112): two squares that move from frame to frame."""
    out = torch.zeros(2, 3, 2, 112, 112)
    for b in range(2):
        for f in range(3):
            out[b, f, 0, 14 + 7 * f : 49 + 7 * f, 14:56] = 1
            out[b, f, 1, 63:98, 28 + 7 * b : 84 - 7 * f] = 1
    return out


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(2, 3, 32, 8, 8, generator=torch.Generator().manual_seed(1))


def decoder(config: ModelConfig) -> Decoder:
    torch.manual_seed(0)
    return Decoder(config, 32, 32).eval()


def batch_for(config: ModelConfig, features: torch.Tensor, masks: torch.Tensor) -> Batch:
    pixels = torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 255
    if config.matching is None:
        return Batch(features, pixels, masks, (112, 112))
    small = F.interpolate(masks.flatten(0, 1), SMALL, mode="area").unflatten(0, (2, 3))
    return Batch(features, pixels, small)


@pytest.mark.parametrize("config", [PAPER, DENSE], ids=["paper", "dense"])
@torch.no_grad()
def test_a_pair_and_a_chain_as_in_inference(config: ModelConfig, features: torch.Tensor, masks: torch.Tensor) -> None:
    model = decoder(config)
    batch = batch_for(config, features, masks)
    meta = torch.randn(2, 2, 768) if config.instructions.meta == "text" else None
    frames = prepare(model, batch, (1, 2))
    example = (0, batch.masks[:, 0])
    between = predict(model, config, frames, 1, example, meta=meta)
    # Inference gives a pixel to one entity only; here they must be apart for the two to agree.
    known = batch.masks[:, 1]
    last = predict(model, config, frames, 2, example, (1, known), meta=meta)
    beginning = predict(model, config, frames, 1, example, example, meta=meta)
    segic = SEGIC(config, None, model)  # type: ignore[arg-type]
    for b in range(2):
        pixels = None if config.matching is None else batch.pixels[b]
        encoded = segic.encode_features(features[b], CANVAS, pixels)
        given = segic.context(encoded[0], masks[b, 0], [1, 2])
        words = None if meta is None else meta[b]
        first = segic.predict(encoded[1], [given], entities=[1, 2], meta=words, video=True)
        assert torch.allclose(first.logits, between.logits[b], atol=1e-4)
        assert torch.allclose(first.scores, between.scores[b], atol=1e-4)
        recent = segic.context(encoded[1], masks[b, 1], [1, 2])
        second = segic.predict(encoded[2], [given], [recent], entities=[1, 2], meta=words, video=True)
        assert torch.allclose(second.logits, last.logits[b], atol=1e-4)
        start = segic.predict(encoded[1], [given], [given], entities=[1, 2], meta=words, video=True)
        assert torch.allclose(start.logits, beginning.logits[b], atol=1e-4)


@torch.no_grad()
def test_renewed_target_models_as_in_inference(features: torch.Tensor, masks: torch.Tensor) -> None:
    model = decoder(DENSE)
    features[:, 1] = features[:, 0] + 0.5 * features[:, 1]  # alike enough for the example's model to agree
    batch = batch_for(DENSE, features, masks[:, [0, 0, 2]])
    frames = prepare(model, batch, (2,))
    shown = (0, batch.masks[:, 0]), (1, batch.masks[:, 1])
    out = predict(model, DENSE, frames, 2, *shown, renewed=True)
    assert not torch.allclose(out.logits, predict(model, DENSE, frames, 2, *shown).logits, atol=1e-3)
    segic = SEGIC(DENSE, None, model)  # type: ignore[arg-type]
    for b in range(2):
        encoded = segic.encode_features(features[b], CANVAS, batch.pixels[b])
        given, recent = (segic.context(encoded[i], masks[b, 0], [1, 2]) for i in (0, 1))
        renewed = segic.renew(given, recent, encoded[0].grid)
        found = segic.predict(encoded[2], [renewed], [recent], entities=[1, 2], video=True)
        assert torch.allclose(found.logits, out.logits[b], atol=1e-4)
        # The example is not a later frame of itself.
        again = predict(model, DENSE, frames, 2, shown[0], shown[0], renewed=True)
        same = segic.predict(encoded[2], [given], [given], entities=[1, 2], video=True)
        assert torch.allclose(same.logits, again.logits[b], atol=1e-4)


@pytest.mark.parametrize("config", [PAPER, DENSE], ids=["paper", "dense"])
@pytest.mark.parametrize("absent", [False, True])
@torch.no_grad()
def test_what_is_predicted_is_an_example_as_in_inference(
    config: ModelConfig, absent: bool, features: torch.Tensor, masks: torch.Tensor
) -> None:
    """Predictions that overlap, and an entity that was not found."""
    model = decoder(config)
    batch = batch_for(config, features, masks)
    meta = torch.randn(2, 2, 768) if config.instructions.meta == "text" else None
    logits = torch.full((2, 2, *SMALL), -3.0)
    logits[:, 0, 4:20, 4:20] = 1
    logits[:, 1, 12:28, 8:24] = -1.0 if absent else 2.0
    frames = prepare(model, batch, (2,))
    example = (0, batch.masks[:, 0])
    out = predict(model, config, frames, 2, example, (1, as_example(config, frames, logits)), meta=meta)
    segic = SEGIC(config, None, model)  # type: ignore[arg-type]
    for b in range(2):
        encoded = segic.encode_features(features[b], CANVAS, None if config.matching is None else batch.pixels[b])
        given = segic.context(encoded[0], masks[b, 0], [1, 2])
        recent = segic.remember(encoded[1], logits[b], [1, 2])
        assert recent.present == (True, not absent)
        words = None if meta is None else meta[b]
        found = segic.predict(encoded[2], [given], [recent], entities=[1, 2], meta=words, video=True)
        assert torch.allclose(found.logits, out.logits[b], atol=1e-4)
        assert torch.allclose(found.scores, out.scores[b], atol=1e-4)


@pytest.mark.parametrize("config", [PAPER, DENSE], ids=["paper", "dense"])
@torch.no_grad()
def test_without_negatives_entities_do_not_know_each_other(
    config: ModelConfig, features: torch.Tensor, masks: torch.Tensor
) -> None:
    model = decoder(config)
    batch = batch_for(config, features, masks)
    frames = prepare(model, batch, (2,))
    apart = predict(model, config, frames, 2, (0, batch.masks[:, 0]), negatives=False)
    together = predict(model, config, frames, 2, (0, batch.masks[:, 0]))
    assert apart.logits.shape == together.logits.shape
    assert not torch.allclose(apart.logits, together.logits, atol=1e-3)
    if config.matching is None:  # dense margins are taken against the other entities in any case
        alone = predict(model, config, frames, 2, (0, batch.masks[:, 0, 1:]))
        assert torch.allclose(apart.logits[:, 1:], alone.logits, atol=1e-4)


def test_a_prediction_as_an_example_has_no_gradient(features: torch.Tensor, masks: torch.Tensor) -> None:
    model = decoder(PAPER)
    frames = prepare(model, batch_for(PAPER, features, masks), (2,))
    out = predict(model, PAPER, frames, 2, (0, masks[:, 0]))
    example = as_example(PAPER, frames, out.logits)
    assert example.shape == (2, 2, 112, 112)
    assert not example.requires_grad
    assert set(example.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("config", [PAPER, DENSE], ids=["paper", "dense"])
@pytest.mark.parametrize("points", [0, 40])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("frames", [2, 3])
def test_every_kind_of_loss_reaches_what_is_used(
    config: ModelConfig, points: int, reverse: bool, frames: int, features: torch.Tensor, masks: torch.Tensor
) -> None:
    model = decoder(config).train()
    whole = batch_for(config, features, masks)
    keep = slice(0, frames)
    batch = replace(whole, features=whole.features[:, keep], pixels=whole.pixels[:, keep], masks=whole.masks[:, keep])
    meta = torch.randn(2, 2, 768) if config.instructions.meta == "text" else None
    group = Group(batch, meta, frames == 3, True, ("pair",) * 2, (("a",),) * 2)
    plan = replace(PLAN, reversion=reverse, video_reversion=reverse)
    terms = group_loss(
        model, config, group, plan, Loss(points=points, score=0.3), crossed_points=True,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert torch.isfinite(terms.figures).all()
    assert terms.figures[0] == terms.loss.detach()
    terms.loss.backward()
    unused = {name for name, p in model.named_parameters() if p.grad is None}
    # The released layout holds more than is ever used, and a propagated mask is always there.
    expected = ("output_hypernetworks_mlps.1", "output_hypernetworks_mlps.2", "output_hypernetworks_mlps.3")
    rest = {name for name in unused if not any(part in name for part in (*expected, "no_mask_embed"))}
    assert {name.split(".")[1] for name in rest} <= {"point_embeddings"}


@pytest.mark.parametrize("config", [PAPER, DENSE], ids=["paper", "dense"])
def test_a_videos_first_step_is_from_the_recent_frame_alone(
    config: ModelConfig, features: torch.Tensor, masks: torch.Tensor
) -> None:
    """The first frame says nothing, and who is not to be seen in the recent one is not to be found."""
    masks = masks.clone()
    masks[1, 1, 0] = 0

    def loss(masks: torch.Tensor, features: torch.Tensor) -> list[float]:
        group = Group(batch_for(config, features, masks), meta, True, True, ("views",) * 2, (("a",) * 2,) * 2)
        terms = group_loss(
            decoder(config), config, group, replace(PLAN, first=True), Loss(points=0), crossed_points=True,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        return [float(value) for value in terms.figures]

    meta = torch.randn(2, 2, 768) if config.instructions.meta == "text" else None
    expected = loss(masks, features)
    other, elsewhere = features.clone(), masks.clone()
    other[:, 0] += 1
    elsewhere[:, 0] = 0
    elsewhere[1, 2, 0] = 0
    assert loss(elsewhere, other) == pytest.approx(expected, rel=1e-5)
    elsewhere[0, 2, 0] = 0
    assert loss(elsewhere, other) != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("config", [PAPER, DENSE], ids=["paper", "dense"])
def test_a_longer_chain_goes_on_where_the_shorter_ends(
    config: ModelConfig, features: torch.Tensor, masks: torch.Tensor
) -> None:
    model = decoder(config)
    batch = batch_for(config, features, masks)
    meta = torch.randn(2, 2, 768) if config.instructions.meta == "text" else None
    group = Group(batch, meta, True, True, ("views",) * 2, (("a",) * 2,) * 2)
    short, long, longest = (
        group_loss(
            model, config, group, replace(PLAN, predicted=False, longer=longer), Loss(points=0, ce=0, score=0),
            crossed_points=True, generator=torch.Generator().manual_seed(0),
        ).figures.tolist()
        for longer in (0, 1, 3)
    )  # fmt: skip
    frames = prepare(model, batch, (1, 2))
    example = 0, batch.masks[:, 0]
    target = predict(model, config, frames, 2, example, (1, batch.masks[:, 1]), meta=meta)
    again = predict(model, config, frames, 1, example, (2, as_example(config, frames, target.logits)), meta=meta)
    third = predict(model, config, frames, 2, example, (1, as_example(config, frames, again.logits)), meta=meta)
    last = predict(model, config, frames, 1, example, (2, as_example(config, frames, third.logits)), meta=meta)

    def iou(out: Output, frame: int) -> float:
        wanted = batch.masks[:, frame]
        wanted = wanted if config.matching else F.interpolate(wanted, SMALL, mode="area")
        return float(soft_iou(out.logits.flatten(2), wanted.flatten(2)).mean())

    assert long[3] == pytest.approx(short[4], abs=1e-5)
    assert long[4] == pytest.approx(iou(again, 1), abs=1e-5)
    assert longest[3:] == pytest.approx([iou(third, 2), iou(last, 1)], abs=1e-5)


@pytest.mark.parametrize(("longer", "trained"), [(0, 2), (1, 2), (3, 2)])
def test_only_the_last_two_of_a_chain_are_trained(
    longer: int, trained: int, features: torch.Tensor, masks: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others cost neither the memory nor the time of gradients."""
    made: list[bool] = []

    def watched(*args: object, **more: object) -> Output:
        out = predict(*args, **more)  # type: ignore[arg-type]
        made.append(out.logits.requires_grad)
        return out

    monkeypatch.setattr("segic.training.chains.predict", watched)
    group = Group(batch_for(DENSE, features, masks), None, True, True, ("views",) * 2, (("a",) * 2,) * 2)
    group_loss(
        decoder(DENSE).train(), DENSE, group, replace(PLAN, longer=longer), Loss(points=0), crossed_points=True,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert made == [False] * longer + [True] * trained


@pytest.mark.parametrize("config", [PAPER, DENSE], ids=["paper", "dense"])
@pytest.mark.parametrize("frames", [2, 3])
def test_who_the_example_does_not_show_is_not_to_be_found(
    config: ModelConfig, frames: int, features: torch.Tensor, masks: torch.Tensor
) -> None:
    """As where the roles of a pair are swapped: there is nothing to find the entity by."""
    masks = masks.clone()
    example = frames - 1 if frames == 2 else 0
    masks[1, example, 0] = 0
    meta = torch.randn(2, 2, 768) if config.instructions.meta == "text" else None

    def loss(masks: torch.Tensor) -> list[float]:
        whole = batch_for(config, features, masks)
        keep = slice(0, frames)
        batch = replace(
            whole, features=whole.features[:, keep], pixels=whole.pixels[:, keep], masks=whole.masks[:, keep]
        )
        group = Group(batch, meta, frames == 3, True, ("pair",) * 2, (("a",) * 2,) * 2)
        plan = replace(PLAN, swap=True, reversion=False, predicted=True)
        terms = group_loss(
            decoder(config), config, group, plan, Loss(points=0), crossed_points=True,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        return [float(value) for value in terms.figures]

    nowhere = masks.clone()
    nowhere[1, :, 0] = 0
    assert loss(masks) == pytest.approx(loss(nowhere), rel=1e-5)
    nowhere[0, :, 0] = 0
    assert loss(masks) != pytest.approx(loss(nowhere), rel=1e-3)


@pytest.mark.parametrize("config", [PAPER, DENSE], ids=["paper", "dense"])
def test_a_lost_entity_is_to_be_found_again(config: ModelConfig, features: torch.Tensor, masks: torch.Tensor) -> None:
    """The recent frame has one mask fewer; the target's are all wanted."""
    model = decoder(config)
    batch = batch_for(config, features, masks)
    meta = torch.randn(2, 2, 768) if config.instructions.meta == "text" else None
    group = Group(batch, meta, True, True, ("views",) * 2, (("a",) * 2,) * 2)
    figures = group_loss(
        model, config, group, replace(PLAN, predicted=False, lost=True), Loss(points=0), crossed_points=True,
        generator=torch.Generator().manual_seed(0),
    ).figures.tolist()  # fmt: skip
    frames = prepare(model, batch, (1, 2))
    known = lose(batch.masks[:, 1], torch.Generator().manual_seed(0))
    assert known.flatten(2).amax(2).sum(1).tolist() == [1, 1]
    out = predict(model, config, frames, 2, (0, batch.masks[:, 0]), (1, known), meta=meta)
    wanted = batch.masks[:, 2] if config.matching else F.interpolate(batch.masks[:, 2], SMALL, mode="area")
    assert figures[4] == pytest.approx(float(soft_iou(out.logits.flatten(2), wanted.flatten(2)).mean()), abs=1e-5)


def test_padding_is_zero_after_normalisation() -> None:
    seen = []

    class Recorder:
        name, stride, width = "recorder", 14, 3

        def __call__(self, pixels: torch.Tensor, valid: object = None) -> torch.Tensor:
            from segic.backbones.base import IMAGENET_MEAN, IMAGENET_STD, normalise

            mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
            seen.append(normalise(pixels, mean, std, None, torch.float32))
            return F.avg_pool2d(pixels, 14)

    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (1, 2, 28, 28, 3), dtype=np.uint8))
    features, pixels = encode(frames, [((28, 28), (10, 20))], Recorder())  # type: ignore[arg-type]
    assert features.shape == (1, 2, 3, 2, 2)
    assert pixels.shape == (1, 2, 3, 16, 16)
    assert (seen[0][1, :, 10:] == 0).all()
    assert (seen[0][1, :, :, 20:] == 0).all()
    assert (seen[0][0].abs().amax(0) > 0).all()


def test_plans_follow_their_probabilities_and_their_step() -> None:
    changes = ["episode.video_lost=0.12", "episode.video_longer=0.5", "episode.video_most=5"]
    changes.append("episode.video_renewed=0.4")
    recipe = load_recipe("segic-s", changes)
    plans = [plan_step(recipe, step) for step in range(3000)]
    assert plans[7] == plan_step(recipe, 7)
    assert np.mean([p.chain for p in plans]) == pytest.approx(0.82, abs=0.03)
    assert np.mean([p.flip for p in plans]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([p.video_swap for p in plans]) == pytest.approx(0.4, abs=0.03)
    assert np.mean([p.video_reversion for p in plans]) == pytest.approx(0.1, abs=0.03)
    assert np.mean([p.predicted and not p.video_reversion for p in plans]) == pytest.approx(0.6, abs=0.03)
    assert np.mean([p.disturbed for p in plans]) == pytest.approx(0.3, abs=0.03)
    assert np.mean([p.first for p in plans]) == pytest.approx(0.12, abs=0.03)
    assert np.mean([p.lost for p in plans]) == pytest.approx(0.12, abs=0.03)
    assert np.mean([p.renewed for p in plans]) == pytest.approx(0.4, abs=0.03)
    assert np.mean([p.longer > 0 for p in plans]) == pytest.approx(0.5, abs=0.03)
    assert [np.mean([p.longer == n for p in plans]) for n in range(1, 6)] == pytest.approx([0.1] * 5, abs=0.03)
    assert {p.longer for p in plans} == set(range(6))
    assert {p.entities for p in plans if not p.chain} == {1}
    assert np.mean([p.entities == 2 for p in plans if p.chain]) == pytest.approx(0.35, abs=0.04)
