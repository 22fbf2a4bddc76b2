"""A picture of predictions: a row an episode, example, target with its true masks, target with the predicted ones."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segic.files import write_whole

SIDE = 224
GAP = 4
COLOURS = ((230, 60, 60), (60, 180, 75), (67, 99, 216), (245, 190, 40), (145, 30, 180), (70, 220, 220), (240, 50, 230))


@dataclass(frozen=True)
class Row:
    """example, target: (H, W, 3) uint8 RGB. The masks: (N, h, w) bool, of any resolution."""

    example: NDArray[np.uint8]
    target: NDArray[np.uint8]
    example_masks: NDArray[np.bool_]
    true_masks: NDArray[np.bool_]
    predicted_masks: NDArray[np.bool_]


def write_grid(path: Path, rows: Sequence[Row]) -> None:
    """Writes a PNG, whole or not at all. Raises SegicError when it cannot be written."""
    from PIL import Image

    lines = []
    for row in rows:
        cells = (
            overlay(row.example, row.example_masks),
            overlay(row.target, row.true_masks),
            overlay(row.target, row.predicted_masks),
        )
        lines.append(np.concatenate([np.pad(cell, ((0, GAP), (0, GAP), (0, 0))) for cell in cells], axis=1))
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(lines)).save(buffer, format="PNG")
    write_whole(path, buffer.getvalue())


def overlay(picture: NDArray[np.uint8], masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(SIDE, SIDE, 3): the picture with each mask half-covered by a colour of its own."""
    smooth = cv2.INTER_AREA if picture.shape[0] > SIDE else cv2.INTER_CUBIC
    out = cv2.resize(picture, (SIDE, SIDE), interpolation=smooth)
    for number, mask in enumerate(masks):
        inside = cv2.resize(mask.astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST) > 0
        out[inside] = (out[inside] // 2 + np.array(COLOURS[number % len(COLOURS)]) // 2).astype(np.uint8)
    return np.asarray(out, np.uint8)
