"""The released checkpoints' layout and arithmetic: outputs of the authors' implementation, reproduced.

Weights and inputs are made by formula (tests/data/golden/golden_formula.py), so no checkpoint is needed.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from segic.canvas import Canvas
from segic.config import ModelConfig
from segic.decoder import Decoder
from segic.model import SEGIC, Context, token_centres
from segic_vos.frames import Annotation
from segic_vos.session import VideoSession

DATA = Path(__file__).parents[1] / "data" / "golden"
TOLERANCE = 2e-5  # 1e-4 is asked for; float32 on a CPU is within 3e-6
SQUARE = Canvas((896, 896), (896, 896), (896, 896))
VIDEO = Canvas((480, 854), (504, 896), (896, 896))

_spec = importlib.util.spec_from_file_location("golden_formula", DATA / "golden_formula.py")
formula = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(formula)


@pytest.fixture(scope="module")
def shapes() -> dict[str, list[int]]:
    return json.loads((DATA / "segic_dinov2_l_state_dict_shapes.json").read_text())


@pytest.fixture(scope="module")
def model(shapes) -> SEGIC:
    """The released layout on features that are given: there is no backbone."""
    config = ModelConfig()
    decoder = Decoder(config, 1024, 1024)
    decoder.load_state_dict({key: formula.weight(key, shape) for key, shape in shapes.items()}, strict=True)
    return SEGIC(config, None, decoder)


@pytest.fixture(scope="module")
def video(model):
    """(encoded frames, frame 0's two overlapping masks (2, 504, 896), text feature, golden arrays)."""
    frames = model.encode_features(formula.features("vos", 4, 1024, 64, 64), VIDEO)
    text = formula.features("text", 1, 768, 1, 1)[0, :, 0, 0]
    return frames, formula.masks("vos", 2, 504, 896) / 255, text, np.load(DATA / "vos_golden.npz")


@pytest.fixture(scope="module")
def image(model):
    """(prediction on the target, golden arrays)."""
    target = model.encode_features(formula.features("img", 1, 1024, 64, 64), SQUARE)[0]
    references = model.encode_features(formula.features("ref", 2, 1024, 64, 64), SQUARE)
    masks = formula.masks("ref", 2, 896, 896) / 255
    examples = [model.context(r, masks[i : i + 1], [i + 1]) for i, r in enumerate(references)]
    meta = formula.features("cls", 2, 768, 1, 1)[:, :, 0, 0]
    return model.predict(target, examples, entities=[1, 2], meta=meta), np.load(DATA / "image_golden.npz")


def differing(labels, golden) -> float:
    """The share of pixels with another label: one in 100,000 may lie on a logit of zero."""
    return (np.asarray(labels) != golden).mean()


def test_layout(shapes):
    own = {key: list(tensor.shape) for key, tensor in Decoder(ModelConfig(), 1024, 1024).state_dict().items()}
    assert own == shapes
    assert len(own) == 148
    assert sum(np.prod(shape) for shape in own.values()) == 5_377_764


def test_image_logits_and_scores(image):
    prediction, golden = image
    np.testing.assert_allclose(prediction.logits.numpy(), golden["low_res_logits"], atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(prediction.scores.numpy(), golden["scores"][:, 0], atol=TOLERANCE, rtol=0)


def test_image_upsampled(model, image):
    prediction, golden = image
    rows = model.upsample(prediction.logits, SQUARE)[:, ::64].numpy()
    np.testing.assert_allclose(rows, golden["upsampled_logits_rows"], atol=TOLERANCE, rtol=0)


def test_video_by_stages(model, video):
    frames, masks, text, golden = video
    first = model.context(frames[0], masks, [1, 2])
    recent: list[Context] = []
    for number, frame in enumerate(frames[1:], start=1):
        out = model.predict(frame, [first], recent, entities=[1, 2], meta=text, video=True)
        logits = model.upsample(out.logits, VIDEO)
        labels = torch.where(logits.amax(0) > 0, logits.argmax(0) + 1, 0)
        np.testing.assert_allclose(out.logits.numpy(), golden["low_res_logits"][number - 1], atol=TOLERANCE, rtol=0)
        np.testing.assert_allclose(out.scores.numpy(), golden["scores"][number - 1], atol=TOLERANCE, rtol=0)
        assert differing(labels, golden["labels"][number]) < 1e-5
        recent = [model.remember(frame, out.logits, [1, 2])]


def test_video_by_session(model, video, monkeypatch):
    """The session gives the golden labels and scores too.

    The golden masks of frame 0 overlap, which labels cannot say, so the example made of them is put in the place of the
    one that the session makes of its first annotation.
    """
    frames, masks, text, golden = video
    session = VideoSession(model, meta=text)
    labels = np.zeros(VIDEO.frame, np.int32)
    labels[0, :2] = 1, 2
    with monkeypatch.context() as patch:
        patch.setattr(session, "_example", lambda image, _labels, ids: model.context(image, masks, ids))
        given = session.step_encoded(frames[0], Annotation(labels, (1, 2)))
    assert given.given
    np.testing.assert_array_equal(given.labels, labels)
    for number, frame in enumerate(frames[1:], start=1):
        result = session.step_encoded(frame)
        assert result.ids == (1, 2)
        assert differing(result.labels, golden["labels"][number]) < 1e-5
        expected = golden["scores"][number - 1].clip(0, 1)
        np.testing.assert_allclose([result.scores[1], result.scores[2]], expected, atol=TOLERANCE, rtol=0)


def test_remembered_as_released(model, video):
    """The prediction is fed back as the released code does: upsampled to the canvas, > 0, bilinear to tokens, > 0.5."""
    frames, _, _, golden = video
    logits = torch.from_numpy(golden["low_res_logits"][0])
    full = torch.nn.functional.interpolate(logits[None], (896, 896), mode="bilinear")[0] > 0
    small = torch.nn.functional.interpolate(full[None].float(), (64, 64), mode="bilinear")[0] > 0.5
    expected = torch.stack([frames[1].features[0][:, mask].mean(1) for mask in small])
    remembered = model.remember(frames[1], logits, [1, 2])
    torch.testing.assert_close(remembered.visual, expected, atol=1e-5, rtol=0)


def test_frame_masks_reach_the_same_tokens(model, video):
    """Masks of the frame's own size come to the same tokens as masks at the resized frame's."""
    frames, masks, _, _ = video
    tokens = token_centres(Canvas((504, 896), (504, 896), (896, 896)).place(masks[None])[0], (64, 64))
    blocks = torch.nn.functional.interpolate(tokens[None, :, :36], (504, 896), mode="nearest")
    own_size = torch.nn.functional.interpolate(blocks, VIDEO.frame, mode="nearest")[0]
    found = model.context(frames[0], own_size, [1, 2])
    torch.testing.assert_close(found.visual, model.context(frames[0], masks, [1, 2]).visual, atol=0, rtol=0)
