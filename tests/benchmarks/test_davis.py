"""DAVIS: layouts, runs, scores and what goes wrong with other people's results."""

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageFilter

from segic.errors import SegicError, UsageError
from segic_benchmarks.davis import DavisBenchmark
from segic_benchmarks.davis_layout import find_davis
from segic_benchmarks.follow import AnnotationOf, Session, stepping
from segic_benchmarks.masks import read_labels, write_labels
from segic_benchmarks.metrics import boundary_measure, region_similarity
from segic_benchmarks.result import load_result
from segic_benchmarks.shards import Shard
from segic_benchmarks.toolkit import find_toolkit
from segic_vos.frames import Frame, FrameResult

NewSession = Callable[[], Session]


def bench(root: Path, year: int = 2017, **choice: object) -> DavisBenchmark:
    return DavisBenchmark(year, find_davis(root, year, **choice))  # type: ignore[arg-type]


def perfect(root: Path, results: Path, *sequences: str) -> Path:
    for name in sequences:
        shutil.copytree(root / "Annotations" / "480p" / name, results / name)
    return results


# --- layouts ------------------------------------------------------------------------------------------------------


def test_val_is_the_default_split(davis: Path) -> None:
    dataset = find_davis(davis, 2017)
    assert (dataset.split, [c.name for c in dataset.clips]) == ("val", ["one", "two"])
    assert dataset.clips[0].names == ("00000", "00001", "00002", "00003", "00004")


@pytest.mark.parametrize("split", ["all", "all.txt", "ImageSets/all.txt"])
def test_split_by_name_or_file(davis: Path, split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(davis)
    assert [c.name for c in find_davis(davis, 2017, split=split).clips] == ["one", "two", "white"]


def test_lists_of_paths_as_in_davis_2016(davis: Path) -> None:
    shutil.rmtree(davis / "ImageSets" / "2016")
    (davis / "ImageSets" / "480p").mkdir()
    lines = [f"/JPEGImages/480p/white/{i:05d}.jpg /Annotations/480p/white/{i:05d}.png \n" for i in range(5)]
    (davis / "ImageSets" / "480p" / "val.txt").write_text("".join(lines))
    assert [c.name for c in find_davis(davis, 2016).clips] == ["white"]


def test_all_sequences_without_imagesets(davis: Path) -> None:
    shutil.rmtree(davis / "ImageSets")
    dataset = find_davis(davis, 2017)
    assert (dataset.split, len(dataset.clips)) == ("all", 3)


def test_the_only_list_is_used_and_said(davis: Path) -> None:
    for year in ("2016", "2017"):
        shutil.rmtree(davis / "ImageSets" / year)
    dataset = find_davis(davis, 2017)
    assert dataset.split == "all"
    assert "all.txt" in dataset.notes[0]


def test_full_resolution_variant(davis: Path) -> None:
    for kind in ("Annotations", "JPEGImages"):
        (davis / kind / "480p").rename(davis / kind / "Full-Resolution")
    assert len(find_davis(davis, 2017).clips) == 2
    with pytest.raises(UsageError, match=r"none of 480p; found Full-Resolution/"):
        find_davis(davis, 2017, resolution="480p")


def test_videos_with_mask_folders(davis: Path, tmp_path: Path) -> None:
    root = tmp_path / "clips"
    shutil.copytree(davis / "Annotations" / "480p" / "two", root / "girls_mask")
    (root / "girls.mp4").write_bytes(b"")
    benchmark = bench(root)
    assert [c.name for c in benchmark.dataset.clips] == ["girls"]
    shutil.copytree(root / "girls_mask", tmp_path / "results" / "girls")
    assert benchmark.score(tmp_path / "results", {}).value == 1.0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: shutil.rmtree(r / "Annotations"), r"looked for Annotations/480p.*found ImageSets/, JPEGImages/"),
        (lambda r: shutil.rmtree(r), "there is no such folder"),
        (lambda r: shutil.rmtree(r / "Annotations/480p/two"), r"sequence 'two' of val has no folder .*two"),
        (lambda r: (r / "Annotations/480p/two/00002.png").unlink(), r"frame 00002 .* no mask of that name"),
        (lambda r: (r / "JPEGImages/480p/two/00002.png").unlink(), r"mask 00002 .* no frame of that name"),
        (lambda r: (r / "ImageSets/2017/val.txt").unlink(), r"2017/val.txt does not exist; found .*all.txt.*--split"),
        (lambda r: (r / "ImageSets/2017/val.txt").write_text("\n"), "lists no sequences"),
        (lambda r: (r / "ImageSets/2017/val.txt").write_bytes(b"tw\xf6"), r"val\.txt cannot be read as a list"),
        (lambda r: [p.unlink() for p in (r / "Annotations/480p/two").iterdir()], "holds no masks"),
    ],
)
def test_other_layouts_are_named(davis: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(davis)
    with pytest.raises(UsageError, match=message):
        find_davis(davis, 2017)


def test_unknown_split_and_sequence(davis: Path) -> None:
    with pytest.raises(UsageError, match=r"split 'test-dev' was not found; .*ImageSets for test-dev\.txt; found .*all"):
        find_davis(davis, 2017, split="test-dev")
    with pytest.raises(UsageError, match=r"no sequence bear in split 'val'; it has one, two"):
        find_davis(davis, 2017, sequences=["bear"])


# --- scores -------------------------------------------------------------------------------------------------------


def test_copied_first_masks_score_as_the_measures_say(davis: Path, tmp_path: Path, copying: NewSession) -> None:
    result = bench(davis, sequences=["two"]).run(stepping(copying), tmp_path / "out", {"model": "copy"})
    assert result is not None
    first = read_labels(davis / "Annotations/480p/two/00000.png")
    wanted = []
    for frame in ("00001", "00002", "00003"):
        truth = read_labels(davis / f"Annotations/480p/two/{frame}.png")
        for id_ in (1, 2):
            wanted.append(
                (region_similarity(truth == id_, first == id_), boundary_measure(truth == id_, first == id_, 1))
            )
    region, boundary = np.mean(wanted, axis=0)
    assert result.figures["J mean"] == pytest.approx(region)
    assert result.figures["F mean"] == pytest.approx(boundary)
    assert result.value == pytest.approx((region + boundary) / 2)
    assert set(result.rows) == {"two", "two/1", "two/2"}
    assert list(result.frames["two"]) == ["00001", "00002", "00003"]
    # 7/9, 6/10 and 5/11 of the union: J by hand.
    assert region == pytest.approx((56 / 72 + 48 / 80 + 40 / 88) / 3)


def test_run_and_scoring_its_masks_agree(davis: Path, tmp_path: Path, copying: NewSession) -> None:
    benchmark = bench(davis)
    run = benchmark.run(stepping(copying), tmp_path / "out", {})
    again = benchmark.score(tmp_path / "out" / "masks", {})
    assert run is not None
    assert (run.figures, run.rows, run.frames) == (again.figures, again.rows, again.frames)
    assert load_result(tmp_path / "out") == run


@pytest.mark.parametrize("year", [2016, 2017])
def test_a_method_that_knows_scores_one(davis: Path, tmp_path: Path, knowing: NewSession, year: int) -> None:
    result = bench(davis, year, split="all").run(stepping(knowing), tmp_path / "out", {})
    assert result is not None
    assert (result.value, result.figures["J recall"], result.figures["F decay"]) == (1.0, 1.0, 0.0)
    assert "two/1" in result.rows if year == 2017 else "two/1" not in result.rows


def test_davis_2016_merges_objects(davis: Path, tmp_path: Path) -> None:
    results = perfect(davis, tmp_path / "results", "one", "two")
    for path in (results / "two").iterdir():
        labels = read_labels(path)
        write_labels(path, np.where(labels > 0, 3 - labels, 0))  # ids swapped
    assert bench(davis, 2016).score(results, {}).value == 1.0
    assert bench(davis, 2017).score(results, {}).rows["two"]["J mean"] == 0.0


def test_0_1_results_for_0_255_truth_and_the_other_way(davis: Path, tmp_path: Path) -> None:
    results = perfect(davis, tmp_path / "results", "one", "white")
    for name, value in (("white", 1), ("one", 255)):
        for path in (results / name).iterdir():
            write_labels(path, np.where(read_labels(path) > 0, value, 0))
    for year in (2016, 2017):
        assert bench(davis, year, split="all", sequences=["one", "white"]).score(results, {}).value == 1.0


def test_grey_masks_with_an_alpha_channel(davis: Path, tmp_path: Path) -> None:
    results = perfect(davis, tmp_path / "results", "white")
    for path in (results / "white").iterdir():
        grey = Image.fromarray(read_labels(path).astype(np.uint8))
        Image.merge("LA", [grey, Image.new("L", grey.size, 255)]).save(path)
    assert bench(davis, 2016, split="all", sequences=["white"]).score(results, {}).value == 1.0


def test_void_is_scored_nowhere(davis: Path, tmp_path: Path) -> None:
    results = perfect(davis, tmp_path / "results", "one", "two")
    for path in (davis / "Annotations/480p/two").iterdir():
        labels = read_labels(path)
        labels[30:, :] = 255
        write_labels(path, labels)
    for path in (results / "two").iterdir():
        labels = read_labels(path)
        labels[30:, 10:20] = 1
        write_labels(path, labels)
    for year in (2016, 2017):
        assert bench(davis, year).score(results, {}).value == 1.0


def test_an_object_that_is_not_in_the_first_frame_does_not_count_and_is_noted(davis: Path, tmp_path: Path) -> None:
    path = davis / "Annotations/480p/one/00002.png"
    labels = read_labels(path)
    labels[30:38, 30:38] = 4
    write_labels(path, labels)
    result = bench(davis).score(perfect(davis, tmp_path / "results", "one", "two"), {})
    assert result.value == 1.0
    assert result.notes == ("one: object 4 first appears in frame 00002 and does not count, as in the toolkit",)


def test_an_object_that_enters_with_a_smaller_id_counts_and_is_noted(davis: Path, tmp_path: Path) -> None:
    for path in (davis / "Annotations/480p/two").iterdir():
        labels = read_labels(path).astype(np.int32)
        labels = np.choose(labels, [0, 1, 3])
        if path.stem >= "00002":
            labels[30:38, 30:38] = 2
        write_labels(path, labels)
    results = perfect(davis, tmp_path / "results", "one", "two")
    for path in (results / "two").iterdir():
        labels = read_labels(path)
        write_labels(path, np.where(labels == 2, 0, labels))  # no method is given it
    result = bench(davis).score(results, {})
    assert result.rows["two/1"]["J&F"] == result.rows["two/3"]["J&F"] == 1.0
    assert result.rows["two/2"]["J mean"] == pytest.approx(1 / 3)  # of the three frames scored, it is in two
    assert result.notes == (
        "two: object 2 first appears in frame 00002 and counts, as in the toolkit, although no method is given it",
    )


@pytest.mark.parametrize("year", [2016, 2017])
def test_a_truth_with_soft_edges_is_refused(davis: Path, tmp_path: Path, year: int) -> None:
    results = perfect(davis, tmp_path / "results", "one", "white")
    benchmark, white = bench(davis, year, split="all", sequences=["one", "white"]), davis / "Annotations/480p/white"
    hard = Image.new("L", (48, 40))
    hard.paste(255, (8, 8, 40, 32))
    soft = hard.filter(ImageFilter.GaussianBlur(1))
    soft.save(white / "00002.png")
    with pytest.raises(UsageError, match=r"white/00002\.png has \d+ beside 255, which the first mask has alone"):
        benchmark.score(results, {})
    cubic = Image.Resampling.BICUBIC
    hard.resize((45, 37), cubic).resize(hard.size, cubic).save(white / "00000.png")
    with pytest.raises(UsageError, match=r"white/00000\.png has \d+ different values above 0, as a mask with soft"):
        benchmark.score(results, {})


def test_a_sequence_too_short_to_be_scored_is_named_before_anything_runs(davis: Path, tmp_path: Path) -> None:
    for path in davis.glob("*/480p/two/*"):
        if path.stem > "00001":
            path.unlink()
    with pytest.raises(UsageError, match=r"sequence two has 2 frames; .* at least 3 are needed"):
        bench(davis).run(stepping(never), tmp_path / "out", {})


def never() -> Session:
    raise AssertionError("no model should be asked")


def test_first_and_last_frame_may_be_missing(davis: Path, tmp_path: Path) -> None:
    results = perfect(davis, tmp_path / "results", "one", "two")
    for frame in ("00000", "00004"):
        (results / "two" / f"{frame}.png").unlink()
    assert bench(davis).score(results, {}).value == 1.0


def spoil_size(r: Path) -> None:
    write_labels(r / "two/00003.png", np.ones((40, 47), np.int32))


def spoil_extra_object(r: Path) -> None:
    labels = read_labels(r / "two/00003.png")
    labels[0, 0] = 9
    write_labels(r / "two/00003.png", labels)


def spoil_missing_object(r: Path) -> None:
    for path in (r / "two").iterdir():
        labels = read_labels(path)
        write_labels(path, np.where(labels == 2, 0, labels))


def spoil_rgb(r: Path) -> None:
    Image.new("RGB", (48, 40)).save(r / "two/00003.png")


def spoil_truncated(r: Path) -> None:
    path = r / "two/00003.png"
    path.write_bytes(path.read_bytes()[:60])


def spoil_names(r: Path) -> None:
    for path in (r / "two").iterdir():
        path.rename(path.with_name(f"frame_{path.name}"))


def spoil_jpeg(r: Path) -> None:
    for path in (r / "two").iterdir():
        Image.fromarray(read_labels(path).astype(np.uint8)).save(path.with_suffix(".jpg"))
        path.unlink()


def spoil_soft(r: Path) -> None:
    Image.fromarray(np.arange(40 * 48, dtype=np.uint16).reshape(40, 48).astype(np.uint8)).save(r / "two/00003.png")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: (r / "two/00003.png").unlink(), r"two/00003\.png is missing; 4 of 5 masks are there"),
        (lambda r: shutil.copy(r / "two/00003.png", r / "two/00009.png"), r"00009\.png belongs to no frame of two"),
        (
            lambda r: shutil.rmtree(r / "two"),
            r"two: there is no such folder; the results lack sequence two\. Found one/",
        ),
        (lambda r: shutil.rmtree(r), "there is no such folder"),
        (spoil_names, r"two/00001\.png is missing; 0 of 5 .* 5 files that belong to no frame, frame_00000\.png first"),
        (spoil_jpeg, r"two/00000\.jpg is not a PNG"),
        (spoil_size, r"two/00003\.png is 47x40 pixels and the truth 48x40"),
        (spoil_extra_object, r"two/00003\.png has object 9; the objects of two are 1, 2"),
        (spoil_missing_object, r"two: object 2 of two is in none of its 5 masks"),
        (spoil_rgb, r"two/00003\.png is not an index mask but a picture of mode RGB"),
        (spoil_truncated, r"two/00003\.png cannot be read as a mask"),
        (spoil_soft, r"two/00003\.png has 255 different values"),
    ],
)
def test_bad_results_name_the_file(davis: Path, tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    results = perfect(davis, tmp_path / "results", "one", "two")
    spoil(results)
    with pytest.raises(UsageError, match=message):
        bench(davis).score(results, {})


def test_truth_of_two_sizes_and_an_empty_first_mask(davis: Path, tmp_path: Path) -> None:
    results = perfect(davis, tmp_path / "results", "one", "two")
    write_labels(davis / "Annotations/480p/two/00003.png", np.ones((40, 47), np.int32))
    with pytest.raises(UsageError, match=r"00003\.png is 47x40 pixels and the first mask 48x40"):
        bench(davis).score(results, {})
    write_labels(davis / "Annotations/480p/one/00000.png", np.zeros((40, 48), np.int32))
    with pytest.raises(UsageError, match=r"one/00000\.png is empty"):
        bench(davis).score(results, {})


def test_a_part_of_a_split_and_a_list_of_ones_own_are_noted(davis: Path, tmp_path: Path) -> None:
    assert find_davis(davis, 2017).notes == ()
    assert find_davis(davis, 2017, split="all").notes == ()
    assert find_davis(davis, 2017, sequences=["two"]).notes == ("only 1 of the 2 sequences of val",)
    (tmp_path / "val.txt").write_text("one\n")
    own = find_davis(davis, 2017, split=str(tmp_path / "val.txt"))
    assert own.notes == (f"the split is a list of one's own, {tmp_path / 'val.txt'}",)


# --- runs ---------------------------------------------------------------------------------------------------------


def test_shards_give_the_identical_result(davis: Path, tmp_path: Path, copying: NewSession) -> None:
    benchmark = bench(davis, split="all")
    whole = benchmark.run(stepping(copying), tmp_path / "whole", {"model": "copy"})
    parts = [benchmark.run(stepping(copying), tmp_path / "parts", {"model": "copy"}, shard=Shard(i, 2)) for i in (1, 0)]
    assert parts[0] is None
    assert whole is not None
    assert parts[1] is not None
    left, right = (json.loads(r.to_json()) for r in (whole, parts[1]))
    assert left.pop("files") != right.pop("files")  # two output folders
    assert left == right


def test_a_stopped_run_goes_on_where_it_was(davis: Path, tmp_path: Path, copying: NewSession) -> None:
    benchmark = bench(davis)
    seen: list[str] = []

    def breaking(frames: Iterable[Frame], annotation_of: AnnotationOf) -> Iterator[tuple[Frame, FrameResult]]:
        for frame, result in stepping(copying)(frames, annotation_of):
            seen.append(frame.name)
            if len(seen) == 8:
                raise SegicError("the device is gone")
            yield frame, result

    with pytest.raises(SegicError, match="device"):
        benchmark.run(breaking, tmp_path / "out", {})
    assert [p.name for p in (tmp_path / "out" / "masks").iterdir()] == ["one"]
    seen.clear()
    result = benchmark.run(breaking, tmp_path / "out", {})
    assert result is not None
    assert len(seen) == 5  # only "two" was run again


def test_a_full_disk_is_told_of_masks(
    davis: Path, tmp_path: Path, copying: NewSession, room: Callable[[int], AbstractContextManager[None]]
) -> None:
    benchmark = bench(davis)

    def on_a_full_disk(frames: Iterable[Frame], annotation_of: AnnotationOf) -> Iterator[tuple[Frame, FrameResult]]:
        for frame, result in stepping(copying)(frames, annotation_of):
            with room(50):
                yield frame, result

    with pytest.raises(SegicError, match=r"00000\.png: cannot be written: File too large"):
        benchmark.run(on_a_full_disk, tmp_path / "out", {})
    assert list((tmp_path / "out" / "masks").iterdir()) == []
    assert benchmark.run(stepping(copying), tmp_path / "out", {}) is not None


def test_a_run_does_not_go_on_with_other_data_of_the_same_names(
    davis: Path, tmp_path: Path, copying: NewSession
) -> None:
    bench(davis).run(stepping(copying), tmp_path / "out", {})
    bench(davis).run(stepping(never), tmp_path / "out", {})  # nothing is left to do
    picture = davis / "JPEGImages/480p/two/00000.png"
    Image.open(picture).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(picture)
    with pytest.raises(UsageError, match=r"other settings \(data_sha256 was '\w{16}' and is '\w{16}'\)"):
        bench(davis).run(stepping(never), tmp_path / "out", {})


def test_runs_of_other_settings_do_not_mix(davis: Path, tmp_path: Path, copying: NewSession) -> None:
    bench(davis).run(stepping(copying), tmp_path / "out", {"model": {"size": 896, "name": "copy"}})
    with pytest.raises(UsageError, match=r"other settings \(model\.size was 896 and is 448\); choose another folder"):
        bench(davis).run(stepping(copying), tmp_path / "out", {"model": {"size": 448, "name": "copy"}})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(UsageError, match="no run to go on with"):
        bench(davis).run(stepping(copying), tmp_path / "mine", {})


def test_a_method_sees_the_first_mask_only(davis: Path, tmp_path: Path, copying: NewSession) -> None:
    given: list[tuple[str, tuple[int, ...]]] = []

    def watching(frames: Iterable[Frame], annotation_of: AnnotationOf) -> Iterator[tuple[Frame, FrameResult]]:
        def note(frame: Frame) -> object:
            annotation = annotation_of(frame)
            if annotation:
                given.append((frame.name, annotation.ids))
            return annotation

        yield from stepping(copying)(frames, note)  # type: ignore[arg-type]

    bench(davis, sequences=["two"]).run(watching, tmp_path / "a", {})
    bench(davis, 2016, sequences=["two"]).run(watching, tmp_path / "b", {})
    bench(davis, 2016, split="all", sequences=["white"]).run(watching, tmp_path / "c", {})
    assert given == [("00000", (1, 2)), ("00000", (1,)), ("00000", (255,))]


def test_frames_of_another_size_than_the_mask(davis: Path, tmp_path: Path, copying: NewSession) -> None:
    Image.new("RGB", (50, 40)).save(davis / "JPEGImages/480p/one/00000.png")
    with pytest.raises(UsageError, match=r"one/00000\.png is 48x40 pixels and its frame 50x40"):
        bench(davis).run(stepping(copying), tmp_path / "out", {})


def test_masks_alone_cannot_be_run_on(davis: Path, tmp_path: Path, copying: NewSession) -> None:
    shutil.rmtree(davis / "JPEGImages")
    with pytest.raises(UsageError, match="one has masks and no frames"):
        bench(davis).run(stepping(copying), tmp_path / "out", {})


# --- the official toolkit -----------------------------------------------------------------------------------------


def test_official_toolkit_is_used_where_it_is_installed(
    davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = ModuleType("davis2017.metrics")
    fake.db_eval_iou = lambda truth, got, void: 0.25  # type: ignore[attr-defined]
    fake.db_eval_boundary = lambda truth, got, void: 0.75  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "davis2017", ModuleType("davis2017"))
    monkeypatch.setitem(sys.modules, "davis2017.metrics", fake)
    results = perfect(davis, tmp_path / "results", "one", "two")
    result = replace(bench(davis), toolkit=find_toolkit("official")).score(results, {})
    assert (result.figures["J mean"], result.figures["F mean"], result.value) == (0.25, 0.75, 0.5)


def test_official_toolkit_is_missed_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "davis2017.metrics", None)
    with pytest.raises(UsageError, match="needs the package davis2017"):
        find_toolkit("official")


# --- shards -------------------------------------------------------------------------------------------------------


def test_shards_cover_everything_once() -> None:
    items = list(range(11))
    parts = [Shard(i, 3).select(items) for i in range(3)]
    assert sorted(x for part in parts for x in part) == items
    assert Shard.parse("1/2") == Shard(1, 2)
    assert Shard.from_environment({"RANK": "2", "WORLD_SIZE": "4"}) == Shard(2, 4)
    assert Shard.from_environment({}) == Shard(0, 1)
    for wrong in ({"WORLD_SIZE": "2"}, {"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}):
        with pytest.raises(UsageError, match="torchrun"):
            Shard.from_environment(wrong)


@pytest.mark.parametrize("text", ["2/2", "1", "a/b", "0/0", "-1/2", "1/2/3"])
def test_bad_shards(text: str) -> None:
    with pytest.raises(UsageError, match="shard"):
        Shard.parse(text)
