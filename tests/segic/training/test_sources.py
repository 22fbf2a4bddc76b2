"""Data sets: what is drawn from them, and what is said of broken ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segic.errors import UsageError
from segic.training.cache import flat_labels
from segic.training.feeds import LiveFeed
from segic.training.pools import load_pools
from segic.training.recipe import Augmentation, Data, DataSet
from segic.training.sources import Sample, Source, Unusable, open_sources
from segic.training.sources.catalogue import Polygons, RunLengths, Value, White
from segic.training.sources.pairs import SemanticPairs
from segic.training.sources.views import cropped, jittered

RED, GREEN = (220, 40, 40), (40, 200, 60)


def data(**sets: dict[str, Any]) -> Data:
    return Data(
        size=112, entities=2, least_area=16, sets={name: DataSet(**values) for name, values in sets.items()}
    )  # fmt: skip


def open_one(root: Path, **values: Any) -> Source:
    """The one source of a data set in COCO's format."""
    given_ = data(one={"kind": "instance", "path": "coco", **values})
    ((source, _),) = open_sources(given_.sets, given_, root)
    return source


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def is_red(frame: np.ndarray) -> np.ndarray:
    return (frame[..., 0] > 160) & (frame[..., 1] < 120)


def is_green(frame: np.ndarray) -> np.ndarray:
    return (frame[..., 1] > 160) & (frame[..., 0] < 120)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def test_semantic_pairs_show_one_class_on_two_images(coco_data: Path) -> None:
    source = open_one(coco_data, kind="semantic")
    seen = set()
    for seed in range(40):
        try:
            sample = source.draw(np.random.default_rng(seed))
        except Unusable:
            continue
        assert sample.masks.shape == (2, 1, 112, 112)
        assert sample.origin[0] != sample.origin[1]
        test = {"red": is_red, "green": is_green}[sample.texts[0]]
        for frame, mask, (height, width) in zip(sample.frames, sample.masks[:, 0], sample.valid, strict=True):
            assert mask.sum() >= 16
            assert overlap(test(frame), mask) > 0.5
            assert not frame[height:].any()
            assert not frame[:, width:].any()
        seen.add(sample.texts[0])
    assert seen == {"red", "green"}


def test_instance_views_are_two_views_of_one_image(coco_data: Path) -> None:
    source = open_one(coco_data)
    for seed in range(20):
        sample = source.draw(np.random.default_rng(seed))
        assert sample.frames.shape == (2, 112, 112, 3)
        assert 1 <= sample.masks.shape[1] <= 2
        assert sample.texts == ("instances",) * sample.masks.shape[1]
        assert sample.valid == ((112, 112), (112, 112))
        assert (sample.masks.sum((2, 3)) >= 16).all()
        assert not (sample.masks[:, 0] & sample.masks[:, -1]).any() or sample.masks.shape[1] == 1


def test_the_same_random_state_draws_the_same(coco_data: Path) -> None:
    source = open_one(coco_data)
    a, b = (source.draw(np.random.default_rng(5)) for _ in range(2))
    assert (a.frames == b.frames).all()
    assert (a.masks == b.masks).all()


def test_a_class_with_one_image_is_named_and_left_out(coco_data: Path) -> None:
    def only_one_green(document: dict[str, Any]) -> None:
        document["annotations"] = [a for a in document["annotations"] if a["category_id"] == 1 or a["image_id"] == 3]

    edit(coco_data / "coco" / "instances.json", only_one_green)
    source = open_one(coco_data, kind="semantic")
    assert "classes with one image left out: green" in source.notes
    texts = {source.draw(np.random.default_rng([seed, 3])).texts[0] for seed in range(3)}
    assert texts == {"red"}


def test_no_class_with_two_images_is_an_error(coco_data: Path) -> None:
    edit(coco_data / "coco" / "instances.json", lambda d: d.update(images=d["images"][:1]))
    with pytest.raises(UsageError, match="no class is shown by two images"):
        open_one(coco_data, kind="semantic")


def test_empty_masks_and_crowds_are_counted(coco_data: Path) -> None:
    def spoil(document: dict[str, Any]) -> None:
        document["annotations"][0]["iscrowd"] = 1
        document["annotations"][1]["segmentation"] = []
        document["annotations"][2]["area"] = 0

    edit(coco_data / "coco" / "instances.json", spoil)
    assert {"1 crowd masks left out", "2 empty masks left out"} <= set(open_one(coco_data).notes)


def test_a_fold_and_classes_can_be_left_out(coco_data: Path) -> None:
    # Classes are numbered by the order of their ids: red 0, green 1, blue 2.
    source = open_one(coco_data, kind="semantic", exclude_fold=1)
    assert {source.draw(np.random.default_rng([seed, 3])).texts[0] for seed in range(4)} == {"red"}
    source = open_one(coco_data, kind="semantic", classes=["green"])
    assert {source.draw(np.random.default_rng([seed, 3])).texts[0] for seed in range(4)} == {"green"}


@pytest.mark.usefixtures("folder_data")
def test_a_class_that_the_data_set_has_not_is_refused(coco_data: Path) -> None:
    with pytest.raises(UsageError) as error:
        open_one(coco_data, kind="semantic", classes=["red", "gren", "xyz"])
    text = "data set one: classes: it has none of the name 'gren' (did you mean 'green'?) or 'xyz'; its classes are red"
    assert text in str(error.value)
    open_one(coco_data, kind="semantic", classes=["red", "blue"])  # blue exists, though no image shows it
    folder = {"layout": "folder", "path": "."}
    with pytest.raises(UsageError, match="none of the name 'red'; its classes are instances"):
        open_one(coco_data, classes=["red"], **folder)
    (coco_data / "classes.txt").write_text("disc\nring\n")
    with pytest.raises(UsageError, match=r"'rings' \(did you mean 'ring'\?\); its classes are disc, ring$"):
        open_one(coco_data, kind="semantic", classes=["disc", "rings"], **folder)
    open_one(coco_data, kind="semantic", classes=["disc"], **folder)


def test_parts_are_split_by_image(coco_data: Path) -> None:
    names = {}
    for part in ("train", "held-out"):
        source = open_one(coco_data, part=part, holdout=4)
        names[part] = {Path(source.draw(np.random.default_rng(seed)).origin[0]).stem for seed in range(60)}
    assert names == {"train": {"1", "2", "3", "5", "6", "7"}, "held-out": {"4", "8"}}


def test_images_that_are_not_fully_annotated_make_no_classes(coco_data: Path) -> None:
    edit(coco_data / "coco" / "instances.json", lambda d: d["images"][7].update(labelled="one person only"))
    source = open_one(coco_data, kind="semantic")
    assert "1 images left out of which not all instances are annotated" in source.notes


def test_missing_data_are_named_all_at_once_with_where_to_get_them(tmp_path: Path) -> None:
    wanted = data(
        a={"kind": "semantic", "path": "coco"},
        b={"kind": "instance", "layout": "lvis", "path": "."},
        c={"kind": "semantic", "layout": "ade20k", "path": "ade"},
        d={"kind": "semantic", "layout": "fss1000", "path": "fss"},
        e={"kind": "instance", "layout": "folder", "path": "own"},
        f={"kind": "instance", "path": "none", "weight": 0.0},
    )
    with pytest.raises(UsageError) as error:
        open_sources(wanted.sets, wanted, tmp_path)
    lines = str(error.value).splitlines()
    assert [line[:10] for line in lines] == [f"data set {name}" for name in "abcde"]
    assert "cocodataset.org" in lines[0]
    assert "lvis/lvis_v1_train.json" in lines[1]
    assert str(tmp_path / "ade") in lines[2]
    assert "masks/ with a PNG" in lines[4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is broken"),
        ("[]", "no lists of images"),
        ('{"images": [{}], "annotations": [], "categories": [{}]}', "is not an annotation file"),
    ],
)
def test_broken_annotation_files(coco_data: Path, content: str, message: str) -> None:
    (coco_data / "coco" / "instances.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        open_one(coco_data)


def test_images_that_are_all_missing_stop_and_one_is_noted(coco_data: Path) -> None:
    (coco_data / "coco" / "images" / "3.png").unlink()
    assert "1 images are not in the folder, 3.png for one" in open_one(coco_data).notes
    for path in (coco_data / "coco" / "images").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match=r"none of the 8 images of .*instances\.json is there \(1\.png\)"):
        open_one(coco_data)


def test_a_picture_of_another_size_than_its_annotations(coco_data: Path) -> None:
    for path in (coco_data / "coco" / "images").iterdir():
        cv2.imwrite(str(path), np.zeros((10, 12, 3), np.uint8))
    with pytest.raises(Unusable, match="is 12x10 pixels, its annotations are for 120x100"):
        open_one(coco_data).draw(np.random.default_rng(0))


def test_lvis_finds_its_images_by_their_address(coco_data: Path) -> None:
    def as_lvis(document: dict[str, Any]) -> None:
        for image in document["images"]:
            image["coco_url"] = f"http://images.cocodataset.org/train2017/{image.pop('file_name')}"

    file = coco_data / "coco" / "instances.json"
    edit(file, as_lvis)
    (coco_data / "lvis").mkdir()
    file.rename(coco_data / "lvis" / "lvis_v1_train.json")
    (coco_data / "coco" / "images").rename(coco_data / "coco" / "train2017")
    source = open_one(coco_data, layout="lvis", path=".")
    assert source.draw(np.random.default_rng(0)).masks.any()


def test_ade20k(tmp_path: Path) -> None:
    base = tmp_path / "ADEChallengeData2016"
    for folder in ("images/training", "annotations/training"):
        (base / folder).mkdir(parents=True)
    rows = [f"{i}\t0.1\t1\t1\tthing{i}, object {i}" for i in range(1, 151)]
    (base / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n" + "\n".join(rows))
    for name in ("ADE_train_1", "ADE_train_2"):
        picture = np.full((80, 80, 3), 90, np.uint8)
        labels = np.zeros((80, 80), np.uint8)
        picture[20:60, 20:60], labels[20:60, 20:60] = RED, 7
        cv2.imwrite(str(base / "images/training" / f"{name}.jpg"), picture[..., ::-1])
        cv2.imwrite(str(base / "annotations/training" / f"{name}.png"), labels)
    source = open_one(tmp_path, kind="semantic", layout="ade20k", path="ADEChallengeData2016")
    sample = source.draw(np.random.default_rng([3, 1]))
    assert sample.texts == ("thing7",)
    assert overlap(is_red(sample.frames[1]), sample.masks[1, 0]) > 0.5


def test_fss1000(tmp_path: Path) -> None:
    base = tmp_path / "fewshot_data"
    for name in ("ab_wheel", "abacus", "left_out"):
        (base / name).mkdir(parents=True)
        for number in (1, 2, 3):
            cv2.imwrite(str(base / name / f"{number}.jpg"), np.full((60, 60, 3), 80, np.uint8))
            mask = np.zeros((60, 60), np.uint8)
            mask[10:50, 10:50] = 255
            cv2.imwrite(str(base / name / f"{number}.png"), mask)
    (tmp_path / "trn.txt").write_text("ab_wheel\nabacus\n")
    source = open_one(tmp_path, kind="semantic", layout="fss1000", path=".")
    assert {source.draw(np.random.default_rng([seed, 3])).texts[0] for seed in range(12)} == {"ab wheel", "abacus"}
    (tmp_path / "trn.txt").write_text("ab_wheel\nzebra\n")
    with pytest.raises(UsageError, match="zebra does not exist; found ab_wheel/"):
        open_one(tmp_path, kind="semantic", layout="fss1000", path=".")


def test_fss1000_as_distributed(tmp_path: Path) -> None:
    """One folder inside another, smooth colour masks, and the list of test classes alone."""
    base = tmp_path / "fewshot_data" / "fewshot_data"
    for name in ("abacus", "bus"):
        (base / name).mkdir(parents=True)
        for number in (1, 2):
            cv2.imwrite(str(base / name / f"{number}.jpg"), np.full((60, 60, 3), 80, np.uint8))
            mask = np.full((60, 60, 3), 40, np.uint8)
            mask[10:50, 10:50] = 255
            mask[0, 0] = (0, 1, 3)
            cv2.imwrite(str(base / name / f"{number}.png"), mask)
    (tmp_path / "fss_test_set.txt").write_text("bus\n")
    source = open_one(tmp_path, kind="semantic", layout="fss1000", path=".")
    assert {source.draw(np.random.default_rng([seed, 3])).texts[0] for seed in range(6)} == {"abacus"}
    assert White(base / "abacus" / "1.png").read((60, 60)).sum() == 1600


def test_lvis_beside_its_images_and_coco_in_a_folder_images(coco_data: Path) -> None:
    (coco_data / "coco" / "train2017").mkdir()
    for path in (coco_data / "coco" / "images").iterdir():
        path.rename(coco_data / "coco" / "train2017" / path.name)
    (coco_data / "coco" / "train2017").rename(coco_data / "coco" / "images" / "train2017")
    assert open_one(coco_data).draw(np.random.default_rng(0)).masks.any()

    def as_lvis(document: dict[str, Any]) -> None:
        for image in document["images"]:
            image["coco_url"] = f"http://images.cocodataset.org/train2017/{image.pop('file_name')}"

    file = coco_data / "coco" / "instances.json"
    edit(file, as_lvis)
    (coco_data / "coco" / "images").rename(coco_data / "lvis")
    file.rename(coco_data / "lvis" / "lvis_v1_train.json")
    assert open_one(coco_data, layout="lvis", path=".").draw(np.random.default_rng(0)).masks.any()


def test_crowds_belong_to_their_class_and_unfinished_classes_are_left_out(coco_data: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        crowd = {"size": [100, 120], "counts": [0, 100 * 10, 100 * 110]}  # the leftmost ten columns
        for number in range(1, 9):
            document["annotations"].append(
                {"id": 90, "image_id": number, "category_id": 1, "iscrowd": 1, "area": 1000, "segmentation": crowd}
            )
            document["images"][number - 1]["not_exhaustive_category_ids"] = [2]

    edit(coco_data / "coco" / "instances.json", change)
    source = open_one(coco_data, kind="semantic")
    assert "7 masks left out of classes that an image has more of than is annotated" in source.notes
    assert isinstance(source, SemanticPairs)
    assert list(source.classes) == ["red"]
    assert source.items[0].class_mask("red", (100, 120)).sum() == 1600 + 1000
    assert "8 crowd masks left out" in open_one(coco_data).notes


def test_another_attempt_stays_with_its_data_set(make_recipe: Callable[..., Any]) -> None:
    """A set that often fails is drawn as often as one that never does."""

    class Fails:
        notes = ()

        def __init__(self, name: str, often: float):
            self.name, self.often = name, often

        def draw(self, rng: np.random.Generator) -> Sample:
            if rng.random() < self.often:
                raise Unusable("", "no entity in view")
            empty = np.zeros((2, 4, 4, 3), np.uint8)
            return Sample(empty, np.ones((2, 1, 4, 4), np.bool_), ((4, 4),) * 2, ("",), self.name, False, ())

    feed = LiveFeed(make_recipe(), [(Fails("hard", 0.7), 1.0), (Fails("easy", 0.0), 1.0)])
    kinds = [feed.draw(step, 0).kind for step in range(400)]
    assert kinds.count("hard") == pytest.approx(200, abs=40)


def test_folder_with_class_names_void_and_broken_masks(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(4):
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), np.full((60, 60, 3), 80, np.uint8))
        labels = np.zeros((60, 60), np.uint8)
        labels[10:30, 10:30], labels[:5] = 2, 255
        cv2.imwrite(str(tmp_path / "masks" / f"{number}.png"), labels)
    (tmp_path / "masks" / "3.png").write_bytes(b"no mask")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    source = open_one(tmp_path, kind="semantic", layout="folder", path=".")
    assert any("3.png" in note and "does not decode" in note for note in source.notes)
    assert source.draw(np.random.default_rng([0, 3])).texts == ("dog",)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize(("orientation", "turn"), [(3, cv2.ROTATE_180), (6, cv2.ROTATE_90_COUNTERCLOCKWISE)])
def test_photographs_of_a_folder_are_turned_upright(tmp_path: Path, suffix: str, orientation: int, turn: int) -> None:
    """The masks are of the picture as it is seen; of two classes, since choosing among them must not forget it."""
    seen, labels = np.full((60, 80, 3), 80, np.uint8), np.zeros((60, 80), np.uint8)
    seen[5:35, 5:30], labels[5:35, 5:30], labels[50:55, 60:] = RED, 1, 2
    exif = Image.Exif()
    exif[0x0112] = orientation
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(2):
        stored = Image.fromarray(np.asarray(cv2.rotate(seen, turn)))
        stored.save(tmp_path / "images" / f"{number}.{suffix}", exif=exif)
        cv2.imwrite(str(tmp_path / "masks" / f"{number}.png"), labels)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    source = open_one(tmp_path, kind="semantic", layout="folder", path=".", classes=["cat"])
    assert isinstance(source, SemanticPairs)
    for item in source.items:
        picture = item.picture()
        assert picture.shape == (60, 80, 3)
        assert overlap(is_red(picture), labels == 1) > 0.9


def test_published_annotations_are_of_the_pixels_as_stored(coco_data: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in (coco_data / "coco" / "images").iterdir():
        Image.open(path).save(path, exif=exif)
    source = open_one(coco_data, kind="semantic")
    assert isinstance(source, SemanticPairs)
    assert source.items[0].picture().shape == (100, 120, 3)
    assert load_pools(coco_data / "coco" / "images", coco_data / "coco" / "instances.json").picture(0).shape == (
        100, 120, 3,
    )  # fmt: skip


def test_masks_by_polygon_and_run_lengths_agree() -> None:
    square = Polygons((np.array([[2, 1], [6, 1], [6, 4], [2, 4]], np.float32),)).read((6, 8))
    expected = np.zeros((6, 8), np.bool_)
    expected[1:4, 2:6] = True
    flat = expected.T.ravel()
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    runs = RunLengths({"size": [6, 8], "counts": counts}, "f.json")
    assert (runs.read((6, 8)) == expected).all()
    assert (square == expected).all()
    with pytest.raises(Unusable, match=r"f\.json: a mask is"):
        runs.read((8, 6))


def test_a_mask_file_of_another_size_names_both(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "m.png"), np.ones((5, 7), np.uint8))
    with pytest.raises(Unusable, match="the mask is 7x5 pixels, its image is 8x6"):
        Value(tmp_path / "m.png", 1).read((6, 8))


@settings(deadline=None, max_examples=60)
@given(height=st.integers(8, 300), width=st.integers(8, 300), seed=st.integers(0, 10**6), jitter=st.booleans())
def test_views_move_pictures_and_masks_alike(height: int, width: int, seed: int, jitter: bool) -> None:
    rng = np.random.default_rng(seed)
    view = (jittered if jitter else cropped)(rng, (height, width), 56, Augmentation(colour=0.0))
    left, top, right, bottom = view.box
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert max(view.shown) <= 56
    mask = np.zeros((height, width), np.bool_)
    mask[height // 4 : 3 * height // 4 + 1, width // 4 : 3 * width // 4 + 1] = True
    picture = np.repeat(mask[..., None].view(np.uint8) * np.uint8(255), 3, axis=2)
    seen, placed = view.mask(mask), view.picture(picture)
    assert placed.shape == (56, 56, 3)
    assert (seen == (placed[..., 0] >= 128)).all()


def test_the_smaller_of_overlapping_masks_is_on_top() -> None:
    masks = np.zeros((1, 2, 4, 4), np.bool_)
    masks[0, 0, :2, :2] = True
    masks[0, 1, :3, :3] = True
    labels = flat_labels(masks)[0]
    assert labels[0, 0] == 1
    assert labels[2, 2] == 2
    assert labels[3, 3] == 0


def test_sample_is_what_it_says(coco_data: Path) -> None:
    sample = open_one(coco_data).draw(np.random.default_rng(1))
    assert isinstance(sample, Sample)
    assert sample.frames.dtype == np.uint8
    assert sample.masks.dtype == np.bool_
