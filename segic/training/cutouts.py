"""Objects cut out of their pictures: clip-art photographs with alpha, and instances of annotated photographs."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segic.errors import UsageError
from segic.training.photographs import Photograph, Picture, coverage

LEAST_COLOURS = 600
LEAST_SIDE = 40
LONGEST_SIDE = 384
LEAST_INSTANCE_SIDE = 64
DRAWN_FOLDERS = frozenset({"cartoon", "symbols", "flags"})


@dataclass(frozen=True)
class Cutout:
    """One object: straight (not premultiplied) (H, W, 3) uint8 RGB and its (H, W) uint8 alpha, cropped to the alpha."""

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.uint8]


def read_stamps(folder: Path) -> tuple[Cutout, ...]:
    """The photographs among the PNG files with alpha under a folder, in the order of their names.

    Drawings are left out: folders named cartoon, symbols or flags, and pictures of fewer than LEAST_COLOURS colours.
    Raises UsageError when the folder does not exist.
    """
    if not folder.is_dir():
        raise UsageError(f"the folder of cut-outs {folder} does not exist; give one of PNG files with alpha, or none")
    stamps = []
    for path in sorted(folder.rglob("*.png")):
        drawn = DRAWN_FOLDERS.intersection(path.relative_to(folder).parts[:-1])
        # A stamp may come with its own mirror image, which is the same object again.
        if drawn or path.stem.endswith(("_mirror", "_flip", "_mirror_flip")):
            continue
        try:
            with Image.open(path) as image:
                if image.mode not in ("RGBA", "LA", "PA", "P"):
                    continue
                pixels = np.array(image.convert("RGBA"))
        except (OSError, ValueError):
            continue
        cutout = _stamp(pixels)
        if cutout is not None:
            stamps.append(cutout)
    return tuple(stamps)


def _stamp(pixels: NDArray[np.uint8]) -> Cutout | None:
    solid = pixels[..., 3] >= 128
    # A stamp without transparency is a rectangle, and one of almost none an empty file.
    if not 0.02 < solid.mean() < 0.97:
        return None
    packed = pixels[solid][:, :3].astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    if np.unique(packed).size < LEAST_COLOURS:
        return None
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    pixels = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if min(pixels.shape[:2]) < LEAST_SIDE:
        return None
    alpha = pixels[..., 3]
    rgb = spread_colours(pixels[..., :3], alpha)
    scale = LONGEST_SIDE / max(alpha.shape)
    if scale < 1:
        rgb = np.asarray(cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        alpha = np.asarray(cv2.resize(alpha, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    return Cutout(np.ascontiguousarray(rgb, np.uint8), np.ascontiguousarray(alpha, np.uint8))


def spread_colours(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The object's colours carried over its transparent surround, so that resampling brings in no foreign rim."""
    weight = (alpha >= 200).astype(np.float32)
    kernel = (9, 9)
    total = cv2.blur(weight, kernel)
    near = cv2.blur(rgb.astype(np.float32) * weight[..., None], kernel) / np.maximum(total, 1e-6)[..., None]
    keep = (weight > 0) | (total < 1e-4)
    return np.where(keep[..., None], rgb, np.clip(near, 0, 255).astype(np.uint8))


def usable_instances(photograph: Photograph) -> tuple[int, ...]:
    """Indices of the instances worth cutting out: large enough and clear of the picture's border."""
    return tuple(
        index
        for index, instance in enumerate(photograph.instances)
        if (instance.box[2] - instance.box[0]) * (instance.box[3] - instance.box[1]) > LEAST_INSTANCE_SIDE**2
        and min(instance.box[2] - instance.box[0], instance.box[3] - instance.box[1]) > LEAST_SIDE / 2
        and instance.box[0] > 2
        and instance.box[1] > 2
        and instance.box[2] < photograph.width - 3
        and instance.box[3] < photograph.height - 3
    )


def cut_instance(photograph: Photograph, index: int, picture: Picture) -> Cutout:
    """One instance of a decoded photograph with its alpha, feathered by about a pixel."""
    instance = photograph.instances[index]
    height, width = picture.shape[:2]
    x0, y0 = max(0, int(instance.box[0]) - 3), max(0, int(instance.box[1]) - 3)
    x1, y1 = min(width, int(instance.box[2]) + 4), min(height, int(instance.box[3]) + 4)
    whole = coverage((instance,), width, height)[y0:y1, x0:x1]
    # The polygons run just outside the object: half a pixel less keeps the old surround out.
    alpha = cv2.GaussianBlur(whole, (5, 5), 1.0).astype(np.float32)
    alpha = np.clip((alpha - 64) * (255 / 191), 0, 255).astype(np.uint8)
    return Cutout(np.ascontiguousarray(picture[y0:y1, x0:x1]), alpha)
