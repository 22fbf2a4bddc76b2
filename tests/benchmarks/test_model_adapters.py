"""How benchmarks use the segic model: through features that are computed once."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import segic.images
import segic_vos.prompts
import segic_vos.session
from segic.config import ModelConfig
from segic.images import Example, Prompt, Segmentation
from segic_benchmarks.follow import following
from segic_benchmarks.models import model_settings
from segic_benchmarks.segmenter import ModelSegment, Shot
from segic_vos.frames import Annotation, Frame, FrameResult


class CountingModel:
    """Counts what it encodes; its prompts carry ids and a text feature that is ten times the id."""

    def __init__(self, meta: str) -> None:
        self.config = SimpleNamespace(instructions=SimpleNamespace(meta=meta))
        self.device = torch.device("cpu")
        self.prepared: list[Example] = []
        self.encoded = 0

    def encode(self, images: torch.Tensor) -> list[NDArray[np.uint8]]:
        self.encoded += len(images)
        return list(images.permute(0, 2, 3, 1).numpy())

    def prepare(self, examples: list[Example]) -> Prompt:
        self.prepared += examples
        ids = tuple(int(i) for i in np.unique(examples[0].mask) if i)
        meta = torch.tensor([[10.0 * i] for i in ids]) if self.config.instructions.meta == "text" else None
        return Prompt((f"context {len(self.prepared)}",), ids, meta)  # type: ignore[arg-type]


def shot(id_: int, key: str | None = None) -> Shot:
    labels = np.zeros((4, 6), np.int32)
    labels[1:3, 1:3] = id_
    return Shot(np.zeros((4, 6, 3), np.uint8), labels, f"thing {id_}", key)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Prompt]:
    prompts: list[Prompt] = []

    def segment_encoded(model: object, target: NDArray[np.uint8], prompt: Prompt) -> Segmentation:
        prompts.append(prompt)
        maps = np.zeros((len(prompt.ids), *target.shape[:2]), np.float32)
        return Segmentation(maps > 0, maps, maps[:, 0, 0], maps, prompt.ids)

    monkeypatch.setattr(segic.images, "segment_encoded", segment_encoded)
    return prompts


def test_examples_are_joined_by_id(asked: list[Prompt]) -> None:
    segment = ModelSegment(CountingModel("text"))  # type: ignore[arg-type]
    found = segment(np.zeros((4, 6, 3), np.uint8), [shot(7), shot(2), shot(7)])
    assert found.ids == (2, 7)
    assert asked[0].ids == (2, 7)
    assert asked[0].contexts == ("context 1", "context 2", "context 3")
    assert asked[0].meta is not None
    assert asked[0].meta.tolist() == [[20.0], [70.0]]


def test_what_comes_again_is_encoded_once(asked: list[Prompt]) -> None:
    model = CountingModel("constant")
    segment = ModelSegment(model)  # type: ignore[arg-type]
    target = np.zeros((4, 6, 3), np.uint8)
    for _ in range(3):
        segment(target, [shot(1, "a"), shot(2, "b"), shot(3)])
    assert len(model.prepared) == 2 + 3  # the one without a key each time
    assert model.encoded == 1
    assert asked[0].meta is None
    segment(target.copy(), [shot(1, "a")])
    assert model.encoded == 2


@pytest.mark.parametrize(("meta", "text"), [("text", "thing 1"), ("constant", None)])
def test_names_go_to_models_that_take_text(asked: list[Prompt], meta: str, text: str | None) -> None:
    model = CountingModel(meta)
    ModelSegment(model)(np.zeros((4, 6, 3), np.uint8), [shot(1)])  # type: ignore[arg-type]
    assert model.prepared[0].text == text


def test_following_batches_the_frames_of_each_clip_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def __init__(self, model: object, *, meta: object) -> None:
            self.seen = 0

        def step_encoded(self, encoded: NDArray[np.uint8], annotation: Annotation | None = None) -> FrameResult:
            self.seen += 1
            given = annotation.ids if annotation else ()
            return FrameResult(encoded[..., 0].astype(np.int32) + 100 * self.seen, given)

    monkeypatch.setattr(segic_vos.session, "VideoSession", Session)
    monkeypatch.setattr(segic_vos.prompts, "video_meta", lambda model: None)
    model = CountingModel("constant")
    follow = following(model, batch=3)  # type: ignore[arg-type]
    frames = [Frame(i, f"{i:05d}", np.full((4, 6, 3), i, np.uint8)) for i in range(8)]
    annotation = Annotation(np.ones((4, 6), np.int32), (1,))
    for _ in range(2):
        results = list(follow(frames, lambda frame: annotation if frame.index == 0 else None))
        assert [frame.name for frame, _ in results] == [frame.name for frame in frames]
        assert [int(r.labels[0, 0]) for _, r in results] == [100 * (i + 1) + i for i in range(8)]
        assert [r.ids for _, r in results] == [(1,)] + [()] * 7
    assert model.encoded == 16


def test_settings_name_the_files_by_hash_and_not_the_device(tmp_path: Path) -> None:
    path = tmp_path / "decoder.safetensors"
    path.write_bytes(b"abc")
    model = SimpleNamespace(
        name="segic-s",
        config=ModelConfig(),
        device=torch.device("cpu"),
        precision=torch.float32,
        files={"decoder": path},
    )
    settings = model_settings(model)["model"]  # type: ignore[arg-type]
    assert settings["name"] == "segic-s"
    assert settings["weights"]["decoder"]["sha256"].startswith("ba7816bf")  # of "abc"
    assert "device" not in settings
