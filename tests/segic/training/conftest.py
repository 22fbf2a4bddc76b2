"""A tiny model and tiny data sets: coloured discs on textured ground, which a random backbone can tell apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from segic.backbones.dinov2 import CONFIGS, DinoV2, DinoV2Config
from segic.config import ModelConfig
from segic.training.recipe import Recipe
from segic.training.recipe_file import parse_recipe
from segic.training.run_folder import RunFolder
from segic.training.session import Hooks, Request, train

COLOURS = ((220, 40, 40), (40, 200, 60), (50, 80, 230))


def random_backbone(config: ModelConfig) -> DinoV2:
    """Width 32, depth 2, random weights from a fixed seed, whatever the recipe's backbone."""
    torch.manual_seed(3)
    backbone = DinoV2(DinoV2Config("dinov2-tiny", 32, 2, 2))
    for parameter in backbone.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return backbone


@pytest.fixture
def open_backbone() -> Callable[[ModelConfig], DinoV2]:
    return random_backbone


@pytest.fixture(autouse=True)
def tiny_backbone_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIGS, "dinov2-tiny", DinoV2Config("dinov2-tiny", 32, 2, 2))  # type: ignore[arg-type]


def draw(rng: np.random.Generator, count: int, side: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """A picture with `count` discs, and labels 1..count."""
    picture = rng.integers(90, 130, (side, side, 3)).astype(np.uint8)
    labels = np.zeros((side, side), np.uint8)
    for number in range(1, count + 1):
        x, y = (int(v) for v in rng.integers(25, side - 25, 2))
        cv2.circle(picture, (x, y), 22, COLOURS[number - 1], -1)
        cv2.circle(labels, (x, y), 22, number, -1)
    return picture, labels


def write_folder(root: Path, count: int = 8, objects: int = 2) -> Path:
    """The "folder" layout."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for i in range(count):
        picture, labels = draw(rng, objects)
        cv2.imwrite(str(root / "images" / f"{i}.png"), picture[..., ::-1])
        cv2.imwrite(str(root / "masks" / f"{i}.png"), labels)
    return root


def write_coco(root: Path, count: int = 8, **image_fields: Any) -> Path:
    """COCO's format: `count` images with ids 1.., a square of class "red" on all and "green" on those but the first."""
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        picture = np.full((100, 120, 3), 100, np.uint8)
        for category, x in ((1, 10), (2, 60)):
            if category == 2 and number == 1:
                continue
            picture[20:60, x : x + 40] = COLOURS[category - 1]
            ring = [x, 20, x + 40, 20, x + 40, 60, x, 60]
            annotations.append(
                {
                    "id": len(annotations), "image_id": number, "category_id": category, "iscrowd": 0, "area": 1600,
                    "segmentation": [ring],
                }
            )  # fmt: skip
        cv2.imwrite(str(root / "images" / f"{number}.png"), picture[..., ::-1])
        images.append({"id": number, "file_name": f"{number}.png", "width": 120, "height": 100, **image_fields})
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}, {"id": 3, "name": "blue"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(document))
    return root


def recipe_values(**changes: Any) -> dict[str, Any]:
    """A small recipe's values; keys with dots reach into its tables."""
    values: dict[str, Any] = {
        "name": "test",
        "batch": 2,
        "checkpoint_every": 4,
        "precision": "float32",
        "model": {
            "preset": "segic-s",
            "backbone": "dinov2-tiny",
            "layers": [2],
            "detail": 4,
            "matching": {"ridge": 0.02, "width": 0},
        },
        "data": {
            "size": 112,
            "entities": 2,
            "least_area": 16,
            "sets": {"folder": {"kind": "instance", "layout": "folder", "path": "."}},
        },
        "episode": {"negatives": 1.0, "crossed_points": True},
        "loss": {"points": 0},
        "optimizer": {"lr": 3e-4, "ema": 0.9},
        "schedule": {"steps": 4, "shape": "constant"},
    }
    for key, value in changes.items():
        *tables, last = key.replace("__", ".").split(".")
        table = values
        for name in tables:
            table = table.setdefault(name, {})
        table[last] = value
    return values


@pytest.fixture
def make_recipe() -> Callable[..., Recipe]:
    return lambda **changes: parse_recipe(recipe_values(**changes), "test")


@pytest.fixture
def folder_data(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data")


@pytest.fixture
def coco_data(tmp_path: Path) -> Path:
    write_coco(tmp_path / "data" / "coco")
    return tmp_path / "data"


@pytest.fixture
def fit(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> Callable[..., RunFolder]:
    """Trains on tmp_path/data into tmp_path/OUT with the tiny backbone; `recipe` or the recipe's changes."""

    def fit(
        out: str = "run", *, recipe: Recipe | None = None, resume: bool = False, hooks: Hooks | None = None,
        workers: int = 2, **changes: Any,
    ) -> RunFolder:  # fmt: skip
        request = Request(
            recipe or make_recipe(**changes), tmp_path / "data", tmp_path / out, resume=resume, device="cpu",
            workers=workers, quiet=True,
        )  # fmt: skip
        return train(request, hooks or Hooks(backbone=random_backbone))

    return fit
