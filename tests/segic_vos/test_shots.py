"""A clip with another shot in it, by the shipped model."""

from __future__ import annotations

import numpy as np
import pytest

from segic import load_model
from segic_benchmarks.speed_clip import made_clip
from segic_vos import VideoSession


@pytest.mark.slow
@pytest.mark.wheel
def test_an_object_is_not_in_another_shot_and_is_found_after_it(tmp_path):
    clip = made_clip(tmp_path, objects=1, frames=8, size=(240, 426))
    (key,) = clip.first.ids
    first, *frames = (frame.pixels for frame in clip.frames(8))
    # Other things, of which one is more like the object than the rest: sky above ground, and a disc.
    y, x = np.mgrid[:240, :426]
    other = np.stack([80 + y // 3, 120 + y // 4, 200 - y // 2], axis=2).astype(np.uint8)
    other[(y - 120) ** 2 + (x - 250) ** 2 < 50**2] = (170, 60, 40)
    session = VideoSession(load_model(device="cpu", size=280))
    session.step(first, clip.first)
    found = [int((session.step(frame).labels == key).sum()) for frame in (*frames[:3], other, other, *frames[3:])]
    assert min(found[:3]) > 0
    assert found[3:5] == [0, 0]
    for area, before in zip(found[5:], [found[2]] * 4, strict=True):
        assert 0.7 < area / before < 1.4
