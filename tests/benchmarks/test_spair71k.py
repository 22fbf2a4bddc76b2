"""SPair-71k: PCK by hand, and matching with features that are known."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from segic.canvas import Canvas
from segic.errors import UsageError
from segic_benchmarks.matching import feature_matching
from segic_benchmarks.shards import Shard
from segic_benchmarks.spair71k import spair71k


@pytest.fixture
def spair(tmp_path: Path) -> Path:
    root = tmp_path / "SPair-71k"
    for category, points in (("cat", [[10, 10], [40, 20]]), ("bus", [[30, 30]])):
        (root / "JPEGImages" / category).mkdir(parents=True)
        (root / "PairAnnotation/test").mkdir(parents=True, exist_ok=True)
        for name in ("a.jpg", "b.jpg"):
            Image.new("RGB", (60, 50)).save(root / "JPEGImages" / category / name)
        pair = {
            "category": category,
            "src_imname": "a.jpg",
            "trg_imname": "b.jpg",
            "src_kps": points,
            "trg_kps": [[x + 4, y] for x, y in points],
            "trg_bndbox": [5, 5, 55, 45],  # the larger side is 50: right within 5 pixels
        }
        (root / f"PairAnnotation/test/0-a-b-{category}.json").write_text(json.dumps(pair))
    return root


def shifted(by: float) -> object:
    def match(source: object, target: object, points: NDArray[np.float64]) -> NDArray[np.float64]:
        return points + np.array([by, 0])

    return match


@pytest.mark.parametrize(("by", "right"), [(4, 1.0), (9, 1.0), (9.01, 0.0), (-1.5, 0.0)])
def test_pck(spair: Path, tmp_path: Path, by: float, right: float) -> None:
    result = spair71k(spair).run(shifted(by), tmp_path / "out", {})  # type: ignore[arg-type]
    assert result is not None
    assert result.figures == {"PCK@0.1": right, "PCK@0.1 by pair": right}


def test_pck_by_point_and_by_pair(spair: Path, tmp_path: Path) -> None:
    def match(source: object, target: object, points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(points[:, :1] > 15, points + np.array([4, 0]), 0)

    result = spair71k(spair).run(match, tmp_path / "out", {})  # type: ignore[arg-type]
    assert result is not None
    assert result.value == pytest.approx(2 / 3)
    assert result.figures["PCK@0.1 by pair"] == pytest.approx(3 / 4)
    assert result.rows == {"bus": {"PCK@0.1": 1.0}, "cat": {"PCK@0.1": 0.5}}


def test_shards(spair: Path, tmp_path: Path) -> None:
    whole = spair71k(spair).run(shifted(9), tmp_path / "whole", {})  # type: ignore[arg-type]
    parts = [
        spair71k(spair).run(shifted(9), tmp_path / "parts", {}, shard=Shard(i, 2))  # type: ignore[arg-type]
        for i in (1, 0)
    ]
    assert parts == [None, whole]


def test_layouts_that_are_not(spair: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"looked for .*PairAnnotation/trn; found JPEGImages/, PairAnnotation/"):
        spair71k(spair, split="trn")
    path = spair / "PairAnnotation/test/0-a-b-cat.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "trg_kps": [[1, 2]]}))
    with pytest.raises(UsageError, match=r"cat\.json has 2 key points in the source and 1 in the target"):
        spair71k(spair)
    path.write_text("{}")
    with pytest.raises(UsageError, match=r"cat\.json is not a pair of SPair-71k"):
        spair71k(spair)


class Places:
    """A backbone whose features are the mean colour under each token."""

    def __init__(self, square: bool) -> None:
        self.square = square

    def encode(self, images: torch.Tensor) -> list[SimpleNamespace]:
        frame = images.shape[-2], images.shape[-1]
        canvas = Canvas.square(frame, 64) if self.square else Canvas.own_aspect(frame, 48, 8)
        pixels = canvas.place(images)
        features = torch.nn.functional.avg_pool2d(pixels, 8) + 1e-3
        return [SimpleNamespace(features=features, canvas=canvas, grid=tuple(features.shape[-2:]))]


@pytest.mark.parametrize("square", [True, False])
def test_matching_follows_what_moved(square: bool) -> None:
    # Blocks of different hues on black; in the target each lies elsewhere.
    hues = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]
    source, target = np.zeros((96, 128, 3), np.uint8), np.zeros((96, 128, 3), np.uint8)
    places = [((8, 8), (56, 80)), ((8, 80), (56, 8)), ((56, 40), (8, 48))]
    for hue, ((y, x), (v, u)) in zip(hues, places, strict=True):
        source[y : y + 32, x : x + 32] = hue
        target[v : v + 32, u : u + 32] = hue
    points = np.array([[x + 16, y + 16] for (y, x), _ in places], float)
    wanted = np.array([[u + 16, v + 16] for _, (v, u) in places], float)
    found = feature_matching(Places(square))(source, target, points)  # type: ignore[arg-type]
    # Within the block that has the hue, or on a token of up to 16 pixels that its edge runs through.
    assert np.abs(found - wanted).max() <= 16 + 8
