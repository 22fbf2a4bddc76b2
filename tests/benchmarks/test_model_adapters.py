"""How benchmarks use the segic model: through features that are computed once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import segic.images
import segic_vos.prompts
import segic_vos.session
from segic.config import InstructionConfig, ModelConfig
from segic.errors import UsageError
from segic.images import Prompt
from segic_benchmarks import segmenter
from segic_benchmarks.follow import following
from segic_benchmarks.models import model_settings
from segic_benchmarks.segmenter import ModelSegment, Picture, Shot
from segic_vos.frames import Annotation, Frame, FrameResult


@dataclass(frozen=True)
class Seen:
    """What the model below makes of a picture or an example."""

    pixels: torch.Tensor
    canvas: SimpleNamespace
    entities: tuple[int, ...] = ()


class CountingModel:
    """Counts what it encodes."""

    def __init__(self, meta: str) -> None:
        self.config = SimpleNamespace(instructions=InstructionConfig(meta=meta, class_text="a {}!"))
        self.device = torch.device("cpu")
        self.encoded = 0

    def encode(self, images: torch.Tensor) -> list[Seen]:
        self.encoded += len(images)
        return [Seen(image, SimpleNamespace(frame=tuple(image.shape[1:]))) for image in images]

    def context(self, image: Seen, masks: torch.Tensor, entities: Sequence[int]) -> Seen:
        return replace(image, pixels=image.pixels * masks, entities=tuple(entities))


def picture(name: str, size: tuple[int, int] = (4, 6)) -> Picture:
    return Picture(name, lambda: np.full((*size, 3), ord(name[0]), np.uint8))


def shot(name: str, category: str, *, pixels: int = 4) -> Shot:
    mask = np.zeros((4, 6), np.bool_)
    mask[1, :pixels] = True
    return Shot(picture(name), category, lambda: mask)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Seen, Prompt]]:
    """What the model is asked: targets and prompts. All its answers are zeros."""
    calls: list[tuple[Seen, Prompt]] = []

    def segment_encoded(model: object, target: Seen, prompt: Prompt) -> SimpleNamespace:
        calls.append((target, prompt))
        return SimpleNamespace(logits=np.zeros((len(prompt.ids), *target.canvas.frame), np.float32))

    monkeypatch.setattr(segic.images, "segment_encoded", segment_encoded)
    return calls


def test_things_asked_for_are_numbered_in_order(asked: list[tuple[Seen, Prompt]]) -> None:
    segment = ModelSegment(CountingModel("constant"))  # type: ignore[arg-type]
    segment(picture("t"), [[shot("a", "cat"), shot("b", "cat")], [shot("c", "dog")]])
    segment(picture("u"), [[shot("c", "dog")]])  # the same example under another number
    (target, first), (_, second) = asked
    assert int(target.pixels[0, 0, 0]) == ord("t")
    assert [(int(c.pixels.max()), c.entities) for c in first.contexts] == [
        (ord("a"), (1,)),
        (ord("b"), (1,)),
        (ord("c"), (2,)),
    ]
    assert (first.ids, first.meta) == ((1, 2), None)
    assert [(int(c.pixels.max()), c.entities) for c in second.contexts] == [(ord("c"), (1,))]


def test_what_comes_again_is_encoded_once(asked: list[tuple[Seen, Prompt]], monkeypatch: pytest.MonkeyPatch) -> None:
    model = CountingModel("constant")
    segment = ModelSegment(model)  # type: ignore[arg-type]
    for _ in range(3):
        for target in "tab":
            segment(picture(target), [[shot("a", "cat")], [shot("b", "dog")], [shot("a", "dog")]])
    assert model.encoded == 3  # targets and examples alike
    monkeypatch.setattr(segmenter, "_LIMIT", 100)  # bytes: room for one picture of 72
    model, answers = CountingModel("constant"), len(asked)
    segment = ModelSegment(model)  # type: ignore[arg-type]
    for _ in range(3):
        segment(picture("t"), [[shot("a", "cat")], [shot("b", "dog")]])
    # The first one, "a", is kept: its encoding, and its example. "b" and "t" are made anew each time.
    assert model.encoded == 1 + 2 * 3
    assert [len(prompt.contexts) for _, prompt in asked[answers:]] == [2, 2, 2]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Shot(picture("a"), "cat", lambda: np.ones((6, 4), np.bool_)), "labels of a are 4x6 pixels and the image 6x4"),
        (shot("a", "cat", pixels=0), "a is an example of cat and its mask shows nothing of it"),
    ],
)
def test_examples_that_cannot_be_used_are_named(wrong: Shot, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ModelSegment(CountingModel("constant"))(picture("t"), [[wrong]])  # type: ignore[arg-type]


def test_names_go_to_models_that_take_text(asked: list[tuple[Seen, Prompt]]) -> None:
    prompts: list[str] = []

    def text(words: Sequence[str]) -> torch.Tensor:
        prompts.extend(words)
        return torch.arange(float(len(words)))[:, None]

    segment = ModelSegment(CountingModel("text"), text)  # type: ignore[arg-type]
    segment(picture("t"), [[shot("a", "hot_dog")], [shot("b", "cat")]])
    assert prompts == ["a hot dog!", "a cat!"]
    meta = asked[0][1].meta
    assert meta is not None
    assert meta.tolist() == [[0.0], [1.0]]


def test_following_batches_the_frames_of_each_clip_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def __init__(self, model: object, *, meta: object) -> None:
            self.seen = 0

        def step_encoded(self, encoded: Seen, annotation: Annotation | None = None) -> FrameResult:
            self.seen += 1
            given = annotation.ids if annotation else ()
            return FrameResult(encoded.pixels[0].numpy().astype(np.int32) + 100 * self.seen, given)

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
