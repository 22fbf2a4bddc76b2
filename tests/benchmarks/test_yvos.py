"""YouTube-VOS: objects that enter at their own first frame, the submission, seen and unseen classes."""

import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from segic.errors import SegicError, UsageError
from segic_benchmarks.follow import AnnotationOf, stepping
from segic_benchmarks.masks import read_labels, write_labels
from segic_benchmarks.shards import Shard
from segic_benchmarks.table import result_table
from segic_benchmarks.yvos import YvosBenchmark
from segic_benchmarks.yvos_layout import find_yvos
from segic_vos.frames import Annotation, Frame, FrameResult

FRAMES = [f"{i:05d}" for i in range(0, 25, 5)]


def truth(video: str, frame: str) -> NDArray[np.uint8]:
    """Object 1 from the start, object 3 from frame 00010 on; still."""
    labels = np.zeros((30, 40), np.uint8)
    labels[2:10, 2:10] = 1
    if frame >= "00010" and video == "dogs":
        labels[15:23, 20:30] = 3
    return labels


@pytest.fixture
def yvos(tmp_path: Path) -> Path:
    """Fully annotated, so that it can be scored here: "dogs" (ids 1 seen, 3 unseen), "cats" (id 1 seen)."""
    root = tmp_path / "yvos"
    meta = {}
    for video, objects in (("dogs", {"1": "dog", "3": "yak"}), ("cats", {"1": "cat"})):
        for frame in FRAMES:
            for kind in ("Annotations", "JPEGImages"):
                path = root / "valid" / kind / video / f"{frame}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_labels(path, truth(video, frame))
        meta[video] = {"objects": {id_: {"category": c, "frames": FRAMES} for id_, c in objects.items()}}
    (root / "valid" / "meta.json").write_text(json.dumps({"videos": meta}))
    (root / "train").mkdir()
    train = {"videos": {"x": {"objects": {"1": {"category": "dog"}, "2": {"category": "cat"}}}}}
    (root / "train" / "meta.json").write_text(json.dumps(train))
    return root


class Adding:
    """Keeps every object where it was first given."""

    def __init__(self) -> None:
        self.labels: NDArray[np.int32] | None = None

    def step(self, frame_pixels: NDArray[np.uint8], annotation: Annotation | None = None) -> FrameResult:
        if self.labels is None:
            self.labels = np.zeros(frame_pixels.shape[:2], np.int32)
        if annotation is not None:
            self.labels = np.where(annotation.labels > 0, annotation.labels, self.labels)
        return FrameResult(self.labels, ())


class Forgetful(Adding):
    """Follows only what the first frame shows; masks given later are seen in their own frame alone."""

    def step(self, frame_pixels: NDArray[np.uint8], annotation: Annotation | None = None) -> FrameResult:
        if self.labels is None:
            return super().step(frame_pixels, annotation)
        shown = self.labels if annotation is None else np.where(annotation.labels > 0, annotation.labels, self.labels)
        return FrameResult(shown, ())


def test_objects_enter_at_their_own_first_frame(yvos: Path, tmp_path: Path) -> None:
    dogs = find_yvos(yvos).videos[1]
    assert dogs.entries() == {1: "00000", 3: "00010"}
    given = dogs.given()
    assert {name: a.ids for name, a in given.items()} == {"00000": (1,), "00010": (3,)}
    assert set(np.unique(given["00010"].labels)) == {0, 3}  # object 1 is not given away a second time


def test_a_method_that_keeps_still_objects_scores_one(yvos: Path, tmp_path: Path) -> None:
    outcome = YvosBenchmark(2018, find_yvos(yvos)).run(stepping(Adding), tmp_path / "out", {})
    assert outcome is not None
    archive, result = outcome
    assert result is not None
    assert (result.benchmark, result.value) == ("yvos18", 1.0)
    assert set(result.figures) == {"G", "J seen", "F seen", "J unseen", "F unseen"}
    with zipfile.ZipFile(archive) as submission:
        assert sorted(submission.namelist()) == [f"Annotations/{v}/{f}.png" for v in ("cats", "dogs") for f in FRAMES]
    np.testing.assert_array_equal(read_labels(tmp_path / "out/Annotations/dogs/00005.png"), truth("dogs", "00005"))


def test_g_is_the_mean_of_four(yvos: Path, tmp_path: Path) -> None:
    outcome = YvosBenchmark(2019, find_yvos(yvos)).run(stepping(Forgetful), tmp_path / "out", {})
    assert outcome is not None
    assert outcome[1] is not None
    # The unseen yak enters late and is forgotten at once: seen 1 and 1, unseen 0 and 0.
    assert outcome[1].figures == {"G": 0.5, "J seen": 1.0, "F seen": 1.0, "J unseen": 0.0, "F unseen": 0.0}


def test_published_validation_masks_give_a_submission_and_no_score(yvos: Path, tmp_path: Path) -> None:
    for path in (yvos / "valid/Annotations").rglob("*.png"):
        if path.stem not in ("00000", "00010") or (path.stem == "00010" and path.parent.name == "cats"):
            path.unlink()
    # As published, the later mask shows the object that enters and not the one that is known already.
    write_labels(yvos / "valid/Annotations/dogs/00010.png", np.where(truth("dogs", "00010") == 3, 3, 0))
    assert find_yvos(yvos).videos[1].entries() == {1: "00000", 3: "00010"}
    outcome = YvosBenchmark(2018, find_yvos(yvos)).run(stepping(Adding), tmp_path / "out", {})
    assert outcome is not None
    assert outcome[0].is_file()
    assert outcome[1] is None  # "dogs" too: that the later mask lacks object 1 does not mean that it is gone


def test_without_training_classes_g_is_over_all_and_says_so(yvos: Path, tmp_path: Path) -> None:
    shutil.rmtree(yvos / "train")
    result = YvosBenchmark(2018, find_yvos(yvos)).score(yvos / "valid/Annotations", {})
    assert result is not None
    assert result.figures == {"G": 1.0, "J": 1.0, "F": 1.0}
    assert "not known which classes are seen (3 of 3 objects)" in result.notes[0]
    (tmp_path / "seen.txt").write_text("dog\ncat\n")
    assert find_yvos(yvos, seen=tmp_path / "seen.txt").seen == {"dog", "cat"}


def test_all_frames_are_followed_and_the_splits_own_saved(yvos: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def follow(frames: Iterable[Frame], annotation_of: AnnotationOf) -> Iterator[tuple[Frame, FrameResult]]:
        for frame, result in stepping(Adding)(frames, annotation_of):
            seen.append(frame.name)
            yield frame, result

    for frame in range(22):
        path = yvos / "valid_all_frames/JPEGImages/cats" / f"{frame:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_labels(path, truth("cats", f"{frame:05d}"))
    dataset = find_yvos(yvos, sequences=["cats"], all_frames=True)
    YvosBenchmark(2018, dataset).run(follow, tmp_path / "out", {})
    assert len(seen) == 22
    assert [p.stem for p in sorted((tmp_path / "out/Annotations/cats").iterdir())] == FRAMES


def test_shards(yvos: Path, tmp_path: Path) -> None:
    bench = YvosBenchmark(2018, find_yvos(yvos))
    whole = bench.run(stepping(Adding), tmp_path / "whole", {})
    assert bench.run(stepping(Adding), tmp_path / "parts", {}, shard=Shard(0, 2)) is None
    parts = bench.run(stepping(Adding), tmp_path / "parts", {}, shard=Shard(1, 2))
    assert whole is not None
    assert parts is not None
    assert whole[1] == parts[1]
    assert whole[0].read_bytes() == parts[0].read_bytes()


@pytest.mark.parametrize(("size", "file"), [(300, "settings.json"), (1500, "submission.zip")])
def test_a_full_disk_is_told(
    yvos: Path, tmp_path: Path, room: Callable[[int], AbstractContextManager[None]], size: int, file: str
) -> None:
    bench = YvosBenchmark(2018, find_yvos(yvos))
    out = tmp_path / "out"
    with room(size), pytest.raises(SegicError, match=rf"/{file}: cannot be written: File too large"):
        bench.run(stepping(Adding), out, {})
    assert not list(out.rglob(".*.part"))
    assert bench.run(stepping(Adding), out, {}) is not None


def test_bad_results_name_the_file(yvos: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(yvos / "valid/Annotations", results)
    bench = YvosBenchmark(2018, find_yvos(yvos))
    write_labels(results / "dogs/00015.png", np.full((30, 40), 2))
    with pytest.raises(UsageError, match=r"dogs/00015\.png has object 2; the objects of dogs are 1, 3"):
        bench.score(results, {})
    write_labels(results / "dogs/00015.png", np.ones((30, 41), int))
    with pytest.raises(UsageError, match=r"dogs/00015\.png is 41x30 pixels and the truth 40x30"):
        bench.score(results, {})
    (results / "dogs/00015.png").unlink()
    with pytest.raises(UsageError, match=r"dogs/00015\.png: there is no such file"):
        bench.score(results, {})
    shutil.rmtree(results / "dogs")
    with pytest.raises(UsageError, match=r"dogs: there is no such folder; found cats/"):
        bench.score(results, {})


@pytest.mark.parametrize(
    ("name", "message"), [("00021.png", r"00021\.png belongs to no frame of dogs"), ("00005.jpg", "is not a PNG")]
)
def test_files_that_are_no_masks_of_the_video(yvos: Path, tmp_path: Path, name: str, message: str) -> None:
    results = tmp_path / "results"
    shutil.copytree(yvos / "valid" / "Annotations", results)
    shutil.move(results / "dogs/00005.png", results / "dogs" / name)
    with pytest.raises(UsageError, match=message):
        YvosBenchmark(2018, find_yvos(yvos)).score(results, {})


def test_an_object_that_was_forgotten_is_no_silent_zero(yvos: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(yvos / "valid/Annotations", results)
    bench = YvosBenchmark(2018, find_yvos(yvos))
    for frame in ("00015", "00020"):
        write_labels(results / f"dogs/{frame}.png", np.where(truth("dogs", frame) == 3, 0, truth("dogs", frame)))
    scored = bench.score(results, {})  # lost after its first frame: a true zero
    assert scored is not None
    assert scored.rows["dogs/3"] == {"J": 0.0, "F": 0.0}
    write_labels(results / "dogs/00010.png", truth("dogs", "00005"))
    with pytest.raises(UsageError, match=r"object 3 is in none of the masks, not even 00010\.png"):
        bench.score(results, {})


def test_other_layouts_are_named(yvos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        find_yvos(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"no video bear; it has 2 videos"):
        find_yvos(yvos, sequences=["bear"])
    with pytest.raises(UsageError, match="valid_all_frames/JPEGImages does not exist"):
        find_yvos(yvos, all_frames=True)
    (yvos / "valid/JPEGImages/cats/00020.png").unlink()
    with pytest.raises(UsageError, match=r"JPEGImages/cats has no frame 00020"):
        find_yvos(yvos)
    shutil.rmtree(yvos / "valid/JPEGImages")
    with pytest.raises(UsageError, match=r"looked for JPEGImages/VIDEO/; found Annotations/, meta.json"):
        find_yvos(yvos)
    (yvos / "valid/meta.json").write_text("[]")
    (yvos / "valid/JPEGImages").mkdir()
    with pytest.raises(UsageError, match=r"not a meta\.json of YouTube-VOS"):
        find_yvos(yvos)


def test_the_table_shows_each_objects_figures(yvos: Path) -> None:
    result = YvosBenchmark(2018, find_yvos(yvos)).score(yvos / "valid/Annotations", {})
    assert result is not None
    line = next(line for line in result_table(result).splitlines() if line.startswith("dogs/3"))
    assert line.split()[-2:] == ["100.0", "100.0"]


def test_a_part_of_the_videos_is_noted(yvos: Path) -> None:
    result = YvosBenchmark(2018, find_yvos(yvos, sequences=["dogs"])).score(yvos / "valid/Annotations", {})
    assert result is not None
    assert result.notes == ("only 1 of the 2 videos of valid",)
