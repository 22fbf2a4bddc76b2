"""Augmented views of an image: a box of it, scaled onto a square canvas, mirrored, re-lit (appendix A)."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segic.training.lighting import Light, draw_light, relight
from segic.training.recipe import Augmentation


@dataclass(frozen=True)
class View:
    """box: (left, top, right, bottom) of the image in pixels. shown: (height, width) that it gets at the top left of a
    canvas of `size` x `size`, the rest being padding. flip: mirrored left to right. light: None for none.
    """

    box: tuple[int, int, int, int]
    shown: tuple[int, int]
    size: int
    flip: bool = False
    light: Light | None = None

    def picture(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 -> (size, size, 3)."""
        out = self._place(image, cv2.INTER_AREA if self._shrinks else cv2.INTER_LINEAR)
        return out if self.light is None else relight(out, self.light)

    def mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(H, W) -> (size, size): covered by half or more."""
        grey = mask.view(np.uint8) * np.uint8(255)
        return self._place(grey, cv2.INTER_AREA if self._shrinks else cv2.INTER_LINEAR) >= 128

    @property
    def _shrinks(self) -> bool:
        return self.shown[0] < self.box[3] - self.box[1]

    def _place(self, image: NDArray[np.uint8], method: int) -> NDArray[np.uint8]:
        left, top, right, bottom = self.box
        part = image[top:bottom, left:right]
        if self.flip:
            part = part[:, ::-1]
        scaled = cv2.resize(np.ascontiguousarray(part), (self.shown[1], self.shown[0]), interpolation=method)
        out = np.zeros((self.size, self.size, *image.shape[2:]), np.uint8)
        out[: self.shown[0], : self.shown[1]] = scaled
        return out


def jittered(rng: np.random.Generator, shape: tuple[int, ...], size: int, how: Augmentation) -> View:
    """Large-scale jitter: the longer side becomes 0.1 to 2.0 times the canvas's; what is larger is cropped, what is
    smaller padded. shape: (H, W, ...) of the image.
    """
    height, width = shape[:2]
    factor = rng.uniform(how.jitter[0], how.jitter[1]) * size / max(height, width)
    box_h, box_w = (min(side, max(1, round(size / factor))) for side in (height, width))
    top = int(rng.integers(height - box_h + 1))
    left = int(rng.integers(width - box_w + 1))
    shown = (min(size, max(1, round(box_h * factor))), min(size, max(1, round(box_w * factor))))
    return View((left, top, left + box_w, top + box_h), shown, size)


def cropped(rng: np.random.Generator, shape: tuple[int, ...], size: int, how: Augmentation) -> View:
    """A random part of 0.3 to 1.0 of the image's area and a shape of 3:4 to 4:3 of the image's own, on all of the
    canvas, sometimes mirrored and re-lit.
    """
    height, width = shape[:2]
    area = rng.uniform(how.crop[0], how.crop[1])
    stretch = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)) / 2)
    box_h = int(np.clip(round(height * np.sqrt(area) * stretch), 1, height))
    box_w = int(np.clip(round(width * np.sqrt(area) / stretch), 1, width))
    top = int(rng.integers(height - box_h + 1))
    left = int(rng.integers(width - box_w + 1))
    flip = bool(rng.random() < how.flip)
    light = draw_light(rng, 1.0) if rng.random() < how.colour else None
    return View((left, top, left + box_w, top + box_h), (size, size), size, flip, light)
