"""Files that are there whole or not at all, and the system's errors while writing, with the file's name."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from segic.errors import SegicError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file to. It becomes `path` where the block ends, and goes where it fails.

    Whenever the process is killed, `path` is what it was before or all of the new content. Several processes may write
    the same path. A device or a pipe, such as /dev/stdout, is written to itself: a file must not take its place.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


@contextmanager
def writing(path: Path, when_full: str = "Make room, or write to another disk") -> Iterator[None]:
    """Turn the system's errors while writing `path` into a SegicError that names it; those of a full disk name no file.

    when_full: what the user can do about a full disk, a sentence without its full stop.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise SegicError(f"{path}: the disk is full; what was written before is kept. {when_full}") from error
        raise SegicError(f"{path}: cannot be written: {error.strerror or error}") from error


def make_folder(path: Path) -> None:
    """Create `path` and its parents; no error when it exists. Raises SegicError where it cannot be made."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def write_over(path: Path, data: bytes) -> None:
    """Write over a file that is there, in the room that it has. Where that is too small, its old content stays.

    For a disk that has no room for a second copy; only a kill meanwhile leaves a part. Raises SegicError where it
    cannot be written.
    """
    with writing(path), path.open("r+b", buffering=0) as file:
        before = file.read()
        try:
            _replace(file, data)
        except OSError:
            _replace(file, before)
            raise


def _replace(file: BinaryIO, data: bytes) -> None:
    file.seek(0)
    write_all(file, data)
    file.truncate(len(data))


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write to an unbuffered file: a disk that fills up takes part of the data, and the next write tells why."""
    while data:
        data = data[file.write(data) :]


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file, whole or not at all, and its folder where that is missing. Text is written as UTF-8.

    Raises SegicError where it cannot be written.
    """
    make_folder(path.parent)
    with writing(path), whole(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)
