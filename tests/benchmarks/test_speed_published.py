"""The published procedure: the authors' own outputs, and the same masks as segic's way of working."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segic.backbones.dinov2 import DinoV2, DinoV2Config
from segic.canvas import Canvas
from segic.config import InstructionConfig, MatchingConfig, ModelConfig
from segic.decoder import Decoder
from segic.errors import UsageError
from segic.model import SEGIC
from segic_benchmarks.published import load_clip, published_model, run_published
from segic_benchmarks.published_steps import ReleasedSteps
from segic_vos.frames import Annotation, Frame, FrameResult
from segic_vos.session import VideoSession

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
TINY = DinoV2Config("tiny", width=32, depth=2, heads=2)
RELEASED = ModelConfig(backbone="tiny", size=112)
DENSE = ModelConfig(
    backbone="tiny",
    layers=(1, 2),
    size=112,
    canvas="frame",
    matching=MatchingConfig(topk=3, radius=3, ridge=0.02, ridge_share=0.3, width=24, carry=2),
    residual=True,
    detail=8,
    recent=3,
    instructions=InstructionConfig(meta="constant"),
)
META = torch.linspace(-1, 1, 768)


def tiny(config: ModelConfig, seed: int = 0) -> SEGIC:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = DinoV2(TINY, config.layers)
        torch.nn.init.normal_(backbone.pos_embed, std=0.3)
        decoder = Decoder(config, backbone.width, backbone.width)
        if decoder.detail is not None:
            torch.nn.init.normal_(decoder.detail.leave.weight, std=0.1)
    return SEGIC(config, backbone, decoder, name="tiny")


def moving(size: tuple[int, int], count: int = 6) -> tuple[list[Frame], Annotation]:
    """Two textured rectangles, ids 3 and 7, that move two pixels a frame over a textured ground."""
    noise = np.random.default_rng(0)
    ground = np.kron(noise.integers(0, 256, (size[0] // 8, size[1] // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    ground = np.pad(ground, ((0, size[0] - ground.shape[0]), (0, size[1] - ground.shape[1]), (0, 0)), mode="edge")
    frames, labels = [], np.zeros(size, np.int32)
    for index in range(count):
        pixels = ground.copy()
        for key, (top, colour) in {3: (8, (250, 40, 30)), 7: (size[0] // 2 + 4, (20, 60, 240))}.items():
            box = (slice(top, top + size[0] // 3), slice(10 + 2 * index, 10 + 2 * index + size[1] // 3))
            pixels[box] = pixels[box] // 4 + np.array(colour, np.uint8) // 4 * 3
            if index == 0:
                labels[box] = key
        frames.append(Frame(index, f"{index:05d}", pixels))
    return frames, Annotation(labels, (3, 7))


class Kept:
    """A sink that keeps labels."""

    def __init__(self) -> None:
        self.labels: list[NDArray[np.int32]] = []
        self.closed = False

    def write(self, frame: Frame, result: FrameResult) -> None:
        self.labels.append(result.labels)

    def close(self) -> None:
        self.closed = True


def both(
    model: SEGIC, frames: list[Frame], first: Annotation, meta: torch.Tensor | None
) -> tuple[list[NDArray[np.int32]], list[NDArray[np.int32]]]:
    """Labels of segic's session and of the published procedure."""
    session = VideoSession(model, meta=meta)
    own = [session.step(frame.pixels, first if frame.index == 0 else None).labels for frame in frames]
    kept = Kept()
    timings = run_published(published_model(model, frames[0].size), iter(frames), first, [kept], meta=meta)
    assert kept.closed
    assert timings.frames == len(frames)
    return own, kept.labels


def ious(one: list[NDArray[np.int32]], other: list[NDArray[np.int32]], ids: tuple[int, ...]) -> Iterator[float]:
    for a, b in zip(one, other, strict=True):
        for key in ids:
            union = np.count_nonzero((a == key) | (b == key))
            yield np.count_nonzero((a == key) & (b == key)) / union if union else 1.0


@pytest.mark.parametrize(
    ("config", "size", "meta"),
    [
        pytest.param(RELEASED, (90, 160), META, id="released"),
        # A square frame, so that the model's own canvas is the square one too.
        pytest.param(DENSE, (160, 160), None, id="dense"),
        pytest.param(replace(DENSE, canvas="square"), (90, 160), None, id="dense, padded"),
    ],
)
def test_same_masks(config: ModelConfig, size: tuple[int, int], meta: torch.Tensor | None) -> None:
    frames, first = moving(size)
    own, published = both(tiny(config), frames, first, meta)
    np.testing.assert_array_equal(published[0], first.labels)
    assert min(ious(own, published, first.ids)) > 0.99
    # The comparison says something: some object is followed to the end, and not over the whole frame.
    shown = [np.isin(labels, first.ids).mean() for labels in published[1:]]
    assert min(shown) > 0.01
    assert max(shown) < 0.99


def test_another_model_gives_other_masks() -> None:
    frames, first = moving((90, 160))
    own, _ = both(tiny(RELEASED), frames, first, META)
    _, other = both(tiny(RELEASED, seed=1), frames, first, META)
    assert min(ious(own, other, first.ids)) < 0.9


def test_authors_outputs() -> None:
    """Frames 1 and 2 of the golden video: the steps give the authors' logits and scores."""
    spec = importlib.util.spec_from_file_location("golden_formula", GOLDEN / "golden_formula.py")
    assert spec is not None
    assert spec.loader is not None
    formula = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(formula)
    shapes = json.loads((GOLDEN / "segic_dinov2_l_state_dict_shapes.json").read_text())
    golden = np.load(GOLDEN / "vos_golden.npz")
    decoder = Decoder(ModelConfig(), 1024, 1024)
    decoder.load_state_dict({key: formula.weight(key, shape) for key, shape in shapes.items()}, strict=True)
    model = SEGIC(ModelConfig(), None, decoder)  # type: ignore[arg-type] - the features are given
    steps = ReleasedSteps(model, formula.features("text", 1, 768, 1, 1)[0, :, 0, 0])
    canvas = Canvas((504, 896), (504, 896), (896, 896))
    features = formula.features("vos", 4, 1024, 64, 64)
    pixels = torch.empty(0)
    with torch.no_grad():
        steps.start(features[:1], pixels, canvas, formula.masks("vos", 2, 504, 896) / 255)
        for number in (1, 2):
            logits, scores = steps.step(features[number : number + 1], pixels, canvas)
            np.testing.assert_allclose(logits.numpy(), golden["low_res_logits"][number - 1], atol=2e-5, rtol=0)
            np.testing.assert_allclose(scores, golden["scores"][number - 1].clip(0, 1), atol=2e-5, rtol=0)


def test_whole_clip_on_a_square_in_float32() -> None:
    frames, _ = moving((90, 160), count=3)
    model = published_model(tiny(DENSE), frames[0].size)
    side = max(tiny(DENSE).canvas((90, 160)).padded)
    clip = load_clip(model, frames)
    assert clip.pixels.shape == (3, 3, side, side)
    assert clip.pixels.dtype == torch.float32
    assert clip.pixels[:, :, clip.canvas.picture[0] :].abs().max() == 0


def test_refuses_what_it_cannot_do() -> None:
    model = tiny(RELEASED)
    with pytest.raises(UsageError, match="no frame"):
        load_clip(model, [])
    model.decoder.to(torch.bfloat16)
    with pytest.raises(UsageError, match="float32"):
        published_model(model, (90, 160))


@pytest.mark.bytes
def test_a_backbone_of_bytes_is_refused() -> None:
    model = tiny(DENSE)
    assert isinstance(model.backbone, DinoV2)
    model.backbone.to_int8()
    with pytest.raises(UsageError, match=r"this model without files is torch\.int8"):
        published_model(model, (90, 160))
