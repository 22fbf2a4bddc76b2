"""One run at a time in an output folder: two would mix up its records, and the second could not be resumed."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from segic.errors import UsageError


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """While nobody else on this host is in here with the same folder, which need not exist. UsageError where somebody
    is. Nothing is written to the folder: its name is locked, among the system's temporary files.
    """
    name = hashlib.sha256(str(folder.resolve()).encode(errors="surrogateescape")).hexdigest()[:32]
    lock = FileLock(Path(tempfile.gettempdir()) / f"segic-{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"another run is at work in {folder}: wait until it ends, or give another folder with --out"
        ) from None
    except (OSError, NotImplementedError):  # no room, or no locks, where those files are: not worth failing for
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open
            Path(lock.lock_file).unlink()
        lock.release()
