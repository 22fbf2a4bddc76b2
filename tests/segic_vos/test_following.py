"""One frame of a video; on a GPU nothing of it may wait, or it could not be recorded."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from segic.backbones.dinov2 import DinoV2, DinoV2Config
from segic.config import InstructionConfig, MatchingConfig, ModelConfig
from segic.decoder import Decoder
from segic.model import SEGIC, Encoded, owners
from segic_vos.following import follow
from segic_vos.frames import Annotation
from segic_vos.session import State, VideoSession

SIZE = (60, 107)
OPTIONS = {
    "paper": ModelConfig(backbone="tiny", size=112, instructions=InstructionConfig(meta="constant")),
    "dense": ModelConfig(
        backbone="tiny",
        size=112,
        canvas="frame",
        matching=MatchingConfig(ridge=0.2, renew=2, width=16, carry=2),
        residual=True,
        detail=8,
        instructions=InstructionConfig(meta="constant"),
    ),
}


def build(config: ModelConfig, device: str) -> SEGIC:
    torch.manual_seed(0)
    backbone = DinoV2(DinoV2Config("tiny", width=32, depth=2, heads=2))
    decoder = Decoder(config, 32, 32)
    decoder.mask_decoder.iou_prediction_head.layers[2].bias.data.fill_(0.8)  # linear models are renewed when sure
    return SEGIC(config, backbone.to(device=torch.device(device), dtype=torch.float32), decoder.to(device))


def clip(count: int) -> list[np.ndarray]:
    """A texture with two blocks of others that move apart."""
    texture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    blocks = np.random.default_rng(1).integers(0, 256, (2, 20, 25, 3), dtype=np.uint8)
    frames = []
    for number in range(count):
        frame = texture.copy()
        frame[10:30, 30 - number : 55 - number], frame[35:55, 50 + number : 75 + number] = blocks
        frames.append(frame)
    return frames


def given() -> Annotation:
    labels = np.zeros(SIZE, np.int32)
    labels[10:30, 30:55], labels[35:55, 50:75] = 3, 8
    return Annotation(labels, (3, 8))


def third_frame(model: SEGIC) -> tuple[Encoded, State]:
    """Of the clip, and what a session knows before it."""
    session = VideoSession(model)
    for frame, masks in zip(clip(2), (given(), None), strict=True):
        session.step(frame, masks)
    return session.encode(clip(3)[2]), session.state


def test_owners_by_id():
    logits = torch.tensor([[[-1.0, 2.0, 0.0, 3.0]], [[-2.0, 1.0, -1.0, 4.0]]])
    labels = owners(logits, (40, 300))
    assert labels.tolist() == [[0, 40, 0, 300]]
    assert labels.dtype == torch.int32


@hypothesis.given(st.lists(st.lists(st.integers(-2, 3), min_size=6, max_size=6), min_size=1, max_size=5))
def test_resolve_gives_each_pixel_to_its_owner(values):
    """Equal logits are many here: the first object has such a pixel."""
    logits = torch.tensor(values, dtype=torch.float32).view(-1, 2, 3)
    ids = tuple(7 * i + 3 for i in range(len(logits)))
    owner = torch.where(logits.amax(0) > 0, logits.argmax(0) + 1, 0)
    assert torch.equal(owners(logits), owner.int())
    assert torch.equal(owners(logits, ids), torch.tensor((0, *ids), dtype=torch.int32)[owner])


@pytest.mark.parametrize("name", OPTIONS)
def test_some_of_the_objects_are_as_among_all(name):
    model = build(OPTIONS[name], "cpu")
    image, state = third_frame(model)
    both = follow(model, image, state.given, state.recent, (3, 8), (3, 8), soft=True)
    one = follow(model, image, state.given, state.recent, (3, 8), (8,), soft=True)
    assert one.frame.entities == (8,)
    assert one.soft.shape == (1, *SIZE)
    torch.testing.assert_close(one.soft, both.soft[1:])
    torch.testing.assert_close(one.scores, both.scores[1:])


@pytest.mark.gpu
@pytest.mark.parametrize("name", OPTIONS)
def test_nothing_waits_for_a_gpu(name):
    model = build(OPTIONS[name], "cuda")
    image, state = third_frame(model)
    arguments = model, image, state.given, state.recent, (3, 8), (3, 8), None, True
    follow(*arguments)  # small lists of numbers are sent once
    torch.cuda.set_sync_debug_mode("error")
    try:
        follow(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("name", OPTIONS)
def test_recorded_frames_are_as_others(name):
    """Also after masks are given anew, for one object more, and with linear models that are renewed."""
    model = build(OPTIONS[name], "cuda")
    plain, recorded = VideoSession(model, probabilities=True), VideoSession(model, probabilities=True)
    plain._recorded = None
    more = np.where(given().labels == 8, 8, 0).astype(np.int32)
    more[5:9, 80:100] = 11
    masks = {0: given(), 12: Annotation(more, (8, 11))}
    made = []
    for number, frame in enumerate(clip(20)):
        if number in masks:
            made.append(any(recorded._recorded._recordings.values()))
        expected, found = (session.step(frame, masks.get(number)) for session in (plain, recorded))
        np.testing.assert_array_equal(found.labels, expected.labels)
        assert found.scores == pytest.approx(expected.scores, abs=1e-3)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=2e-2)
    steps, renewals = recorded._recorded._recordings, recorded._renew._recordings
    assert [*made, any(steps.values())] == [False, True, True]  # masks given anew put an end to a recording
    assert not any(recording is False for recording in (*steps.values(), *renewals.values()))
    assert any(renewals.values()) == (name == "dense")


@pytest.mark.gpu
@pytest.mark.parametrize("name", OPTIONS)
def test_a_gpu_gives_what_a_cpu_gives(name):
    sessions = [VideoSession(build(OPTIONS[name], device), probabilities=True) for device in ("cpu", "cuda")]
    for number, frame in enumerate(clip(8)):
        expected, found = (session.step(frame, given() if number == 0 else None) for session in sessions)
        assert (found.labels == expected.labels).mean() > 0.99
        assert np.abs(found.probabilities.astype(float) - expected.probabilities).mean() < 0.01
