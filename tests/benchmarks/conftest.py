"""Small datasets in published layouts, and methods whose scores are known."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from segic_benchmarks.masks import write_labels
from segic_benchmarks.segmenter import Picture, Shot
from segic_vos.frames import Annotation, FrameResult

SHAPE = (40, 48)


def moving_squares(frame: int, ids: tuple[int, ...]) -> NDArray[np.int32]:
    """Each object is an 8-pixel square in its own row band that moves one pixel a frame."""
    labels = np.zeros(SHAPE, np.int32)
    for row, id_ in enumerate(ids):
        labels[2 + 12 * row : 10 + 12 * row, 4 + frame : 12 + frame] = id_
    return labels


def add_sequence(root: Path, name: str, ids: tuple[int, ...], frames: int = 5, resolution: str = "480p") -> None:
    masks, images = root / "Annotations" / resolution / name, root / "JPEGImages" / resolution / name
    masks.mkdir(parents=True)
    images.mkdir(parents=True)
    for frame in range(frames):
        labels = moving_squares(frame, ids)
        write_labels(masks / f"{frame:05d}.png", labels)
        # The picture shows the ids as grey levels, so a method that reads it knows the right answer.
        pixels = np.repeat(labels[..., None], 3, axis=2).astype(np.uint8)
        Image.fromarray(pixels).save(images / f"{frame:05d}.png")


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Sequences "one" (object 1), "two" (objects 1 and 2) and "white" (0/255), split val without "white"."""
    root = tmp_path / "DAVIS"
    add_sequence(root, "one", (1,))
    add_sequence(root, "two", (1, 2))
    add_sequence(root, "white", (255,))
    for year in ("2016", "2017"):
        (root / "ImageSets" / year).mkdir(parents=True)
        (root / "ImageSets" / year / "val.txt").write_text("one\ntwo\n")
    (root / "ImageSets" / "all.txt").write_text("one\ntwo\nwhite\n")
    return root


class Copying:
    """A method that answers with the first frame's mask, always."""

    def __init__(self) -> None:
        self.given: Annotation | None = None

    def step(self, frame_pixels: NDArray[np.uint8], annotation: Annotation | None = None) -> FrameResult:
        self.given = annotation or self.given
        assert self.given is not None
        return FrameResult(self.given.labels, self.given.ids)


class Knowing:
    """A method that reads the right answer from the picture."""

    def step(self, frame_pixels: NDArray[np.uint8], annotation: Annotation | None = None) -> FrameResult:
        return FrameResult(frame_pixels[..., 0].astype(np.int32), ())


@pytest.fixture
def copying() -> Callable[[], Copying]:
    return Copying


@pytest.fixture
def knowing() -> Callable[[], Knowing]:
    return Knowing


# --- images: each class has a colour of its own, so that what a method finds can be known beforehand ------------------


def class_colour(index: int) -> tuple[int, int, int]:
    """Far from grey, different for the first few hundred classes."""
    return (10 + 7 * index % 240, 255 - 11 * index % 250, 40 + index // 7 % 200)


class ByColour:
    """Finds the pixels whose colour is an example's mean under its mask. right: share of the width that it looks at."""

    def __init__(self, right: float = 1.0) -> None:
        self.right = right
        self.calls: list[int] = []

    def __call__(self, target: Picture, asked: Sequence[Sequence[Shot]]) -> NDArray[np.float32]:
        self.calls.append(sum(map(len, asked)))
        pixels = target.read()
        logits = np.full((len(asked), *pixels.shape[:2]), -1, np.float32)
        for row, shots in enumerate(asked):
            colours = [shot.picture.read()[shot.mask()].mean(axis=0) for shot in shots]
            logits[row][np.abs(pixels - colours[0]).sum(axis=2) < 1] = 1
        logits[:, :, int(pixels.shape[1] * self.right) :] = -1
        return logits


@pytest.fixture
def by_colour() -> type[ByColour]:
    return ByColour


@pytest.fixture
def colour_of() -> Callable[[int], tuple[int, int, int]]:
    return class_colour


@pytest.fixture
def coco(tmp_path: Path) -> Callable[..., Path]:
    """Makes a dataset in COCO's format; image i shows classes i % n (an 8x8 box) and (i + 1) % n (a 4x8 one)."""

    def make(file: str, classes: int, images: int, *, folder: str = "images", lvis: bool = False) -> Path:
        root = tmp_path / "coco"
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        entries, annotations = [], []
        for i in range(images):
            pixels = np.zeros((24, 32, 3), np.uint8)
            for place, index in enumerate((i % classes, (i + 1) % classes)):
                top, left, height, width = (4, 2, 8, 8) if place == 0 else (14, 20, 8, 4)
                pixels[top : top + height, left : left + width] = class_colour(index)
                corners = [left, top, left + width, top, left + width, top + height, left, top + height]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": i + 1,
                        "category_id": 10 * (index + 1),
                        "iscrowd": 0,
                        "area": height * width,
                        "segmentation": [corners],
                    }
                )
            name = f"{i:012d}.png"
            Image.fromarray(pixels).save(root / folder / name)
            entry: dict[str, object] = {"id": i + 1, "height": 24, "width": 32}
            entry |= {"coco_url": f"http://images/{folder}/{name}"} if lvis else {"file_name": name}
            entries.append(entry)
        categories = [{"id": 10 * (i + 1), "name": f"thing {i}"} for i in range(classes)]
        data = {"images": entries, "annotations": annotations, "categories": categories}
        (root / file).write_text(json.dumps(data))
        return root

    return make
