"""Resuming and merging the records of many small items."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from segic.errors import SegicError, UsageError
from segic_benchmarks.items import Counts, Record, ratios, run_items
from segic_benchmarks.shards import Shard

Room = Callable[[int], AbstractContextManager[None]]


@dataclass(frozen=True)
class Number:
    key: str


NUMBERS = [Number(str(n)) for n in range(7)]


def work(item: Number) -> Counts:
    return {"even" if int(item.key) % 2 == 0 else "odd": (int(item.key), 10)}


def test_records_come_in_the_items_order(tmp_path: Path) -> None:
    records = run_items(NUMBERS, work, tmp_path)
    assert records is not None
    assert [r.key for r in records] == [n.key for n in NUMBERS]
    assert ratios(records) == {"even": 12 / 40, "odd": 9 / 30}


def test_shards_merge_to_the_same(tmp_path: Path) -> None:
    parts = [run_items(NUMBERS, work, tmp_path / "parts", shard=Shard(i, 3)) for i in (2, 0, 1)]
    assert parts[:2] == [None, None]
    assert parts[2] == run_items(NUMBERS, work, tmp_path / "whole")


def test_a_killed_run_repeats_only_its_last_item(tmp_path: Path) -> None:
    done: list[str] = []

    def counted(item: Number) -> Counts:
        done.append(item.key)
        return work(item)

    whole = run_items(NUMBERS, counted, tmp_path)
    path = tmp_path / "items-0-of-1.jsonl"
    text = path.read_text()
    path.write_text(text[: len(text) - 9])  # the last line was cut off
    done.clear()
    assert run_items(NUMBERS, counted, tmp_path) == whole
    assert done == ["6"]


def test_a_full_disk_is_told_and_the_run_goes_on(tmp_path: Path, room: Room) -> None:
    with room(100), pytest.raises(SegicError, match=r"items-0-of-1\.jsonl: cannot be written: File too large"):
        run_items(NUMBERS, work, tmp_path)
    lines = (tmp_path / "items-0-of-1.jsonl").read_text().split("\n")
    assert len(lines) == 3
    assert lines[-1]  # cut off
    done: list[str] = []

    def counted(item: Number) -> Counts:
        done.append(item.key)
        return work(item)

    assert run_items(NUMBERS, counted, tmp_path) == [Record(item.key, work(item)) for item in NUMBERS]
    assert done == ["2", "3", "4", "5", "6"]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    run_items(NUMBERS, work, tmp_path)
    path = tmp_path / "items-0-of-1.jsonl"
    path.write_text(path.read_text().replace('"key": "3"', '"kye": "3"'))
    with pytest.raises(UsageError, match=r"items-0-of-1\.jsonl, line 4 is damaged"):
        run_items(NUMBERS, work, tmp_path)


def test_classes_without_a_whole_have_no_ratio() -> None:
    assert ratios([Record("a", {"x": (0, 0), "y": (1, 4)})]) == {"y": 0.25}
