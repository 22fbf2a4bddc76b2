"""Write files so that a reader never meets half of one, and so that a full disk is told as what it is."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from segic.errors import SegicError
from segic.files import whole

if TYPE_CHECKING:
    from PIL.Image import Image

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's errors while writing `path` into a SegicError that names it."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise SegicError(
                f"{path}: the disk is full; what was written before is kept. Make room, or choose another output folder"
            ) from error
        raise SegicError(f"{path}: cannot be written: {error.strerror or error}") from error


def make_folder(path: Path) -> None:
    """Create `path` and its parents; no error when it exists."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` beside `path` and rename it: after a kill `path` is whole or absent."""
    with writing(path), whole(path) as part:
        part.write_bytes(data)


def write_png(path: Path, image: "Image") -> None:
    """Write a Pillow image as PNG, atomically."""
    buffer = BytesIO()
    # Level 1 is several times faster than the default, and label maps are small at any level.
    image.save(buffer, "PNG", compress_level=1)
    write_atomically(path, buffer.getvalue())
