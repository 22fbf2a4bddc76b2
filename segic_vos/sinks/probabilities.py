"""Soft masks as grey PNGs, a folder for each object."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segic.errors import UsageError
from segic.files import make_folder
from segic_vos.frames import Frame, FrameResult

from .png import write_png


class ProbabilityWriter:
    """Writes `FOLDER/ID/NAME.png`: 8-bit grey, 255 times the probability, rounded.

    folder: the soft masks' own folder. A given mask without probabilities is written as 0 and 255. Raises UsageError
    for other results without them, SegicError when a file cannot be written.
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)
        self._made: set[int] = set()
        make_folder(self._folder)

    def write(self, frame: Frame, result: FrameResult) -> None:
        for at, number in enumerate(result.ids):
            folder = self._folder / str(number)
            if number not in self._made:
                make_folder(folder)
                self._made.add(number)
            write_png(folder / f"{frame.name}.png", Image.fromarray(_grey(frame, result, at)))

    def close(self) -> None:
        """Nothing is left open."""


def _grey(frame: Frame, result: FrameResult, at: int) -> NDArray[np.uint8]:
    """The soft mask (H, W) of the object at position `at`."""
    if result.probabilities is not None:
        probability = result.probabilities[at].astype(np.float32).clip(0, 1)
        return np.asarray(np.rint(probability * 255), np.uint8)
    if result.given:
        return np.asarray(np.where(result.labels == result.ids[at], 255, 0), np.uint8)
    raise UsageError(f"frame {frame.name}: soft masks were asked for, but the result has no probabilities")
