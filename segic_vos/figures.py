"""Pictures of one-shot results: the propagated mask in a colour map beside the result, as in the paper's figure 4."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]

_GAP = 6  # pixels between panels
_TITLE = 22  # pixels of height for a panel's title


@dataclass(frozen=True)
class Panel:
    """One picture of a figure: (H, W, 3) uint8 RGB and the line above it."""

    title: str
    pixels: Picture


def colour_map(propagated: NDArray[np.float32], low: float = -1.0, high: float = 1.0) -> Picture:
    """A propagated mask (H, W) float32 as JET colours (H, W, 3) uint8 RGB.

    The paper's appendix: sigmoid, then the JET map. The sigmoids of `low` and `high` are the map's ends, blue and red;
    maps that are to be compared take the same. By default they are the ends of what a cosine can be.
    """
    bottom, top = _sigmoid(np.float32(low)), _sigmoid(np.float32(high))
    share = (_sigmoid(propagated.astype(np.float32)) - bottom) / np.maximum(top - bottom, np.float32(1e-6))
    levels = np.clip(np.rint(share * 255), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, cv2.COLORMAP_JET)[..., ::-1]).astype(np.uint8, copy=False)


def blend(photograph: Picture, colours: Picture, share: float = 0.6) -> Picture:
    """`share` of `colours` laid over `photograph`, both (H, W, 3)."""
    mixed = photograph.astype(np.float32) * (1 - share) + colours.astype(np.float32) * share
    return np.rint(mixed).astype(np.uint8)


def figure(rows: Iterable[Sequence[Panel]], height: int = 360) -> Picture:
    """Rows of panels, each scaled to `height` pixels, on white with their titles: (H, W, 3) uint8 RGB. Rows are taken
    one by one, so that those of large pictures need not be there together.
    """
    strips = [_row(panels, height) for panels in rows]
    width = max(strip.width for strip in strips)
    sheet = Image.new("RGB", (width, sum(strip.height for strip in strips)), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return np.asarray(sheet, dtype=np.uint8)


def _row(panels: Sequence[Panel], height: int) -> Image.Image:
    pictures = []
    for panel in panels:
        source = Image.fromarray(panel.pixels)
        pictures.append(source.resize((max(1, round(source.width * height / source.height)), height)))
    width = sum(picture.width + _GAP for picture in pictures) + _GAP
    strip = Image.new("RGB", (width, height + _TITLE + _GAP), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(size=14)
    left = _GAP
    for panel, picture in zip(panels, pictures, strict=True):
        draw.text((left, 3), panel.title, fill="black", font=font)
        strip.paste(picture, (left, _TITLE))
        left += picture.width + _GAP
    return strip


def _sigmoid(values: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-values)), dtype=np.float32)
