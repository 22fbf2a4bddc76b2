"""Show masks on a picture."""

import cv2
import numpy as np
from numpy.typing import NDArray

from segic_vos.palette import colour_index, palette_table

# On pictures with a short side above this an outline of one pixel is hard to see.
_FINE = 720


def draw_overlay(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.integer],
    palette: bytes | None = None,
    alpha: float = 0.5,
    *,
    outline: bool = True,
) -> NDArray[np.uint8]:
    """`pixels` (H, W, 3) uint8 RGB with every object of `labels` (H, W) tinted in its colour, a new array.

    palette: 768 bytes, None for DAVIS's colours; ids above 255 use its colours over again. alpha: the tint's share,
    0..1. outline: draw the objects' inner borders in the full colour. Cost does not depend on the number of objects.
    """
    if pixels.shape[:2] != labels.shape:
        raise ValueError(f"pixels are {pixels.shape[:2]}, labels {labels.shape}: expected the same height and width")
    index = colour_index(labels)
    inside = _above_zero(index)
    colours = cv2.applyColorMap(index, palette_table(palette)[:, None])
    drawn = pixels.copy()
    cv2.copyTo(cv2.addWeighted(pixels, 1 - alpha, colours, alpha, 0), inside, drawn)
    if outline:
        reach = 3 if min(labels.shape) <= _FINE else 5
        # Not zero where a neighbourhood holds more than one object (or an object and background).
        borders = cv2.morphologyEx(index, cv2.MORPH_GRADIENT, np.ones((reach, reach), np.uint8))
        cv2.copyTo(colours, cv2.bitwise_and(inside, _above_zero(np.asarray(borders, np.uint8))), drawn)
    return np.asarray(drawn, np.uint8)


def _above_zero(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """255 where `values` is not 0, for OpenCV's masks."""
    return np.asarray(cv2.threshold(values, 0, 255, cv2.THRESH_BINARY)[1], np.uint8)
