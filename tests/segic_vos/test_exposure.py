"""A clip that fades out and in again, by the shipped model."""

from __future__ import annotations

import numpy as np
import pytest

from segic import load_model
from segic_benchmarks.speed_clip import made_clip
from segic_vos import VideoSession

LIGHT = (1.0, 0.6, 0.3, 0.15, 0.08, 0.08, 0.3, 0.6)  # of each frame


@pytest.mark.slow
@pytest.mark.wheel
def test_an_object_is_followed_through_the_dark(tmp_path):
    clip = made_clip(tmp_path, objects=1, frames=len(LIGHT), size=(240, 426))
    (key,) = clip.first.ids
    frames = [frame.pixels for frame in clip.frames(len(LIGHT))]
    model = load_model(device="cpu", size=280)

    def followed(pictures):
        session = VideoSession(model)
        results = [session.step(pixels, None if n else clip.first) for n, pixels in enumerate(pictures)]
        return [result.labels == key for result in results]

    by_day = followed(frames)
    faded = followed([(pixels * light).astype(np.uint8) for pixels, light in zip(frames, LIGHT, strict=True)])
    for one, other in zip(by_day, faded, strict=True):
        assert (one & other).sum() > 0.9 * (one | other).sum() > 0
