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
from segic_vos.palette import colour_index
from segic_vos.sinks.drawing import draw_overlay

from .masks import read_image, read_labels
from .result import Result

WIDTH = 480  # pixels of one panel
# Bright, where the palette of the masks begins with dark red: seen on any picture, and by most colour-blind readers.
_COLOURS = ((255, 59, 48), (0, 158, 255), (255, 204, 0), (52, 216, 103), (214, 92, 255), (0, 225, 225), (255, 140, 0))
_PALETTE = bytes(value for row in ((0, 0, 0), *(_COLOURS * 37)[:255]) for value in row)


@dataclass(frozen=True)
class Picture:
    """A frame: its score 0..1, and a JPEG with the truth on the left and the prediction on the right, as a data URI.

    truth, prediction: the share of the frame that the objects cover, 0..1.
    """

    sequence: str
    frame: str
    score: float
    data: str
    truth: float
    prediction: float


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
            truth, prediction = (read_labels(_file(result, kind, sequence, frame)) for kind in ("truth", "prediction"))
            pixels = _frame(result, sequence, frame, truth.shape)
        except (OSError, SegicError):
            continue
        data = _data_uri(np.concatenate([_overlay(pixels, truth), _overlay(pixels, prediction)], axis=1))
        shares = (float(np.mean(labels > 0)) for labels in (truth, prediction))
        pictures.append(Picture(sequence, frame, score, data, *shares))
    return pictures


def _file(result: Result, kind: str, sequence: str, frame: str) -> Path:
    pattern = result.files[kind]  # other braces are those of a folder's name
    return Path(pattern.replace("{sequence}", sequence).replace("{frame}", frame))


def _frame(result: Result, sequence: str, frame: str, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """The frame's picture; black where the result does not know of one."""
    if "frame" in result.files:
        return read_image(_file(result, "frame", sequence, frame))
    if "video" in result.files:
        from segic_vos.sources import open_source

        index = list(result.frames[sequence]).index(frame) + 1  # the first frame is not scored
        video = _file(result, "video", sequence, frame)
        pixels: Iterator[NDArray[np.uint8]] = (f.pixels for f in open_source(video, start=index, end=index + 1))
        return next(pixels)
    return np.zeros((size[0], size[1], 3), np.uint8)


def _overlay(pixels: NDArray[np.uint8], labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    size = WIDTH, round(pixels.shape[0] * WIDTH / pixels.shape[1])
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    # The colours' rows, since they fit 8 bits whatever the ids.
    rows = np.asarray(cv2.resize(colour_index(labels), size, interpolation=cv2.INTER_NEAREST), np.uint8)
    return draw_overlay(small, rows, _PALETTE, 0.45)


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
