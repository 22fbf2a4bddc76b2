"""sha256 of files of any size."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

Progress = Callable[[str, int, int], None]
"""Called with (what is being done to which file, bytes done, bytes in all or 0 when unknown)."""

CHUNK = 1 << 20


def file_sha256(path: Path, progress: Progress | None = None) -> str:
    """The sha256 of `path` in hexadecimal, read in pieces. Raises OSError as `open` does."""
    digest = hashlib.sha256()
    total, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress:
                progress(f"hashing {path.name}", done, total)
    return digest.hexdigest()
