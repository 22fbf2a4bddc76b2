"""The sample clip: rendered from made-up photographs here, so that the test needs no other package."""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

from segic.errors import UsageError
from segic_vos import demo
from segic_vos.demo_clip import DemoClip, score_demo, write_demo
from segic_vos.frames import Frame, FrameResult
from segic_vos.sinks import MaskWriter

SIZES = {"motorcycle_left.png": (500, 741), "astronaut.png": (512, 512), "coffee.png": (400, 600)}


@pytest.fixture
def photographs(monkeypatch):
    def photograph(name):
        return np.random.default_rng(len(name)).uniform(0, 255, (*SIZES[name], 3)).astype(np.float32)

    monkeypatch.setattr(demo, "_photograph", photograph)


def test_masks_tell_who_hides_whom(photographs):
    scene = demo.load_scene()
    areas = {}
    for frame, labels in demo.render(scene):
        if frame.index % 5 == 0:
            assert frame.pixels.shape == (demo.HEIGHT, demo.WIDTH, 3)
            assert frame.pixels.dtype == np.uint8
            areas[frame.index] = [int((labels == key).sum()) for key in demo.OBJECTS]
    first = areas[0]
    assert min(first) > 3000
    cup = [area[2] for area in areas.values()]
    # The astronaut hides most of the cup for a while; it comes back larger.
    assert min(cup) < cup[0] * 0.7
    assert cup[-1] > cup[0] * 2


def test_rendering_is_repeatable(photographs):
    scene = demo.load_scene()
    once, again = (list(demo.render(scene, frames=2)) for _ in range(2))
    assert all(np.array_equal(a.pixels, b.pixels) for (a, _), (b, _) in zip(once, again, strict=True))
    assert not np.array_equal(once[0][0].pixels, once[1][0].pixels)


def test_files_and_score(photographs, tmp_path, monkeypatch):
    render = demo.render
    monkeypatch.setattr("segic_vos.demo_clip.render", lambda scene: render(scene, frames=4))
    clip = DemoClip(tmp_path / "demo")
    write_demo(clip)
    with av.open(str(clip.video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4
    masks = sorted(clip.truth.glob("*.png"))
    assert len(masks) == 4
    assert clip.first_mask.read_bytes() == masks[0].read_bytes()
    assert Image.open(clip.first_mask).mode == "P"
    writer = MaskWriter(clip.result / "masks")
    for index, path in enumerate(masks):
        labels = np.asarray(Image.open(path)).astype(np.int32)
        if index == 1:
            labels[labels == 3] = 0
        frame = Frame(index, path.stem, np.zeros((*labels.shape, 3), np.uint8))
        writer.write(frame, FrameResult(labels, (1, 2, 3)))
    # The first and the last frame do not count: of the other two the cup is missing in one.
    assert score_demo(clip) == {"motorcycle": 1.0, "astronaut": 1.0, "cup": 0.5}


def test_missing_photographs_are_explained(monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'segic\[demo\]'"):
        demo.load_scene()
