"""Light and colour of a frame or an object, and the defects of a camera: noise, compression, blur."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segic.training.motion import streak
from segic.training.photographs import Picture


@dataclass(frozen=True)
class Light:
    """A change of light: natural logarithms of gain, gamma and saturation, and a rotation of hue in radians."""

    gain: float = 0.0
    gamma: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __add__(self, other: "Light") -> "Light":
        return Light(
            self.gain + other.gain,
            self.gamma + other.gamma,
            self.saturation + other.saturation,
            self.hue + other.hue,
        )


def draw_light(rng: np.random.Generator, strength: float) -> Light:
    """A random change of light; strength 1 is as much as between morning and evening, 0 is none."""
    gain, gamma, saturation, hue = rng.uniform(-strength, strength, 4)
    return Light(0.35 * gain, 0.3 * gamma, 0.4 * saturation, 0.25 * hue)


def relight(picture: Picture, light: Light) -> Picture:
    """The (H, W, 3) uint8 picture in another light."""
    levels = (np.arange(256, dtype=np.float32) / 255) ** math.exp(light.gamma)
    table = np.clip(levels * (255 * math.exp(light.gain)) + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(cv2.transform(picture, _colour_matrix(light)), table), np.uint8)


def _colour_matrix(light: Light) -> NDArray[np.float32]:
    """Saturation scales the distance from grey, hue turns about the grey axis."""
    grey = np.full((3, 3), 1 / 3)
    axis = math.sqrt(1 / 3)
    cross = np.array([[0, -axis, axis], [axis, 0, -axis], [-axis, axis, 0]])
    turn = math.cos(light.hue) * np.eye(3) + (1 - math.cos(light.hue)) * grey + math.sin(light.hue) * cross
    saturation = math.exp(light.saturation)
    return np.asarray((saturation * np.eye(3) + (1 - saturation) * grey) @ turn, np.float32)


def blur_by_motion(picture: Picture, x: float, y: float) -> Picture:
    """The whole frame smeared along (x, y) pixels."""
    return np.asarray(cv2.filter2D(picture, -1, streak(x, y), borderType=cv2.BORDER_REFLECT_101), np.uint8)


def degrade(picture: Picture, quality: int, blur: float) -> Picture:
    """Softness (sigma in pixels), then compression (JPEG quality, 0 for none).

    Noise is the caller's, because it must come from the caller's random state: see `add_noise`.
    """
    if blur > 0:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), blur), np.uint8)
    if quality > 0:
        encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        picture = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return picture


def add_noise(rng: np.random.Generator, picture: Picture, sigma: float) -> Picture:
    """Gaussian noise of standard deviation `sigma` grey levels, drawn for each value."""
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    noise *= sigma
    noise += picture
    return np.clip(noise, 0, 255, out=noise).astype(np.uint8)
