"""The output folder's summary on a disk without room."""

from __future__ import annotations

import json

import pytest

from segic.errors import SegicError
from segic.files import writing
from segic_vos import outputs as module
from segic_vos.outputs import Outputs
from segic_vos.records import FrameRecord

RUNNING = {"program": "segic", "status": "running"}


@pytest.fixture
def full_disk(monkeypatch):
    """No second copy of a file has room from the call on."""

    def full(path, data):
        with writing(path):
            raise OSError(28, "No space left on device")

    return lambda: monkeypatch.setattr(module, "write_whole", full)


def test_the_summary_of_a_run_that_filled_the_disk_is_written_in_place(tmp_path, full_disk, room):
    outputs = Outputs(tmp_path)
    outputs.write_summary(RUNNING)
    size = outputs.summary.stat().st_size
    full_disk()
    failed = {**RUNNING, "status": "failed", "notes": ["x" * 8000]}
    with room(size):
        outputs.write_summary(failed)
    assert outputs.read_summary() == json.loads(outputs.summary.read_text()) == failed
    with room(size), pytest.raises(SegicError):
        outputs.write_summary({**failed, "notes": ["x" * 2 * size]})
    assert outputs.read_summary() == failed


def test_overwriting_removes_what_the_earlier_run_names(tmp_path):
    """An overlay of an earlier version of a folder, which its summary does not name, is not its own."""
    outputs, frames = Outputs(tmp_path), ("00000", "00001")
    theirs = [outputs.rle, outputs.records, *(outputs.masks / f"{name}.png" for name in frames)]
    theirs += [outputs.soft / "7" / f"{name}.png" for name in frames] + [outputs.masks / ".00002.png.41.part"]
    own = [outputs.overlay, outputs.masks / "00002.png", outputs.soft / "8" / "00000.png", tmp_path / "notes.txt"]
    for path in (*theirs, *own):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    lines = [FrameRecord(i, name, False, {7: 3}, {7: 0.5}).to_json() + "\n" for i, name in enumerate(frames)]
    outputs.records.write_text("".join(lines))
    outputs.write_summary({"program": "segic", "outputs": {"masks": "m", "rle": "r", "soft": "s"}})
    outputs.create("overwrite")
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(own)
    assert not (outputs.soft / "7").exists()


def test_overwriting_removes_masks_of_frames_that_a_killed_run_did_not_come_to_name(tmp_path):
    outputs = Outputs(tmp_path)
    theirs = [outputs.masks / "00008.png", outputs.soft / "1" / "00009.png"]
    own = [outputs.masks / "mine.png", outputs.soft / "1" / "mine.png", outputs.soft / "mine" / "00008.png"]
    for path in (*theirs, *own):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    outputs.write_summary({"program": "segic", "status": "running"})
    outputs.create("overwrite", str.isdecimal)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(own)


def test_a_full_disk_before_the_first_summary_leaves_none(tmp_path, full_disk):
    full_disk()
    with pytest.raises(SegicError, match=r"summary\.json: the disk is full"):
        Outputs(tmp_path).write_summary(RUNNING)
    assert list(tmp_path.iterdir()) == []
