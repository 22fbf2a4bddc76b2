"""Records of finished frames: none without its mask, and none without those before it."""

from __future__ import annotations

import threading
import time
from collections import deque
from itertools import starmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segic_vos.frames import Frame, FrameResult
from segic_vos.records import FrameRecord, RecordWriter, read_records
from segic_vos.threads import Behind


class SlowMasks:
    """Takes a while for each frame; fails at one."""

    def __init__(self, fail_at: int | None = None, delay: float = 0.002) -> None:
        self.finished: list[int] = []
        self.closed = 0
        self._fail_at, self._delay = fail_at, delay

    def write(self, frame: Frame, result: FrameResult) -> None:
        time.sleep(self._delay)
        if frame.index == self._fail_at:
            raise OSError("no room")
        self.finished.append(frame.index)

    def close(self) -> None:
        self.closed += 1


def frame(index: int) -> tuple[Frame, FrameResult]:
    labels = np.full((2, 3), 7 if index % 2 else 0, np.int32)
    return Frame(index, f"{index:05d}", np.zeros((2, 3, 3), np.uint8)), FrameResult(labels, (7,), {7: 0.5})


def in_a_thread(path: Path, masks: SlowMasks, busy: list[float]) -> tuple[Behind, RecordWriter]:
    records = RecordWriter(path, masks)
    return Behind(records, depth=4, on_busy=busy.append), records


def writing_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("write-")]


def test_every_frame_has_its_record_in_order_and_never_before_its_mask(tmp_path: Path) -> None:
    masks, busy = SlowMasks(), []
    writer, records = in_a_thread(tmp_path / "frames.jsonl", masks, busy)
    for index in range(20):
        writer.put(*frame(index))
        recorded = list(read_records(tmp_path / "frames.jsonl"))
        assert len(recorded) <= len(masks.finished)
    writer.close()
    assert [record.index for record in read_records(tmp_path / "frames.jsonl")] == masks.finished == list(range(20))
    assert records.statistics.frames == 20
    assert masks.closed == 1
    assert sum(busy) > 20 * 0.002
    assert not writing_threads()


def test_a_record_does_not_wait_for_the_next_frame(tmp_path: Path) -> None:
    writer, _ = in_a_thread(tmp_path / "frames.jsonl", SlowMasks(), [])
    writer.put(*frame(0))
    deadline = time.monotonic() + 5
    while not list(read_records(tmp_path / "frames.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(list(read_records(tmp_path / "frames.jsonl"))) == 1
    writer.close()


@pytest.mark.parametrize("fail_at", [0, 5, 18, 19])
def test_nothing_is_written_after_a_mask_that_could_not_be(tmp_path: Path, fail_at: int) -> None:
    masks = SlowMasks(fail_at)
    writer, _ = in_a_thread(tmp_path / "frames.jsonl", masks, [])
    told = 0
    for index in range(20):
        try:
            writer.put(*frame(index))
        except OSError:
            told += 1
            break
    try:
        writer.close()
    except OSError:
        told += 1
    assert told == 1
    assert (
        masks.finished == [record.index for record in read_records(tmp_path / "frames.jsonl")] == list(range(fail_at))
    )
    assert masks.closed == 1
    assert not writing_threads()


def test_a_record_that_cannot_be_written_stops_the_masks_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> FrameRecord:
        raise OSError("no room")

    monkeypatch.setattr(FrameRecord, "of", full)
    masks = SlowMasks()
    writer, _ = in_a_thread(tmp_path / "frames.jsonl", masks, [])
    frames = (frame(index) for index in range(1000))
    with pytest.raises(OSError, match="no room"):
        deque(starmap(writer.put, frames))
    writer.close()
    assert len(masks.finished) < 20
    assert masks.closed == 1
    assert not writing_threads()


FLOATS = st.floats(-2, 2).map(lambda value: round(value, 4))
IDS = st.integers(1, 65535)


@given(
    st.dictionaries(IDS, st.integers(0, 2**31)), st.dictionaries(IDS, FLOATS), st.dictionaries(IDS, FLOATS),
    st.frozensets(IDS),
)  # fmt: skip
def test_a_record_is_what_was_written(
    areas: dict[int, int], scores: dict[int, float], likeness: dict[int, float], away: frozenset[int]
) -> None:
    record = FrameRecord(3, "00003", False, areas, scores, likeness, away)
    assert FrameRecord.from_json(record.to_json()) == record


def test_a_record_of_an_earlier_version_is_read() -> None:
    record = FrameRecord.from_json('{"index": 3, "name": "3", "given": false, "areas": {"1": 5}, "scores": {"1": 0.5}}')
    assert record == FrameRecord(3, "3", False, {1: 5}, {1: 0.5}, {}, frozenset())


@given(st.lists(st.integers(0, 300), min_size=6, max_size=6), st.sets(st.integers(1, 300), min_size=1, max_size=40))
def test_areas_are_pixels_by_id(values: list[int], ids: set[int]) -> None:
    labels = np.array(values, np.int32).reshape(2, 3)
    record = FrameRecord.of(frame(0)[0], FrameResult(labels, tuple(sorted(ids))))
    assert record.areas == {key: values.count(key) for key in ids}


def test_a_last_record_that_lacks_its_newline_does_not_count(tmp_path: Path) -> None:
    """The next one would be written on the same line."""
    path = tmp_path / "frames.jsonl"
    lines = [FrameRecord(i, f"{i:05d}", False, {1: 4}, {1: 0.5}).to_json() for i in range(3)]
    path.write_text("\n".join(lines))
    assert [record.index for record in read_records(path)] == [0, 1]
    path.write_text("\n".join(lines) + "\n")
    assert [record.index for record in read_records(path)] == [0, 1, 2]
