"""The local store of ready weight files: one folder, a small record beside every file, one lock per file.

A record (`NAME.safetensors.json`) says what the file's source was and both hashes. It makes a damaged file known, and
it outlives the file, so that a later download is compared with the first one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import platformdirs
from filelock import FileLock

from segic.errors import SegicError
from segic.files import whole
from segic.weights.hashing import Progress, file_sha256

LOCAL = "local"  # folder of what was converted from files that the user gave
State = Literal["ok", "damaged", "unrecorded"]
Save = Callable[[Path, Callable[[Path], None]], None]
"""Writes a file whole, and shows it when it is complete, under the name that it has until it takes its place."""


@dataclass(frozen=True)
class Record:
    """What is known of one cached file. Times are st_mtime_ns: a file that changed since is hashed again."""

    name: str
    source: str
    source_sha256: str
    sha256: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Check:
    """A cached file hashed again. "unrecorded": something else put it there, so there is nothing to compare it with."""

    path: Path
    state: State
    sha256: str
    expected: str | None


def cache_dir() -> Path:
    """The folder of the weight files: $SEGIC_CACHE, else the user's cache folder of this system."""
    chosen = os.environ.get("SEGIC_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("segic", appauthor=False))


def cached_path(name: str) -> Path:
    """Where the registered file `name` lies once it is there."""
    return cache_dir() / f"{name}.safetensors"


def read_record(path: Path) -> Record | None:
    """The record of the cached file `path`; None when there is none, or none that can be read."""
    try:
        return Record(**json.loads(_record_path(path).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def store(
    path: Path, save: Save, name: str, source: str, source_sha256: str, progress: Progress | None = None
) -> Record:
    """Let `save` write the cached file `path`, and write its record.

    The new file is hashed before it takes the old one's place: no other process should meet it with the old record for
    longer than it takes to write the new one.
    """
    records = []

    def look(part: Path) -> None:
        def hashing(_part: str, done: int, total: int) -> None:
            if progress:
                progress(f"hashing {path.name}", done, total)

        sha256, status = file_sha256(part, hashing), part.stat()
        records.append(Record(name, source, source_sha256, sha256, status.st_size, status.st_mtime_ns))

    save(path, look)
    (record,) = records
    _write(record, path)
    return record


def is_ready(path: Path, progress: Progress | None = None) -> bool:
    """Whether `path` is there with its record, and unchanged since.

    Hashes only a file whose size or time differs from the record's. Raises SegicError when its content changed.
    """
    record = read_record(path)
    if record is None or not path.is_file():
        return False
    status = path.stat()
    if (status.st_size, status.st_mtime_ns) == (record.size, record.mtime_ns):
        return True
    found = file_sha256(path, progress)
    if found != record.sha256:
        if read_record(path) != record:  # another process has put a new file in its place
            return is_ready(path, progress)
        raise SegicError(
            f"the cached weights file {path} is damaged: expected the sha256 {record.sha256}, found {found}. Delete "
            f"it, or run `segic models fetch --force {record.name}`"
        )
    with suppress(OSError):  # only touched or copied; a cache that cannot be written serves at one hash each time
        _write(replace(record, mtime_ns=status.st_mtime_ns), path)
    return True


def check(path: Path, progress: Progress | None = None) -> Check:
    """Hash a cached file in full and compare it with its record."""
    record = read_record(path)
    found = file_sha256(path, progress)
    state: State = "unrecorded" if record is None else "ok" if found == record.sha256 else "damaged"
    return Check(path, state, found, record.sha256 if record else None)


def cached_files() -> list[Path]:
    """Every weight file in the cache: the registered ones by name, then those converted from local files."""
    folder = cache_dir()
    return sorted(folder.glob("*.safetensors")) + sorted((folder / LOCAL).glob("*.safetensors"))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of the cached file `path` against other processes. Makes its folder.

    Raises SegicError when the folder cannot be made or written, there or inside the block (a full disk).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):
            yield
    except OSError as error:
        raise SegicError(
            f"the weights folder {path.parent} cannot be written: {error}. Make room, or set SEGIC_CACHE to "
            "another folder"
        ) from error


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _write(record: Record, path: Path) -> None:
    with whole(_record_path(path)) as part:
        part.write_text(json.dumps(asdict(record), indent=1) + "\n", "utf-8")
