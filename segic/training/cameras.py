"""A camera that looks three times at one still photograph: the example A, the recent frame B and the target C."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segic.training.motion import (
    Grid,
    Matrix,
    Motion,
    Reach,
    about_centre,
    draw_grid,
    draw_motion,
    sampling_map,
    translation,
)
from segic.training.photographs import Photograph, Picture, coverage

NEAR = Reach(shift=0.07, log_scale=0.08, degrees=4.0, elastic=0.01)
FAR = Reach(shift=0.30, log_scale=0.45, degrees=15.0, elastic=0.04, flip=0.1)
# The target is bent a little too, or the model would learn that targets are flat.
TARGET_ELASTIC = 0.015
# How far a target's view may look past the border of its photograph, as a fraction of the photograph's side. Examples
# are held to it where they fit, but one that has moved away shows more than the photograph: half of them look 0.04 past
# it at most, 99 of 100 at most 0.38. Recent frames go where their motion takes them: 0.045 and 0.14.
PAST_BORDER = 0.04
# What lies past the border is the photograph's mirror image, objects and labels alike.
BORDER = cv2.BORDER_REFLECT_101


@dataclass(frozen=True)
class View:
    """One look: the matrix from frame to photograph pixels, and the elastic grid of the frame."""

    matrix: Matrix
    grid: Grid


Views = tuple[View, View, View]


def crop_matrix(centre: tuple[float, float], crop: tuple[float, float], size: int) -> Matrix:
    """Frame to photograph pixels for an upright crop of (width, height) pixels about a centre (x, y)."""
    middle = (size - 1) / 2
    return translation(*centre) @ np.diag([crop[0] / size, crop[1] / size, 1.0]) @ translation(-middle, -middle)


def draw_crop(rng: np.random.Generator, photograph: Photograph, focus: int | None, size: int) -> Matrix:
    """A crop of a photograph that shows the instance `focus` at a size drawn evenly on a logarithmic scale.

    Crops are square or, up to the whole picture squeezed into a square, of the picture's own shape.
    """
    width, height = photograph.width, photograph.height
    short = min(width, height)
    stretch = rng.uniform(0, 1)
    full = (short + stretch * (width - short), short + stretch * (height - short))
    if focus is None:
        zoom, target = rng.uniform(0.75, 1.0), (rng.uniform(0, width), rng.uniform(0, height))
    else:
        instance = photograph.instances[focus]
        share = math.exp(rng.uniform(math.log(0.004), math.log(0.35)))
        zoom = float(np.clip(math.sqrt(instance.area / share / (full[0] * full[1])), 0.4, 1.0))
        x0, y0, x1, y1 = instance.box
        target = ((x0 + x1) / 2, (y0 + y1) / 2)
    crop = (full[0] * zoom, full[1] * zoom)
    centre = (
        target[0] + rng.uniform(-0.3, 0.3) * crop[0],
        target[1] + rng.uniform(-0.3, 0.3) * crop[1],
    )
    return keep_inside(crop_matrix(centre, crop, size), width, height, size)


def keep_inside(matrix: Matrix, width: int, height: int, size: int) -> Matrix:
    """The view moved to look past the photograph's border by PAST_BORDER at most (its elastic grid left aside).

    One that is larger than that is centred on the photograph, and looks past both borders as far as it must.
    """
    middle = (size - 1) / 2
    centre = matrix @ np.array([middle, middle, 1.0])
    moved = []
    for axis, side in enumerate((width, height)):
        extent = (abs(matrix[axis, 0]) + abs(matrix[axis, 1])) * middle
        low, high = extent - PAST_BORDER * side, side - extent + PAST_BORDER * side
        moved.append((side / 2 if low > high else float(np.clip(centre[axis], low, high))) - centre[axis])
    return translation(moved[0], moved[1]) @ matrix


def draw_views(
    rng: np.random.Generator, base: Matrix, width: int, height: int, size: int, near: Reach = NEAR, far: Reach = FAR
) -> Views:
    """Three looks A, B, C about the target's `base` matrix: B within `near`, A within `far` of it and kept inside."""
    target = draw_grid(rng, TARGET_ELASTIC)
    recent = View(move(base, draw_motion(rng, near), size), target + draw_grid(rng, near.elastic))
    example = keep_inside(move(base, draw_motion(rng, far), size), width, height, size)
    return View(example, target + draw_grid(rng, far.elastic)), recent, View(base, target)


def move(base: Matrix, motion: Motion, size: int) -> Matrix:
    """The view of a frame whose contents have moved by `motion`."""
    return base @ np.linalg.inv(about_centre(motion, size))


def see_labelled(
    picture: Picture, alphas: Sequence[NDArray[np.uint8]], view: View, size: int
) -> tuple[Picture, NDArray[np.uint8]]:
    """The frame of a view and its (size, size) uint8 labels: `alphas` are the objects' coverage of the photograph.

    Past the photograph's border both are mirrored: an object's mirror image looks like the object, and has its label.
    """
    x, y = sampling_map(view.matrix, view.grid, size, size, size)
    frame = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=BORDER)
    labels = np.zeros((size, size), np.uint8)
    most = np.full((size, size), 127, np.uint8)
    for number, alpha in enumerate(alphas, start=1):
        seen = cv2.remap(alpha, x, y, cv2.INTER_LINEAR, borderMode=BORDER)
        labels[seen > most] = number
        np.maximum(most, seen, out=most)
    return np.asarray(frame, np.uint8), labels


def draw_objects(
    rng: np.random.Generator, photograph: Photograph, focus: int, most: int, alike: float = 0.65
) -> tuple[int, ...]:
    """Up to `most` instances of a photograph, with `focus`; with probability `alike` its own class comes first."""
    wanted = int(rng.choice(6, p=[0.25, 0.2, 0.2, 0.15, 0.1, 0.1])) + 1
    others = [index for index in range(len(photograph.instances)) if index != focus]
    rng.shuffle(others)
    if rng.random() < alike:
        category = photograph.instances[focus].category
        others.sort(key=lambda index: photograph.instances[index].category != category)
    return (focus, *others)[: min(wanted, most)]


def alphas_of(photograph: Photograph, objects: Sequence[int]) -> list[NDArray[np.uint8]]:
    """The coverage of each instance over the whole photograph; where two overlap the smaller one has the pixels."""
    alphas = [coverage((photograph.instances[index],), photograph.width, photograph.height) for index in objects]
    by_area = sorted(range(len(objects)), key=lambda position: photograph.instances[objects[position]].area)
    taken = np.zeros((photograph.height, photograph.width), np.uint8)
    for position in by_area:
        alphas[position] = np.minimum(alphas[position], 255 - taken)
        np.maximum(taken, alphas[position], out=taken)
    return alphas
