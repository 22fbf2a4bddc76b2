"""Which finished frames are looked at again by a run that goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segic_vos.frames import Annotation, Frame
from segic_vos.outputs import Outputs
from segic_vos.pending import Pending
from segic_vos.records import FrameRecord
from segic_vos.resume import Finished, finished_frames, mask_path, replay

PICTURE = np.zeros((4, 6, 3), np.uint8)
MASKS = Annotation(np.eye(4, 6, dtype=np.int32), (1,))


class Told:
    """A session that writes down what it is told of every frame."""

    def __init__(self) -> None:
        self.frames: list[str] = []

    def encode(self, pixels: np.ndarray, *, whole: bool) -> bool:
        return whole

    def submit(self, encoded: bool, annotation: Annotation | None = None) -> Pending:
        raise AssertionError("a finished frame is not predicted again")

    def remember(
        self, encoded: bool, labels: np.ndarray, scores: dict[int, float], annotation: Annotation | None
    ) -> None:
        assert encoded == (annotation is not None)
        self.frames.append(f"remembered {scores[1]}" if annotation is None else "given")

    def skip(self) -> None:
        self.frames.append("skipped")

    def recall(self, likeness: dict[int, float], away: frozenset[int]) -> None:
        self.frames[-1] += f", {likeness} and {set(away)} recalled"


def record(index: int, score: float = 0.9, area: int = 4, given: bool = False) -> FrameRecord:
    return FrameRecord(index, f"{index:05d}", given, {1: area}, {1: score})


def told(tmp_path: Path, records: list[FrameRecord], renew_every: int) -> list[str]:
    outputs = Outputs(tmp_path)
    outputs.masks.mkdir(parents=True)
    outputs.records.write_text("".join(one.to_json() + "\n" for one in records))
    for one in records:
        Image.fromarray(MASKS.labels.astype(np.uint8)).save(mask_path(outputs, one.name))
    session = Told()
    frames = iter(Frame(one.index, one.name, PICTURE) for one in records)
    replay(
        frames, Finished(len(records)), outputs, session=session, recent=1, renew_every=renew_every,
        annotation_of=lambda frame: MASKS if records[frame.index].given else None, sinks=[],
        on_result=lambda _frame, _result: None,
    )  # fmt: skip
    return session.frames


FOUND = [record(0, given=True), *(record(i) for i in range(1, 10))]


@pytest.mark.parametrize(
    ("changed", "renew_every", "expected"),
    [
        pytest.param({}, 0, {8, 9}, id="never renewed"),
        pytest.param({}, 4, {7, 8, 9}, id="renewed at 8, which the last two are near"),
        pytest.param({}, 6, {5, 6, 8, 9}, id="renewed at 6"),
        pytest.param({8: record(8, score=0.4)}, 4, {3, 4, 8, 9}, id="uncertain at 8, so renewed at 4"),
        pytest.param({8: record(8, area=0)}, 4, {3, 4, 8, 9}, id="nobody there at 8"),
        pytest.param(
            {i: record(i, area=0) for i in range(4, 10)}, 0, {3, 4, 8, 9}, id="out of sight, and last seen at 3"
        ),
        pytest.param({i: record(i, area=0) for i in (4, 5)}, 0, {8, 9}, id="back in sight"),
        pytest.param({3: record(3, given=True)}, 4, {6, 7, 8, 9}, id="counted from the last given masks"),
        pytest.param({7: record(7, given=True)}, 5, {4, 5, 8, 9}, id="renewed before the last given masks"),
        pytest.param({}, 10, {8, 9}, id="not yet"),
    ],
)
def test_frames_that_are_remembered(
    tmp_path: Path, changed: dict[int, FrameRecord], renew_every: int, expected: set[int]
) -> None:
    records = [changed.get(one.index, one) for one in FOUND]
    given = {one.index for one in records if one.given}
    frames = told(tmp_path, records, renew_every)
    assert {i for i, what in enumerate(frames) if what.startswith("remembered")} == expected
    assert {i for i, what in enumerate(frames) if what == "given"} == given
    assert {i for i, what in enumerate(frames) if what == "skipped"} == set(range(10)) - expected - given


def test_how_objects_stood_with_the_examples_is_recalled(tmp_path: Path) -> None:
    """Where it is known, as by earlier versions it was not, of the frames that are remembered."""
    records = [*FOUND[:-2], *(replace(one, likeness={1: 0.2}, away=frozenset({1})) for one in FOUND[-2:])]
    assert told(tmp_path / "known", records, 0)[-2:] == ["remembered 0.9, {1: 0.2} and {1} recalled"] * 2
    assert told(tmp_path / "unknown", records[:-2], 0)[-2:] == ["remembered 0.9"] * 2


def test_scores_are_remembered(tmp_path: Path) -> None:
    records = [*FOUND[:-1], replace(FOUND[-1], scores={1: 0.25})]
    assert told(tmp_path, records, 0)[-1] == "remembered 0.25"


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        pytest.param([], 10, id="all are there"),
        pytest.param([8, 9], 8, id="the writer of soft masks was behind"),
        pytest.param([5], 5, id="one is missing"),
        pytest.param(range(4), 10, id="they were asked for late"),
        pytest.param(range(10), 10, id="none was asked for"),
    ],
)
def test_frames_count_as_finished_with_their_soft_masks(tmp_path: Path, missing: list[int], expected: int) -> None:
    outputs = Outputs(tmp_path)
    outputs.masks.mkdir()
    (outputs.soft / "1").mkdir(parents=True)
    outputs.records.write_text("".join(one.to_json() + "\n" for one in FOUND))
    outputs.write_summary({"program": "segic", "settings": {"soft": True}})
    for one in FOUND:
        mask_path(outputs, one.name).touch()
        if one.index not in missing:
            (outputs.soft / "1" / f"{one.name}.png").touch()
    assert finished_frames(outputs, {"soft": True}, {}).frames == expected
    assert finished_frames(outputs, {"soft": False}, {}).frames == 10
