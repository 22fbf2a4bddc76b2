"""The files of a training run."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from segic.errors import SegicError
from segic.training.run_folder import KEEP, RunFolder, load_checkpoint, save_checkpoint


def test_the_newest_checkpoints_are_kept_and_what_a_kill_left_goes(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.create({"name": "r"})
    for step in (1, 2):
        save_checkpoint(run, run.checkpoint(step), {"step": step})
    killed = run.checkpoint(3).with_name(f".{run.checkpoint(3).name}.12345.part")
    killed.write_bytes(b"half of it")
    save_checkpoint(run, run.checkpoint(4), {"step": 4})
    assert [load_checkpoint(path)["step"] for path in run.checkpoints()] == [2, 4][-KEEP:]
    assert not killed.exists()


def test_a_full_disk_under_the_log_is_told(
    tmp_path: Path, room: Callable[[int], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    run.append("step", {"step": 1})
    with room(40), pytest.raises(SegicError, match=r"log\.jsonl: cannot be written: File too large"):
        run.append("step", {"step": 2})
    run.append("step", {"step": 3})
    assert [event["step"] for event in run.events()] == [1, 3]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(SegicError, match=r"log\.jsonl: the disk is full; .* go on with --resume$"):
        run.append("step", {"step": 4})
