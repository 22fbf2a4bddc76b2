"""Files of a folder in the order a person expects, and the numbers in their names."""

import re
from functools import cache
from pathlib import Path

from segic.errors import UsageError

_DIGITS = re.compile(r"(\d+)")
_NUMBER_AT_END = re.compile(r"(\d+)$")

# Formats that Pillow opens by suffix but that are not pictures, or that need a program beside it.
_NOT_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which `frame2` precedes `frame10`; equal numbers are told apart by their spelling."""
    # str.isdecimal holds for every digit that \d matches, so int() cannot fail.
    return tuple((0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in _DIGITS.split(name))


def trailing_number(stem: str) -> int | None:
    """The number at the end of a file's stem: 2 for `obj_2`, 7 for `007`, None for `cat`."""
    found = _NUMBER_AT_END.search(stem)
    return int(found.group(1)) if found else None


@cache
def _picture_suffixes() -> frozenset[str]:
    from PIL import Image

    Image.init()
    return frozenset(
        suffix
        for suffix, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in _NOT_PICTURES
    )


def is_picture(path: Path) -> bool:
    """True for a visible file whose suffix Pillow reads as a picture. The file itself is not opened."""
    return not path.name.startswith(".") and path.suffix.lower() in _picture_suffixes() and path.is_file()


def list_pictures(folder: Path) -> list[Path]:
    """The pictures of `folder` (not of folders in it) in natural order. Hidden and other files are skipped.

    Raises UsageError when there is none.
    """
    pictures = sorted((path for path in folder.iterdir() if is_picture(path)), key=lambda path: natural_key(path.name))
    if not pictures:
        raise UsageError(f"{folder}: no picture in this folder (of the types that Pillow reads: .jpg, .png, .tif ...)")
    return pictures
