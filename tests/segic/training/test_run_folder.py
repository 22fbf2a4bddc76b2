"""The files of a training run."""

from __future__ import annotations

from pathlib import Path

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
