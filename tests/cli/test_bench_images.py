"""`segic bench coco20i`, `coco-sem`, `fss1000`, `ade20k`, `spair71k` and `report` as a user runs them."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

import segic_benchmarks.matching
import segic_benchmarks.segmenter
import segic_cli.bench_images
from segic_benchmarks.segmenter import Picture, Shot
from segic_cli.main import cli

RED, GREEN = (200, 30, 30), (30, 200, 30)


class ByColour:
    """Finds the pixels of the examples' mean colour."""

    def __init__(self, model: object) -> None:
        assert model == "the model"

    def __call__(self, target: Picture, asked: Sequence[Sequence[Shot]]) -> NDArray[np.float32]:
        colours = [shots[0].picture.read()[shots[0].mask()].mean(axis=0) for shots in asked]
        near = [np.abs(target.read() - colour).sum(axis=2) < 1 for colour in colours]
        return np.stack(near).astype(np.float32) * 2 - 1


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    description = {"model": {"name": "fake", "weights": {}}}
    monkeypatch.setattr(segic_cli.bench_images, "load_model", lambda **options: ("the model", description))
    monkeypatch.setattr(segic_benchmarks.segmenter, "ModelSegment", ByColour)
    monkeypatch.setattr(
        segic_benchmarks.matching, "feature_matching", lambda model: lambda source, target, points: points
    )


def bench(*args: object) -> Result:
    return CliRunner().invoke(cli, ["bench", *map(str, args)])


def picture(colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    pixels = np.zeros((16, 20, 3), np.uint8)
    pixels[4:12, 4:12] = colour
    return pixels


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    pytest.importorskip("pycocotools", reason="COCO's format needs the extra `coco`")
    root = tmp_path / "coco"
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for i in range(6):
        Image.fromarray(picture(RED if i % 2 else GREEN)).save(root / f"images/{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 16, "width": 20})
        corners = [4, 4, 12, 4, 12, 12, 4, 12]
        annotations.append(
            {"id": i, "image_id": i, "category_id": i % 2, "iscrowd": 0, "area": 64, "segmentation": [corners]}
        )
    categories = [{"id": 0, "name": "leaf"}, {"id": 1, "name": "berry"}]
    (root / "instances.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return root


@pytest.mark.parametrize("command", ["coco20i", "lvis92i"])
def test_episodes(coco: Path, tmp_path: Path, command: str) -> None:
    common = (command, "--data", coco, "--annotations", coco / "instances.json", "--folds", "0,1", "--episodes", 5)
    result = bench(*common, "--out", tmp_path / "out", "--shots", 2, "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["value"] == 1.0
    assert data["settings"]["shots"] == 2
    again = bench(*common, "--out", tmp_path / "out", "-q")  # other settings: one shot
    assert again.exit_code == 2
    assert "shots was 2 and is 1" in again.stderr
    shards = [bench(*common, "--out", tmp_path / "parts", "--shots", 2, "--json", "--shard", f"{i}/2") for i in (0, 1)]
    assert shards[0].stdout == ""
    assert shards[1].stdout == result.stdout
    assert bench(*common[:-4], "--folds", "x").exit_code == 2


def test_coco_semantic(coco: Path, tmp_path: Path) -> None:
    result = bench("coco-sem", "--data", coco, "--out", tmp_path / "out", "-q")
    assert result.stdout == "coco-sem mIoU 100.0\n"
    everything = bench("coco-sem", "--data", coco, "--out", tmp_path / "all", "-q", "--classes", "all")
    assert everything.stdout == "coco-sem mIoU 100.0\n"


@pytest.mark.parametrize("command", ["coco-sem", "ade20k"])
def test_what_draws_examples_is_refused_beside_examples_of_ones_own(tmp_path: Path, command: str) -> None:
    common = (command, "--data", tmp_path, "--examples", tmp_path, "--seed", "0")
    result = bench(*common)
    assert result.exit_code == 2
    assert (
        "--seed is about examples drawn from the training set, and --examples brings them: leave out" in result.output
    )
    assert "--seed" not in bench(*common[:-2]).output


def test_fss1000(tmp_path: Path) -> None:
    for name, colour in (("berry", RED), ("leaf", GREEN)):
        (tmp_path / "fss" / name).mkdir(parents=True)
        for i in (1, 2, 3):
            Image.fromarray(picture(colour)).save(tmp_path / "fss" / name / f"{i}.jpg", format="PNG")
            mask = (picture(colour).max(axis=2) > 0) * np.uint8(255)
            Image.fromarray(mask).save(tmp_path / "fss" / name / f"{i}.png")
    (tmp_path / "list.txt").write_text("leaf\n")
    common = ("fss1000", "--data", tmp_path / "fss", "--out", tmp_path / "out")
    assert bench(*common).exit_code == 2
    result = bench(*common, "--split", tmp_path / "list.txt")
    assert result.exit_code == 0, result.output
    assert "fss1000, list: mIoU 100.0" in result.stdout


@pytest.mark.parametrize(("command", "labels"), [("ade20k", "annotations"), ("pc459", "annotations_ctx459")])
def test_label_maps(tmp_path: Path, command: str, labels: str) -> None:
    first = 1 if command == "ade20k" else 0
    for split in ("training", "validation"):
        for i, colour in enumerate((RED, GREEN)):
            for folder in ("images", labels):
                (tmp_path / "data" / folder / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(colour)).save(tmp_path / "data/images" / split / f"{i}.jpg", format="PNG")
            void = np.uint16(0 if first else 65535)
            truth = np.where(picture(colour).max(axis=2) > 0, np.uint16(i + first), void)
            suffix = "png" if first else "tif"
            Image.fromarray(truth.astype(np.uint8) if first else truth).save(
                tmp_path / "data" / labels / split / f"{i}.{suffix}"
            )
    result = bench(command, "--data", tmp_path / "data", "--out", tmp_path / "out", "-q")
    assert result.stdout == f"{command} mIoU 100.0\n", result.output
    assert (tmp_path / "out_examples.json").is_file()


def test_spair71k_and_a_report_of_everything(
    coco: Path, tmp_path: Path, room: Callable[[int], AbstractContextManager[None]]
) -> None:
    root = tmp_path / "SPair-71k"
    (root / "JPEGImages/cat").mkdir(parents=True)
    (root / "PairAnnotation/test").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (20, 20)).save(root / "JPEGImages/cat" / name)
    pair = SimpleNamespace(
        category="cat",
        src_imname="a.jpg",
        trg_imname="b.jpg",
        src_kps=[[1, 1], [5, 5]],
        trg_kps=[[1, 1], [9, 9]],
        trg_bndbox=[0, 0, 10, 10],
    )
    (root / "PairAnnotation/test/x.json").write_text(json.dumps(vars(pair)))
    result = bench("spair71k", "--data", root, "--out", tmp_path / "spair", "-q")
    assert result.stdout == "spair71k PCK@0.1 50.0\n", result.output
    bench("coco20i", "--data", coco, "--folds", "0", "--episodes", 3, "--out", tmp_path / "coco20i")
    for name, sign in (
        ("r.html", "<!doctype html>"),
        ("r.md", "| method"),
        ("r.json", '{\n "table"'),
        ("r.txt", "method"),
    ):
        written = bench("report", tmp_path / "spair", tmp_path / "coco20i/result.json", "--out", tmp_path / name)
        assert written.exit_code == 0, written.output
        assert (tmp_path / name).read_text().startswith(sign)
    with room(10):
        full = bench("report", tmp_path / "coco20i", "--out", tmp_path / "full.json")
    assert full.exit_code == 1
    assert full.stderr == f"Error: {tmp_path / 'full.json'}: cannot be written: File too large\n"
    folder = bench("report", tmp_path / "coco20i", "--out", tmp_path)
    assert folder.exit_code == 2
    assert "is a folder; give the file" in folder.stderr
    printed = bench("report", tmp_path / "coco20i")
    assert "SEGIC (G)" in printed.stdout
    assert bench("report", tmp_path / "nothing").exit_code == 2
