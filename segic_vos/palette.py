"""The colours that objects are shown in: the map that PASCAL VOC and DAVIS masks carry."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

PALETTE_BYTES = 3 * 256


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


def palette_table(palette: bytes | None) -> NDArray[np.uint8]:
    """`palette` as a (256, 3) uint8 RGB table."""
    return np.frombuffer(complete_palette(palette), np.uint8).reshape(256, 3)


def colour_index(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Labels (any shape) as palette rows, uint8: 0 stays 0, ids above 255 start over at colour 1."""
    if labels.size and int(labels.max()) > 255:
        return np.where(labels > 0, 1 + (labels - 1) % 255, 0).astype(np.uint8)
    return labels.astype(np.uint8)
