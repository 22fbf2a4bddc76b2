"""Pictures for a report: the frames that scored worst, with the true and the predicted masks drawn on."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segic.errors import SegicError
from segic_vos.palette import colour_index, palette_table

from .masks import read_image, read_labels
from .result import Result

WIDTH = 420  # pixels of one panel
_STRENGTH = 0.55


@dataclass(frozen=True)
class Picture:
    """A frame: its score 0..1, and a JPEG with the truth on the left and the prediction on the right, as a data URI."""

    sequence: str
    frame: str
    score: float
    data: str


def worst_frames(result: Result, count: int) -> list[Picture]:
    """The worst frame of each of the `count` worst sequences, worst first. None for results without frames.

    Frames whose files are gone are left out: a report can be made where the data is not.
    """
    lowest = []
    for sequence, frames in result.frames.items():
        name = min(frames, key=lambda frame: frames[frame])
        lowest.append((frames[name], sequence, name))
    pictures = []
    for score, sequence, frame in sorted(lowest)[:count]:
        try:
            panels = _panels(result, sequence, frame)
        except (OSError, SegicError):
            continue
        pictures.append(Picture(sequence, frame, score, _data_uri(panels)))
    return pictures


def _panels(result: Result, sequence: str, frame: str) -> NDArray[np.uint8]:
    where = {"sequence": sequence, "frame": frame}
    masks = [read_labels(Path(result.files[kind].format(**where))) for kind in ("truth", "prediction")]
    pixels = _frame(result, sequence, frame, masks[0].shape)
    return np.concatenate([_overlay(pixels, mask) for mask in masks], axis=1)


def _frame(result: Result, sequence: str, frame: str, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """The frame's picture; black where the result does not know of one."""
    where = {"sequence": sequence, "frame": frame}
    if "frame" in result.files:
        return read_image(Path(result.files["frame"].format(**where)))
    if "video" in result.files:
        from segic_vos.sources import open_source

        index = list(result.frames[sequence]).index(frame) + 1  # the first frame is not scored
        video = Path(result.files["video"].format(**where))
        pixels: Iterator[NDArray[np.uint8]] = (f.pixels for f in open_source(video, start=index, end=index + 1))
        return next(pixels)
    return np.zeros((size[0], size[1], 3), np.uint8)


def _overlay(pixels: NDArray[np.uint8], labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    height = round(pixels.shape[0] * WIDTH / pixels.shape[1])
    small = cv2.resize(pixels, (WIDTH, height), interpolation=cv2.INTER_AREA)
    # The colours' rows first, since they fit 8 bits whatever the ids.
    rows = cv2.resize(colour_index(labels), (WIDTH, height), interpolation=cv2.INTER_NEAREST)
    colours = palette_table(None)[rows]
    mixed = np.where(rows[..., None] > 0, (1 - _STRENGTH) * small + _STRENGTH * colours, small)
    return mixed.astype(np.uint8)


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
