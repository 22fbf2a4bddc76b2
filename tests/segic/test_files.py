"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os

import pytest

from segic.errors import SegicError
from segic.files import make_folder, whole, write_over, write_whole, writing


def test_a_file_appears_when_it_is_written(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_stays_one(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(path, "told")
    assert os.read(reader, 100) == b"told"
    os.close(reader)
    assert path.is_fifo()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("written", [False, True])
def test_what_fails_leaves_the_old_file_alone(tmp_path, error, written):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with whole(path) as part:
            if written:
                part.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_missing_is_the_callers_to_make(tmp_path):
    with pytest.raises(FileNotFoundError), whole(tmp_path / "no" / "a.txt") as part:
        part.write_text("new")


def test_bytes_and_text_are_written_with_their_folder(tmp_path):
    path = tmp_path / "no" / "a.txt"
    write_whole(path, "Bäume")
    assert path.read_bytes() == "Bäume".encode()
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_errors_name_the_file(tmp_path, code):
    def fail() -> None:
        with writing(tmp_path / "a.txt", "Make room and go on"):
            raise OSError(code, os.strerror(code))

    full = "the disk is full; what was written before is kept. Make room and go on"
    told = "cannot be written: Input/output error" if code == errno.EIO else full
    with pytest.raises(SegicError, match=rf"^{tmp_path / 'a.txt'}: {told}$") as caught:
        fail()
    assert caught.value.exit_status == 1


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path, room):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with room(1000), pytest.raises(SegicError, match=r"a\.txt: cannot be written: File too large"):
        write_whole(path, bytes(2000))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_writing_over_a_file_takes_the_room_that_it_has(tmp_path, room):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old".ljust(1000))
    with room(1000), pytest.raises(SegicError, match=r"a\.txt: cannot be written: File too large"):
        write_over(path, bytes(1001))
    assert path.read_bytes() == b"old".ljust(1000)
    with room(1000):
        write_over(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SegicError, match="file: cannot be written: File exists"):
        make_folder(tmp_path / "file")
    with pytest.raises(SegicError, match="file: cannot be written: File exists"):
        write_whole(tmp_path / "file" / "a.txt", "new")
