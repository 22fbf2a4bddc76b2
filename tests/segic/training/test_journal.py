"""What a run says of itself while it goes."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from segic.errors import SegicError
from segic.training.feeds import Skipped
from segic.training.journal import Journal
from segic.training.reports import StepReport
from segic.training.run_folder import RunFolder, read_lines


def report(step: int, norm: float = 1.0, skipped: tuple[Skipped, ...] = ()) -> StepReport:
    return StepReport(step, {"loss": 1.0 / step, "iou": 0.5}, 1e-3, norm, 2.0, 8, 0.01, 1000, skipped)


def test_lines_say_how_much_is_left_and_what_was_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(RunFolder(tmp_path), every=2)
    journal.begin(0, 6)
    for step in range(1, 5):
        journal.step(report(step, math.nan if step == 4 else 1.0))
    journal.close()
    first, second, note = capsys.readouterr().err.splitlines()
    assert first.startswith("step 2/6 loss 0.750 IoU 0.500")
    assert first.endswith("4.0 images/s waiting 1.0% left 0:00:08")
    assert second.endswith("left 0:00:04")
    assert note == "note: 1 of the last 2 steps changed nothing: no finite gradient"
    assert [(event["norm"], event["steps_lost"]) for event in RunFolder(tmp_path).events()] == [(1.0, 0), (None, 1)]


def test_a_bar_shows_losses_from_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    journal = Journal(RunFolder(tmp_path))
    journal.begin(4, 6)
    journal.step(report(5))
    journal.close()
    assert "5/6" in (shown := capsys.readouterr().err)
    assert "loss=0.200, IoU=0.500, images/s=4.0" in shown


def test_files_left_out_are_named_and_the_rest_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path)
    journal = Journal(run)
    journal.begin(0, 100)
    for step in range(1, 9):
        journal.step(report(step, skipped=(Skipped(f"{step}.jpg", "does not decode"), Skipped("1.jpg", "again"))))
    journal.close()
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "note: 1.jpg is left out: does not decode"
    assert said[-1] == f"note: others that are left out are listed in {run.skipped}"
    assert len(said) == 6
    assert len(list(read_lines(run.skipped))) == 8


def test_without_tensorboard_a_note_says_where_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segic.training.journal._board", lambda run, start: None)
    journal = Journal(RunFolder(tmp_path))
    journal.begin(0, 2)
    journal.close()
    assert "pip install 'segic[train]'" in capsys.readouterr().err


def test_a_resumed_run_lists_no_file_twice(tmp_path: Path) -> None:
    run, broken = RunFolder(tmp_path), (Skipped("a.jpg", "does not decode"),)
    for start in (0, 1):
        journal = Journal(run, quiet=True)
        journal.begin(start, 2)
        journal.step(report(start + 1, skipped=broken))
        journal.close()
    assert [line["file"] for line in read_lines(run.skipped)] == ["a.jpg"]


def test_curves_of_a_killed_session_are_taken_back(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for start in (0, 1):  # the first session was killed after step 3, its last checkpoint is of step 1
        journal = Journal(RunFolder(tmp_path), quiet=True, every=1)
        journal.begin(start, 9)
        for step in range(start + 1, 4 - start):
            journal.step(report(step))
        journal.close()
        time.sleep(1.1)  # files are read in the order of their names, which tell seconds apart
    events = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [scalar.step for scalar in events.Scalars("train/loss")] == [1, 2]


def test_a_full_disk_under_the_curves_stops_with_a_message(tmp_path: Path) -> None:
    class Full:
        def add_scalar(self, *_: object) -> None:
            raise OSError(28, "No space left on device")

        close = add_scalar

    journal = Journal(RunFolder(tmp_path), quiet=True, every=1)
    journal.begin(0, 2)
    journal._board = Full()
    with pytest.raises(SegicError, match=r"tensorboard cannot be written: .*No space left on device.*--resume"):
        journal.step(report(1))
    journal.close()
