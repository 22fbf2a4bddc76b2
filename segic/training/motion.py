"""How frames and objects move between the three frames of a scene: similarity transforms and smooth elastic warps.

Matrices are (3, 3) float64 and act on column vectors (x, y, 1) in pixels, whole numbers at pixel centres. Elastic warps
are coarse grids (G, G, 2) of displacements (x, y) as fractions of the side of what they deform.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Grid = NDArray[np.float32]
Map = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Reach:
    """The most that something changes from one frame to another: shift and elastic as fractions, log scale, degrees."""

    shift: float
    log_scale: float
    degrees: float
    elastic: float
    flip: float = 0.0

    def gentler(self, factor: float) -> "Reach":
        """The same kind of movement, smaller; it never flips."""
        return Reach(self.shift * factor, self.log_scale * factor, self.degrees * factor, self.elastic * factor)


@dataclass(frozen=True)
class Motion:
    """A change of pose: shift (x, y) as a fraction of the frame's side, scale, angle in radians, mirrored or not."""

    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    angle: float = 0.0
    flip: bool = False


def draw_motion(rng: np.random.Generator, reach: Reach) -> Motion:
    """A random motion within reach: the shift is uniform in length and direction."""
    length, direction = rng.uniform(0, reach.shift), rng.uniform(0, 2 * math.pi)
    return Motion(
        shift=(length * math.cos(direction), length * math.sin(direction)),
        scale=math.exp(rng.uniform(-reach.log_scale, reach.log_scale)),
        angle=math.radians(rng.uniform(-reach.degrees, reach.degrees)),
        flip=bool(rng.random() < reach.flip),
    )


def draw_grid(rng: np.random.Generator, most: float, cells: int = 5) -> Grid:
    """A random elastic grid (cells, cells, 2) whose amplitude is itself random up to `most`."""
    return (rng.uniform(-1, 1, (cells, cells, 2)) * rng.uniform(0, most)).astype(np.float32)


def translation(x: float, y: float) -> Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def pose(scale: float, angle: float, flip: bool) -> Matrix:
    """Mirroring first, then rotation and scaling, about the origin."""
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    mirror = -1.0 if flip else 1.0
    return np.array([[cosine * mirror, -sine, 0], [sine * mirror, cosine, 0], [0, 0, 1]], np.float64)


def about_centre(motion: Motion, size: int) -> Matrix:
    """The motion of a whole frame of side `size`, about its centre: a matrix from old to new pixels."""
    middle = (size - 1) / 2
    shifted = translation(middle + motion.shift[0] * size, middle + motion.shift[1] * size)
    return shifted @ pose(motion.scale, motion.angle, motion.flip) @ translation(-middle, -middle)


def sampling_map(matrix: Matrix, grid: Grid, width: int, height: int, side: float) -> Map:
    """Where each pixel of a (height, width) result is read from: `matrix` leads from result to source pixels.

    The elastic `grid` spans the result and moves the pixels by fractions of `side` before the matrix is applied.
    """
    bend = np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), np.float32) * np.float32(side)
    x = bend[..., 0] + np.arange(width, dtype=np.float32)
    y = bend[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    entries = matrix.astype(np.float32)
    return (
        entries[0, 0] * x + entries[0, 1] * y + entries[0, 2],
        entries[1, 0] * x + entries[1, 1] * y + entries[1, 2],
    )


def streak(x: float, y: float) -> NDArray[np.float32]:
    """The kernel of a motion blur along (x, y) pixels: odd sides, sum 1."""
    radius = max(1, math.ceil(max(abs(x), abs(y)) / 2))
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    start = (round((radius - x / 2) * 16), round((radius - y / 2) * 16))
    end = (round((radius + x / 2) * 16), round((radius + y / 2) * 16))
    cv2.line(kernel, start, end, 1.0, 1, cv2.LINE_8, shift=4)
    # A drawn line is rounded to one side; with its own reverse it is centred, so that labels stay in register.
    kernel += kernel[::-1, ::-1].copy()
    return np.asarray(kernel / kernel.sum(), np.float32)
