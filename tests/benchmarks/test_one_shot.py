"""COCO-20i, LVIS-92i, FSS-1000: episodes, folds, scores, and datasets that are not as they should be."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segic.errors import UsageError
from segic_benchmarks.coco20i import coco20i
from segic_benchmarks.coco_format import read_coco
from segic_benchmarks.fss1000 import fss1000
from segic_benchmarks.lvis92i import lvis92i
from segic_benchmarks.one_shot import drawn_episodes, episodes_of_every_image
from segic_benchmarks.segmenter import Segment
from segic_benchmarks.shards import Shard

pytest.importorskip("pycocotools", reason="COCO's format needs the extra `coco`")

MakeCoco = Callable[..., Path]
NewSegment = Callable[..., Segment]


# --- episodes -----------------------------------------------------------------------------------------------------

POOLS = {"cat": ["a", "b", "c"], "dog": ["b", "d"], "emu": ["e"]}


def test_episodes_are_fixed_by_the_seed() -> None:
    one, notes = drawn_episodes(POOLS, 50, shots=1, seed=0, fold="0")
    again, _ = drawn_episodes(POOLS, 50, shots=1, seed=0, fold="0")
    other, _ = drawn_episodes(POOLS, 50, shots=1, seed=1, fold="0")
    assert one == again != other
    assert len({e.key for e in one}) == 50
    assert {e.category for e in one} == {"cat", "dog"}
    assert notes == ("fold 0: 1 of 3 classes left out for want of 2 images: emu",)
    for episode in one:
        assert episode.target in POOLS[episode.category]
        assert episode.target not in episode.examples


def test_several_shots_are_different_images() -> None:
    for episode in drawn_episodes(POOLS, 20, shots=2, seed=0, fold="0")[0]:
        assert episode.category == "cat"
        assert len({episode.target, *episode.examples}) == 3
    with pytest.raises(UsageError, match="no class has the 4 images"):
        drawn_episodes(POOLS, 1, shots=3, seed=0, fold="0")


def test_every_image_is_a_target_once() -> None:
    episodes = episodes_of_every_image({"cat": ["cat/1", "cat/2", "cat/3"]}, shots=2, seed=0)
    assert [e.target for e in episodes] == ["cat/1", "cat/2", "cat/3"]
    assert all(e.target not in e.examples and len(set(e.examples)) == 2 for e in episodes)
    with pytest.raises(UsageError, match="class cat has 1 images; 1 shots and a target take 2"):
        episodes_of_every_image({"cat": ["cat/1"]}, shots=1, seed=0)


# --- COCO-20i -----------------------------------------------------------------------------------------------------


def test_coco20i_a_method_that_is_right(coco: MakeCoco, by_colour: NewSegment, tmp_path: Path) -> None:
    bench = coco20i(coco("annotations/instances_val2014.json", 8, 32, folder="val2014"), episodes=20)
    assert len(bench.episodes) == 80
    for episode in bench.episodes:  # class i belongs to fold i % 4
        assert int(episode.category.split()[-1]) % 4 == int(episode.fold)
    result = bench.run(by_colour(), tmp_path / "out", {})
    assert result is not None
    assert result.figures == {"mIoU": 1.0, "fold 0": 1.0, "fold 1": 1.0, "fold 2": 1.0, "fold 3": 1.0}
    assert len(result.rows) == 8


def test_coco20i_counts_are_summed_by_class_before_the_mean(
    coco: MakeCoco, by_colour: NewSegment, tmp_path: Path
) -> None:
    bench = coco20i(coco("instances.json", 4, 16), folds=[1], episodes=30)
    result = bench.run(by_colour(right=0.5), tmp_path / "out", {})
    assert result is not None
    # Seen in the left half: the 64 pixels of the large box, none of the 32 of the small one.
    targets = [int(e.target.split(".")[0]) % 4 for e in bench.episodes]
    large = sum(64 for t in targets if t == 1)
    small = sum(32 for t in targets if t == 0)
    assert large + small == 64 * targets.count(1) + 32 * targets.count(0)
    assert targets.count(0) > 0 < targets.count(1)
    assert result.value == pytest.approx(large / (large + small))


def test_coco20i_published_lists(coco: MakeCoco, tmp_path: Path) -> None:
    root = coco("instances.json", 4, 16)
    lists = tmp_path / "lists"
    lists.mkdir()
    table = {"2": [f"val2014/{i:012d}.png" for i in (2, 6, 1)]}
    (lists / "val_fold2.json.gz").write_bytes(gzip.compress(json.dumps(table).encode()))
    bench = coco20i(root, folds=[2], episodes=10, lists=lists)
    assert {e.target for e in bench.episodes} <= {f"{i:012d}.png" for i in (2, 6, 1)}
    with pytest.raises(UsageError, match=r"val_fold0\.json\.gz does not exist.*found val_fold2"):
        coco20i(root, lists=lists)
    (lists / "val_fold0.json").write_text(json.dumps({"0": ["val2014/elsewhere.jpg"]}))
    with pytest.raises(UsageError, match=r"1 of 1 images of thing 0 are not in .*elsewhere\.jpg"):
        coco20i(root, folds=[0], lists=lists)


def test_images_that_are_not_fully_annotated_are_left_out(coco: MakeCoco) -> None:
    root = coco("instances.json", 4, 16)
    data = json.loads((root / "instances.json").read_text())
    for image in data["images"][:4]:
        image["labelled"] = "one person only"
    (root / "partial.json").write_text(json.dumps(data))
    bench = coco20i(root, episodes=10, annotations=root / "partial.json")
    assert "4 of 16 images are not fully annotated" in bench.notes[0]
    assert all(int(e.target.split(".")[0]) >= 4 for e in bench.episodes)


def test_crowds_are_pixels_of_their_class_and_no_examples(coco: MakeCoco) -> None:
    root = coco("instances.json", 4, 16)
    data = json.loads((root / "instances.json").read_text())
    crowd = next(a for a in data["annotations"] if a["image_id"] == 1 and a["category_id"] == 10)
    crowd["iscrowd"] = 1
    (root / "instances.json").write_text(json.dumps(data))
    images = read_coco(root, ("instances.json",))
    assert images.mask("000000000000.png", "thing 0").sum() == 64
    assert "000000000000.png" not in images.pools()["thing 0"]
    assert "000000000000.png" in images.pools()["thing 1"]


def test_specks_that_cover_no_pixel_are_left_out(coco: MakeCoco) -> None:
    root = coco("instances.json", 4, 16)
    data = json.loads((root / "instances.json").read_text())
    thin, small = (a for a in data["annotations"] if a["image_id"] == 1)
    thin |= {"segmentation": [[4.1, 2.1, 4.2, 2.1, 4.2, 20.1, 4.1, 20.1]], "area": 1.8}
    small |= {"segmentation": [[4, 2, 5, 2, 5, 3, 4, 3]], "area": 1.0}
    (root / "instances.json").write_text(json.dumps(data))
    shown = read_coco(root, ("instances.json",)).instances["000000000000.png"]
    assert [annotation["category"] for annotation in shown] == ["thing 1"]


def test_other_episodes_do_not_go_on_with_a_run(coco: MakeCoco, by_colour: NewSegment, tmp_path: Path) -> None:
    root = coco("instances.json", 4, 16)
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "val_fold2.json").write_text(json.dumps({"2": [f"{i:012d}.png" for i in (2, 6)]}))
    coco20i(root, folds=[2], episodes=4).run(by_colour(), tmp_path / "out", {})
    with pytest.raises(UsageError, match=r"other settings .*episodes_sha256 was"):
        coco20i(root, folds=[2], episodes=4, lists=lists).run(by_colour(), tmp_path / "out", {})


def test_coco_layouts_that_are_not(coco: MakeCoco, tmp_path: Path, by_colour: NewSegment) -> None:
    root = coco("elsewhere.json", 4, 8)
    with pytest.raises(UsageError, match=r"no annotations: looked for annotations/instances_val2014.*found elsewhere"):
        coco20i(root)
    with pytest.raises(UsageError, match="no such folder"):
        coco20i(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="fold 4 does not exist"):
        coco20i(root, annotations=root / "elsewhere.json", folds=[4])
    (root / "broken.json").write_text("{}")
    with pytest.raises(UsageError, match=r"broken\.json is not an annotation file in COCO's format"):
        coco20i(root, annotations=root / "broken.json")
    (root / "images/000000000000.png").unlink()
    bench = coco20i(root, annotations=root / "elsewhere.json", folds=[0], episodes=20)
    with pytest.raises(UsageError, match=r"000000000000\.png of .* is in none of images, val2014"):
        bench.run(by_colour(), tmp_path / "out", {})


def test_an_image_of_another_size_than_announced(coco: MakeCoco, by_colour: NewSegment, tmp_path: Path) -> None:
    root = coco("instances.json", 4, 8)
    for path in (root / "images").iterdir():
        Image.new("RGB", (30, 24)).save(path)
    with pytest.raises(UsageError, match=r"is 30x24 pixels; instances\.json says 32x24"):
        coco20i(root, episodes=1).run(by_colour(), tmp_path / "out", {})


def test_shards_and_resuming_give_the_identical_result(coco: MakeCoco, by_colour: NewSegment, tmp_path: Path) -> None:
    bench = coco20i(coco("instances.json", 4, 16), episodes=8)
    whole = bench.run(by_colour(0.5), tmp_path / "whole", {"seed": 0})
    parts = [bench.run(by_colour(0.5), tmp_path / "parts", {"seed": 0}, shard=Shard(i, 2)) for i in range(2)]
    assert parts[0] is None
    assert whole is not None
    assert parts[1] is not None
    assert whole.to_json() == parts[1].to_json()
    segment = by_colour(0.5)
    assert bench.run(segment, tmp_path / "whole", {"seed": 0}) == whole
    assert segment.calls == []  # type: ignore[attr-defined]


# --- LVIS-92i -----------------------------------------------------------------------------------------------------


def test_lvis92i(coco: MakeCoco, by_colour: NewSegment, tmp_path: Path) -> None:
    root = coco("lvis_v1_val.json", 20, 41, folder="train2017", lvis=True)
    bench = lvis92i(root, folds=[0, 3], episodes=12)
    assert "20 classes have two images or more; the published benchmark keeps 920" in bench.notes
    assert {e.category for e in bench.episodes if e.fold == "3"} <= {"thing 3", "thing 13"}
    result = bench.run(by_colour(), tmp_path / "out", {})
    assert result is not None
    assert result.figures == {"mIoU": 1.0, "fold 0": 1.0, "fold 3": 1.0}


def test_lvis92i_keeps_classes_with_two_images(coco: MakeCoco) -> None:
    root = coco("lvis_v1_val.json", 20, 20, lvis=True)
    data = json.loads((root / "lvis_v1_val.json").read_text())
    data["annotations"] = [a for a in data["annotations"] if a["category_id"] != 10 or a["image_id"] == 1]
    (root / "lvis_v1_val.json").write_text(json.dumps(data))
    bench = lvis92i(root, episodes=5)
    # "thing 0" has one image and is gone, so that fold 0 starts at "thing 1".
    assert {e.category for e in bench.episodes if e.fold == "0"} <= {"thing 1", "thing 11"}


# --- FSS-1000 -----------------------------------------------------------------------------------------------------


@pytest.fixture
def fss(tmp_path: Path, colour_of: Callable[[int], tuple[int, int, int]]) -> Path:
    root = tmp_path / "fss"
    for index, name in enumerate(("hotel_slipper", "bus")):
        (root / name).mkdir(parents=True)
        for number in range(1, 11):
            pixels, mask = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20, 3), np.uint8)
            pixels[5:15, 5:15] = colour_of(index)
            mask[5:15, 5:15] = 255
            # The published pictures are JPEGs; flat colours survive that badly, so these are PNGs under the name.
            Image.fromarray(pixels).save(root / name / f"{number}.jpg", format="PNG")
            Image.fromarray(mask).save(root / name / f"{number}.png")
    (root / "test.txt").write_text("hotel_slipper\nbus\n")
    return root


def test_fss1000(fss: Path, by_colour: NewSegment, tmp_path: Path) -> None:
    bench = fss1000(fss, shots=5)
    assert len(bench.episodes) == 20
    assert bench.episodes[9].target == "hotel_slipper/10"
    result = bench.run(by_colour(0.5), tmp_path / "out", {})
    assert result is not None
    assert result.rows == {"bus": {"mIoU": 0.5}, "hotel_slipper": {"mIoU": 0.5}}
    assert result.notes == ("2 classes; the published test set has 240", "mean over 2 classes, 20 episodes")


def test_fss1000_layouts_that_are_not(fss: Path, tmp_path: Path) -> None:
    (fss / "bus/3.png").unlink()
    with pytest.raises(UsageError, match=r"bus/3\.png is missing"):
        fss1000(fss)
    (fss / "test.txt").write_text("hotel_slipper\nabacus\n")
    with pytest.raises(UsageError, match="no such folder for the class abacus; found bus/"):
        fss1000(fss)
    (fss / "test.txt").unlink()
    with pytest.raises(UsageError, match=r"no list of test classes: looked for test\.txt"):
        fss1000(fss)
    with pytest.raises(UsageError, match="no such folder"):
        fss1000(tmp_path / "nowhere")
