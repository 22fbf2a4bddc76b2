"""What docs/python.md shows is run, with a small model of random weights in the place of the one that it loads."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segic

from .test_session import DENSE, build

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
SNIPPETS = dict(re.findall(r"^## ([^\n]*)\n(?:(?!^## ).)*?```python\n(.*?)```", PAGE.read_text(), re.M | re.S))


@pytest.mark.parametrize("title", SNIPPETS)
def test_what_the_page_shows_works(title, tmp_path, monkeypatch, clips):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(segic, "load_model", lambda *_, **__: build(DENSE))
    frames = clips.numbered(6)
    labels = np.zeros(frames[0].shape[:2], np.uint8)
    labels[8:24, 8:24], labels[20:40, 30:50] = 1, 2
    clips.write("clip.mp4", frames)
    Image.fromarray(labels).save("first.png")
    names = {
        "frames": frames, "first_labels": labels, "corrected": labels, "picture": frames[0], "mask": labels > 0,
        "other_picture": frames[1], "true_labels": [labels] * 4, "found_labels": [labels] * 4,
    }  # fmt: skip
    exec(SNIPPETS[title], names)
    if title.startswith("A clip in files"):
        assert len(list(Path("clip_segic/masks").iterdir())) == names["summary"].frames == len(frames)
    elif title == "Frame by frame":
        assert names["result"].ids == (1,)
    elif title.startswith("Frames of your own"):
        assert len(list(Path("masks").iterdir())) == len(frames)
    elif title == "Pictures from examples":
        assert names["found"].labels.shape == labels.shape
    else:
        assert names["summarise"]({"clip": names["scores"]}).mean == 1


def test_every_section_with_code_is_run():
    assert len(SNIPPETS) == PAGE.read_text().count("```python") == 5
