"""The colours that objects are shown in: the map that PASCAL VOC and DAVIS masks carry."""

from collections.abc import Collection
from functools import cache

import numpy as np
from numpy.typing import NDArray

PALETTE_BYTES = 3 * 256

_ALIKE = 8  # levels in every channel: no one sees such a difference on a picture
# What Pillow gives a picture whose maker chose no colours, as `convert("P")` of a grey one does. Of greys more must lie
# between two for them to be told apart.
_GREY_RAMP = bytes(level for level in range(256) for _ in range(3))
_ALIKE_GREYS = 32


@cache
def davis_palette() -> bytes:
    """256 RGB colours as 768 bytes; 0 is black, neighbouring ids differ strongly.

    The bits of an id are dealt out to red, green and blue in turn, lowest bit of the id to the highest bit of the
    colour (PASCAL VOC development kit, VOClabelcolormap; the DAVIS annotations use the same map).
    """
    colours = np.zeros((256, 3), np.uint8)
    for index in range(256):
        rest = index
        for shift in range(7, -1, -1):
            for channel in range(3):
                colours[index, channel] |= (rest >> channel & 1) << shift
            rest >>= 3
    return colours.tobytes()


def complete_palette(palette: bytes | None) -> bytes:
    """`palette` as exactly 768 bytes: colours that it lacks are taken from `davis_palette`; None gives all of it."""
    given = (palette or b"")[:PALETTE_BYTES]
    return given + davis_palette()[len(given) :]


def distinct_palette(palette: bytes, ids: Collection[int]) -> tuple[bytes, tuple[int, ...]]:
    """`palette` (768 bytes) with colours of `davis_palette` for those of `ids` that could not be told apart by it, and
    these ids, ascending.

    They are the ids that look like the background or a lower id. Only the entries of `ids` are looked at: a palette is
    often filled up with black.
    """
    table, house = palette_table(palette).copy(), palette_table(None)
    numbers = sorted(ids)
    rows = colour_index(np.array(numbers, np.int64)).tolist()
    alike = _ALIKE_GREYS if palette == _GREY_RAMP else _ALIKE
    kept: list[int] = [0]
    lost: list[int] = []
    for row in sorted(set(rows)):
        (lost if _is_alike(table[row], table[kept], alike) else kept).append(row)
    for row in lost:
        free = (other for other in (row, *range(1, 256)) if not _is_alike(house[other], table[kept], _ALIKE))
        table[row] = house[next(free, row)]
        kept.append(row)
    renewed = tuple(number for number, row in zip(numbers, rows, strict=True) if row in lost)
    return table.tobytes(), renewed


def _is_alike(colour: NDArray[np.uint8], others: NDArray[np.uint8], levels: int) -> bool:
    """Whether `colour` (3,) is within so many levels of one of `others` (N, 3) in every channel."""
    apart = np.abs(others.astype(np.int16) - colour.astype(np.int16)).max(axis=1)
    return bool((apart <= levels).any())


def palette_table(palette: bytes | None) -> NDArray[np.uint8]:
    """`palette` as a (256, 3) uint8 RGB table."""
    return np.frombuffer(complete_palette(palette), np.uint8).reshape(256, 3)


def colour_index(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Labels (any shape) as palette rows, uint8: 0 stays 0, ids above 255 start over at colour 1."""
    if labels.size and int(labels.max()) > 255:
        return np.where(labels > 0, 1 + (labels - 1) % 255, 0).astype(np.uint8)
    return labels.astype(np.uint8)
