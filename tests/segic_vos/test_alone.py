"""One run at a time in an output folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from segic.errors import UsageError
from segic_vos.alone import alone

HOLD = """
import sys
from pathlib import Path
from segic_vos.alone import alone
with alone(Path(sys.argv[1])):
    print("here", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """A folder for the locks; the child's, too."""
    place = tmp_path / "locks"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return place


def test_another_process_is_refused_until_the_first_is_done(tmp_path, temporary):
    folder = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "here\n"
        (tmp_path / "link").symlink_to(tmp_path)
        for same in (folder, tmp_path / "link" / "out", Path(os.path.relpath(folder))):
            with pytest.raises(UsageError, match=r"another run is at work in .*out: wait until it ends"), alone(same):
                pass
        with alone(tmp_path / "elsewhere"):
            pass
        other.stdin.write("\n")
        other.stdin.close()
        assert other.wait() == 0
    with alone(folder):
        assert not folder.exists()
    assert list(temporary.iterdir()) == []


def test_a_run_that_was_killed_leaves_the_folder_free(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        other.kill()
    with alone(tmp_path):
        pass


def test_where_there_can_be_no_lock_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    with alone(tmp_path):
        pass
