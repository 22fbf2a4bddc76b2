"""A model finds the same whatever its caller computes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from segic.images import Example
from segic.model import SEGIC
from segic_vos.frames import annotation
from segic_vos.session import VideoSession

RNG = np.random.default_rng(0)
FRAMES = [RNG.integers(0, 256, (90, 160, 3), np.uint8) for _ in range(4)]
LABELS = np.zeros((90, 160), np.int32)
LABELS[20:60, 30:80], LABELS[50:80, 100:140] = 1, 2


@contextmanager
def default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def found(model: SEGIC, foveated: bool) -> list[np.ndarray]:
    session = VideoSession(model, foveated=foveated)
    video = [session.step(frame, None if k else annotation(LABELS)).labels for k, frame in enumerate(FRAMES)]
    return [*video, model.segment(FRAMES[1], [Example(FRAMES[0], LABELS)]).logits]


@pytest.mark.parametrize("foveated", [False, True])
@pytest.mark.parametrize(
    "callers",
    [
        pytest.param(lambda: default(torch.float64), id="default float64"),
        pytest.param(lambda: default(torch.bfloat16), id="default bfloat16"),
        pytest.param(lambda: torch.autocast("cpu", torch.bfloat16), id="autocast bfloat16"),
        pytest.param(lambda: torch.autocast("cpu", torch.float16), id="autocast float16"),
        pytest.param(torch.enable_grad, id="with gradients"),
    ],
)
def test_callers_precision_changes_nothing(dense_model: SEGIC, foveated: bool, callers) -> None:
    model = dense_model.at_size(224)
    expected = found(model, foveated)
    with callers():
        meanwhile = found(model, foveated)
    for results in (meanwhile, found(model, foveated)):  # and leaves nothing behind
        for one, other in zip(expected, results, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
