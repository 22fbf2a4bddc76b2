"""Semantic segmentation: ADE20K, PC-459, A-847, COCO, with examples from training sets and from folders."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from segic.errors import UsageError
from segic_benchmarks.coco_semantic import coco_semantic
from segic_benchmarks.examples import DrawnExamples, draw_examples, folder_examples
from segic_benchmarks.label_maps import LAYOUTS, label_map_benchmark
from segic_benchmarks.segmenter import Picture, Segment, Shot
from segic_benchmarks.shards import Shard

NewSegment = Callable[..., Segment]
ColourOf = Callable[[int], tuple[int, int, int]]
SHAPE = (16, 24)


def paint(labels: NDArray[np.int32], colour_of: ColourOf) -> Image.Image:
    pixels = np.zeros((*labels.shape, 3), np.uint8)
    for index in np.unique(labels[labels >= 0]).tolist():
        pixels[labels == index] = colour_of(index)
    return Image.fromarray(pixels)


def halves(left: int, right: int, void: int = 0) -> NDArray[np.int32]:
    """Class `left` in the left half, `right` in the other; the last `void` rows are void (-1)."""
    labels = np.full(SHAPE, left, np.int32)
    labels[:, SHAPE[1] // 2 :] = right
    labels[SHAPE[0] - void :] = -1
    return labels


TRAIN = [(0, 1), (1, 2), (2, 3), (3, 0)]
VAL = [(0, 1), (2, 1), (3, 2)]


@pytest.fixture
def make(tmp_path: Path, colour_of: ColourOf) -> Callable[[str], Path]:
    """A dataset in the layout of that name: four training and three validation images with classes 0 to 3."""

    def make(name: str) -> Path:
        layout = LAYOUTS[name]
        root = tmp_path / name
        images, labels = layout.folders[0]
        for split, pairs in (("training", TRAIN), ("validation", VAL)):
            for folder in (images, labels):
                (root / folder.format(split=split)).mkdir(parents=True)
            for number, pair in enumerate(pairs):
                truth = halves(*pair, void=2 if split == "validation" else 0)
                stem = f"{split}_{number:08d}"
                # Flat colours: PNG under the published name, as JPEG would change them.
                paint(truth, colour_of).save(root / images.format(split=split) / f"{stem}.jpg", format="PNG")
                stored = np.where(truth < 0, 0 if layout.first else 65535, truth + layout.first)
                dtype = np.uint8 if layout.suffix == ".png" else np.uint16
                Image.fromarray(stored.astype(dtype)).save(root / labels.format(split=split) / (stem + layout.suffix))
        return root

    return make


@pytest.mark.parametrize("name", ["ade20k", "pc459", "ade847"])
@pytest.mark.parametrize("known", [True, False])
def test_a_method_that_is_right(
    make: Callable[[str], Path], by_colour: NewSegment, tmp_path: Path, name: str, known: bool
) -> None:
    bench = label_map_benchmark(LAYOUTS[name], make(name), classes_known=known)
    result = bench.run(by_colour(), tmp_path / "out", {})
    assert result is not None
    assert (result.benchmark, result.value) == (name, 1.0)
    assert set(result.rows) == {f"class {i}" for i in range(4)}
    count = LAYOUTS[name].count
    assert f"{count - 4} of {count} classes are in no image, and not in the mean" in result.notes


def test_known_classes_are_the_only_ones_asked_for(
    make: Callable[[str], Path], by_colour: NewSegment, tmp_path: Path
) -> None:
    root, known, everything = make("ade20k"), by_colour(), by_colour()
    label_map_benchmark(LAYOUTS["ade20k"], root).run(known, tmp_path / "a", {})
    label_map_benchmark(LAYOUTS["ade20k"], root, classes_known=False).run(everything, tmp_path / "b", {})
    assert known.calls == [2, 2, 2]  # type: ignore[attr-defined]
    assert everything.calls == [4, 4, 4]  # type: ignore[attr-defined]  # those with an example


def test_shots(make: Callable[[str], Path], by_colour: NewSegment, tmp_path: Path) -> None:
    segment = by_colour()
    label_map_benchmark(LAYOUTS["ade20k"], make("ade20k"), shots=2).run(segment, tmp_path / "out", {})
    assert segment.calls == [4, 4, 4]  # type: ignore[attr-defined]


def test_iou_by_hand(make: Callable[[str], Path], by_colour: NewSegment, tmp_path: Path) -> None:
    # Of the right half nothing is found: all logits are equal there, and the first class asked for wins.
    result = label_map_benchmark(LAYOUTS["ade20k"], make("ade20k")).run(by_colour(right=0.5), tmp_path / "out", {})
    assert result is not None
    half = 14 * 12  # pixels that are not void
    # (0, 1): all is called 0. (2, 1): 2 on the left, and on the right the first asked for, 1, which is right.
    # (3, 2): 3 on the left, on the right 2, which is right.
    assert result.rows["class 0"]["mIoU"] == pytest.approx(half / (2 * half))
    assert result.rows["class 1"]["mIoU"] == pytest.approx(half / (2 * half))
    assert result.rows["class 2"]["mIoU"] == 1.0
    assert result.rows["class 3"]["mIoU"] == 1.0
    assert result.value == pytest.approx(0.75)


def test_shards_give_the_identical_result(make: Callable[[str], Path], by_colour: NewSegment, tmp_path: Path) -> None:
    bench = label_map_benchmark(LAYOUTS["ade20k"], make("ade20k"))
    whole = bench.run(by_colour(0.5), tmp_path / "whole", {})
    parts = [bench.run(by_colour(0.5), tmp_path / "parts", {}, shard=Shard(i, 2)) for i in range(2)]
    assert parts[0] is None
    assert whole == parts[1]


def test_class_names(make: Callable[[str], Path], tmp_path: Path) -> None:
    root = make("ade20k")
    lines = ["Idx\tRatio\tTrain\tVal\tName", *(f"{i + 1}\t0.1\t1\t1\tthing {i}, stuff" for i in range(150))]
    (root / "objectInfo150.txt").write_text("\n".join(lines))
    assert label_map_benchmark(LAYOUTS["ade20k"], root).images.classes[149] == "thing 149"
    (root / "objectInfo150.txt").write_text("\n".join(lines[:-1]))
    with pytest.raises(UsageError, match="names 149 classes; ade20k has 150"):
        label_map_benchmark(LAYOUTS["ade20k"], root)
    root = make("pc459")
    (root / "labels.txt").write_text("\n".join(f"{i + 1}: {'bat' if i < 2 else i}" for i in range(459)))
    assert label_map_benchmark(LAYOUTS["pc459"], root).images.classes[:3] == ["bat", "bat (2)", "2"]


def test_layouts_that_are_not(make: Callable[[str], Path], tmp_path: Path) -> None:
    ade, pc = LAYOUTS["ade20k"], LAYOUTS["pc459"]
    root = make("ade20k")
    with pytest.raises(UsageError, match=r"layout known for pc459: looked for images/.*annotations_ctx459/.*found ann"):
        label_map_benchmark(pc, root)
    with pytest.raises(UsageError, match="no such folder"):
        label_map_benchmark(ade, tmp_path / "nowhere")
    (root / "images/validation/validation_00000001.jpg").unlink()
    with pytest.raises(UsageError, match=r"images/validation has no picture for .*validation_00000001\.png"):
        label_map_benchmark(ade, root)


def test_labels_of_another_size(make: Callable[[str], Path], by_colour: NewSegment, tmp_path: Path) -> None:
    root = make("ade20k")
    Image.new("L", (20, 16)).save(root / "annotations/validation/validation_00000000.png")
    with pytest.raises(UsageError, match="labels of validation_00000000 are 20x16 pixels and the image 24x16"):
        label_map_benchmark(LAYOUTS["ade20k"], root).run(by_colour(), tmp_path / "out", {})


# --- examples -----------------------------------------------------------------------------------------------------


class Shares:
    """A training set where image i shows class 0 to a share of i per cent."""

    classes = ("grass", "bee")
    names = tuple(map(str, (0.2, 0.5, 30, 0.1, 40)))

    def image(self, name: str) -> NDArray[np.uint8]:
        return np.zeros((100, 100, 3), np.uint8)

    def labels(self, name: str) -> NDArray[np.int32]:
        labels = np.full(10000, -1, np.int32)
        labels[: int(float(name) * 100)] = 0
        return labels.reshape(100, 100)


def test_examples_show_their_class_to_a_hundredth() -> None:
    drawn = draw_examples(Shares(), shots=2, seed=0, same=False)
    assert set(drawn.chosen["grass"]) == {"30", "40"}
    assert drawn.notes == ("no example of 1 classes: bee",)
    # Where too few do, those that show it most come after them.
    assert draw_examples(Shares(), shots=4, seed=0, same=False).chosen["grass"][2:] == ("0.5", "0.2")


def test_a_target_is_never_its_own_example() -> None:
    drawn = draw_examples(Shares(), shots=1, seed=0, same=True)
    for name in ("30", "40"):
        assert [shot.picture.name for shot in drawn.of("grass", name)] == ["40" if name == "30" else "30"]


def test_a_class_of_one_image_is_no_silent_zero() -> None:
    images = Shares()
    images.names = ("30",)
    note = "1 classes are in one image alone, no example for itself; they count 0: grass"
    assert note in draw_examples(images, shots=1, seed=0, same=True).notes
    assert note not in draw_examples(images, shots=1, seed=0, same=False).notes


def test_the_choice_of_examples_is_kept(tmp_path: Path) -> None:
    cache = tmp_path / "examples.json"
    first = draw_examples(Shares(), shots=1, seed=0, same=False, cache=cache)
    data = json.loads(cache.read_text())
    data["chosen"]["grass"] = ["0.1"]
    cache.write_text(json.dumps(data))
    assert draw_examples(Shares(), shots=1, seed=0, same=False, cache=cache).chosen["grass"] == ("0.1",)
    assert draw_examples(Shares(), shots=2, seed=0, same=False, cache=cache).chosen["grass"] != ("0.1",)
    other = Shares()
    other.names = ("0.2", "0.5", "35", "0.1", "45")  # as many images
    assert "30" not in draw_examples(other, shots=2, seed=0, same=False, cache=cache).chosen["grass"]
    cache.write_text("{")
    assert draw_examples(Shares(), shots=1, seed=0, same=False, cache=cache).chosen == first.chosen


def test_examples_from_a_folder(
    make: Callable[[str], Path], by_colour: NewSegment, colour_of: ColourOf, tmp_path: Path
) -> None:
    root, folder = make("ade20k"), tmp_path / "synthetic"
    for index in range(3):
        (folder / f"class_{index}").mkdir(parents=True)
        truth = halves(index, -1)
        paint(truth, colour_of).save(folder / f"class_{index}" / "a.jpg", format="PNG")
        Image.fromarray(np.where(truth >= 0, 255, 0).astype(np.uint8)).save(folder / f"class_{index}" / "a.png")
    bench = label_map_benchmark(LAYOUTS["ade20k"], root, examples=folder)
    result = bench.run(by_colour(), tmp_path / "out", {})
    assert result is not None
    assert "no example of 147 classes: class 3" in result.notes[1]
    assert result.rows["class 0"]["mIoU"] == 1.0
    assert result.rows["class 3"]["mIoU"] == 0.0  # never asked for, so never found: in the mean all the same
    (folder / "class_0/a.png").unlink()
    with pytest.raises(UsageError, match=r"a\.jpg has no mask beside it; looked for a_mask\.png, a\.png"):
        label_map_benchmark(LAYOUTS["ade20k"], root, examples=folder)
    with pytest.raises(UsageError, match="has no folder named like a class"):
        label_map_benchmark(LAYOUTS["ade20k"], root, examples=root)


@pytest.mark.parametrize("target", ["b", "b.jpg", "val2017/b.png"])
def test_a_target_in_the_folder_is_never_its_own_example(tmp_path: Path, target: str) -> None:
    (tmp_path / "grass").mkdir()
    for name in "abcd":
        for suffix in (".jpg", ".png"):
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "grass" / (name + suffix))

    def shown(shots: int, target: str) -> list[str]:
        return [Path(s.picture.name).stem for s in folder_examples(tmp_path, ["grass"], shots).of("grass", target)]

    assert [shown(shots, target) for shots in (1, 2, 3, 4)] == [["a"], ["a", "c"], ["a", "c", "d"], ["a", "c", "d"]]
    assert [shown(shots, "other") for shots in (1, 2)] == [["a"], ["a", "b"]]
    assert shown(1, "a") == ["b"]


def test_other_examples_do_not_go_on_with_a_run(
    make: Callable[[str], Path], by_colour: NewSegment, tmp_path: Path
) -> None:
    root = make("ade20k")
    bench = label_map_benchmark(LAYOUTS["ade20k"], root)
    bench.run(by_colour(), tmp_path / "out", {})
    assert isinstance(bench.examples, DrawnExamples)
    chosen = {**bench.examples.chosen, "class 0": ("training_00000003",)}
    assert chosen != bench.examples.chosen
    with pytest.raises(UsageError, match=r"other settings .*examples_sha256 was"):
        replace(bench, examples=replace(bench.examples, chosen=chosen)).run(by_colour(), tmp_path / "out", {})


# --- COCO ---------------------------------------------------------------------------------------------------------


def test_coco_semantic(coco: Callable[..., Path], by_colour: NewSegment, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools", reason="COCO's format needs the extra `coco`")
    coco("annotations/instances_train2017.json", 4, 12, folder="train2017")
    root = coco("annotations/instances_val2017.json", 4, 8, folder="val2017")
    result = coco_semantic(root).run(by_colour(), tmp_path / "out", {})
    assert result is not None
    assert result.value == 1.0  # background included: what is found there would count as wrong
    assert coco_semantic(root).split == "instances_val2017"


def test_coco_semantic_from_one_file(coco: Callable[..., Path], by_colour: NewSegment, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools", reason="COCO's format needs the extra `coco`")
    bench = coco_semantic(coco("instances.json", 3, 6))
    for name in bench.images.names:
        for category in bench.images.classes:
            assert name not in [shot.picture.name for shot in bench.examples.of(category, name)]
    result = bench.run(by_colour(), tmp_path / "out", {})
    assert result is not None
    assert result.value == 1.0


def test_coco_background_counts(coco: Callable[..., Path], tmp_path: Path, by_colour: NewSegment) -> None:
    pytest.importorskip("pycocotools", reason="COCO's format needs the extra `coco`")

    def everywhere(target: Picture, asked: Sequence[Sequence[Shot]]) -> NDArray[np.float32]:
        logits = by_colour()(target, asked)
        logits[[shots[0].category for shots in asked].index("thing 0")] += 3
        return logits

    result = coco_semantic(coco("instances.json", 2, 4)).run(everywhere, tmp_path / "out", {})
    assert result is not None
    # Every image shows both classes: 64 and 32 pixels in turn, of 768.
    assert result.rows["thing 0"]["mIoU"] == pytest.approx((64 + 32) / (2 * 768))
    assert result.rows["thing 1"]["mIoU"] == 0.0
