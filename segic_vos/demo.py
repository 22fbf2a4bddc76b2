"""The sample clip: a garage with a motorcycle, an astronaut who walks through it, and a cup of coffee in free fall.

Made from three photographs that scikit-image's wheel ships, all free of rights: NASA's portrait of Eileen Collins, a
cup of coffee by Rachel Michetti, and the motorcycle of the Middlebury stereo set. Their cut-outs
(`assets/cutout_*.png`) were drawn by hand and refined with GrabCut. The camera pans and zooms over the garage with a
hand's tremor; the astronaut hides the motorcycle and the cup for a while; cup and astronaut change their size. Since
every layer is known, so is every frame's true mask, and a result on this clip can be scored.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from math import cos, pi, sin
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segic.errors import UsageError
from segic_vos.frames import Frame

WIDTH, HEIGHT, FPS, FRAMES = 640, 360, 24, 96
OBJECTS = {1: "motorcycle", 2: "astronaut", 3: "cup"}
_SHUTTER = (0.0, 0.25)  # moments of one exposure, in frames: motion blur
_NOISE = 2.0  # standard deviation of the sensor noise, grey levels

Affine = NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """A cut-out photograph: (h, w, 4) float32, colours 0..255 times alpha, and alpha 0..1."""

    rgba: NDArray[np.float32]

    def placed(self, affine: Affine) -> NDArray[np.float32]:
        """The layer on the (HEIGHT, WIDTH) canvas, transparent around it; `affine` (2, 3) takes its pixels there."""
        return cv2.warpAffine(self.rgba, affine, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Scene:
    """The photographs, loaded and cut out. `garage`: (h, w, 4) float32 opaque; `motorcycle`: its own cut-out."""

    garage: Layer
    motorcycle: Layer
    astronaut: Layer
    cup: Layer


def load_scene() -> Scene:
    """Read the photographs from the installed scikit-image.

    Raises: UsageError where it is not installed or ships other pictures.
    """
    garage = _photograph("motorcycle_left.png")
    opaque = np.ones(garage.shape[:2], np.float32)
    return Scene(
        garage=_layer(garage, opaque),
        motorcycle=_layer(garage, _cutout("motorcycle_left")),
        # Shrunk beforehand with an area filter to about the largest size in the clip: the warp itself is bilinear.
        astronaut=_layer(_photograph("astronaut.png"), _cutout("astronaut"), shrink=0.70),
        cup=_layer(_photograph("coffee.png"), _cutout("coffee"), shrink=0.36),
    )


def render(scene: Scene, frames: int = FRAMES) -> Iterator[tuple[Frame, NDArray[np.int32]]]:
    """Frames and their true masks: labels (HEIGHT, WIDTH) int32, ids as in `OBJECTS`. The same on every run."""
    noise = np.random.default_rng(0)
    for index in range(frames):
        colours = _NOISE * noise.standard_normal((HEIGHT, WIDTH, 3), dtype=np.float32)
        coverage = np.zeros((1 + len(OBJECTS), HEIGHT, WIDTH), np.float32)
        for moment in _SHUTTER:
            exposed, shares = _expose(scene, index + moment)
            colours += exposed / len(_SHUTTER)
            coverage += shares
        pixels = np.clip(np.rint(colours), 0, 255).astype(np.uint8)
        labels = coverage.argmax(axis=0).astype(np.int32)
        yield Frame(index, f"{index:05d}", pixels, Fraction(index, FPS)), labels


def _expose(scene: Scene, time: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One moment, `time` in frames: colours (H, W, 3), and each layer's visible share (4, H, W), background first."""
    t = time / (FRAMES - 1)
    camera = _camera(time, t)
    colours = scene.garage.placed(camera)[..., :3]
    bike = scene.motorcycle.placed(camera)[..., 3]
    shares = [np.float32(1) - bike, bike]
    for layer, affine in ((scene.cup, _cup_path(t)), (scene.astronaut, _astronaut_path(t))):
        placed = layer.placed(affine)
        hidden = np.float32(1) - placed[..., 3]
        colours = placed[..., :3] + hidden[..., None] * colours
        shares = [share * hidden for share in shares] + [placed[..., 3]]
    background, motorcycle, cup, astronaut = shares
    return colours, np.stack([background, motorcycle, astronaut, cup])


def _camera(time: float, t: float) -> Affine:
    """A slow pan and zoom over the garage, with the tremor of a hand-held camera."""
    tremor_x = 1.6 * sin(time / 3.1) + 0.9 * sin(time / 1.7 + 1)
    tremor_y = 1.3 * sin(time / 2.7 + 2) + 0.8 * sin(time / 1.5)
    scale = WIDTH / (690 - 80 * _ease(t))
    centre = (352 + 50 * _ease(t) + tremor_x, 279 - 12 * t + tremor_y)
    return _affine(scale, 0.6 * sin(time / 9), centre, (WIDTH / 2, HEIGHT / 2))


def _astronaut_path(t: float) -> Affine:
    """From the left to the right, a little nearer at the end; the picture's lower edge stays below the frame's."""
    scale = 0.80 + 0.14 * t
    stride = abs(sin(t * pi * 5))
    return _affine(scale, 1.5 * sin(t * pi * 5), (179, 358), (118 + 350 * t, HEIGHT + 26 - 7 * stride))


def _cup_path(t: float) -> Affine:
    """A slow arc from the upper right to the left, turning and coming nearer; behind the astronaut."""
    scale = 0.62 + 0.34 * t
    return _affine(scale, -18 + 55 * t, (100, 72), (560 - 450 * t, 92 + 80 * sin(t * pi) + 30 * t))


def _affine(scale: float, degrees: float, source: tuple[float, float], target: tuple[float, float]) -> Affine:
    """The similarity that takes the point `source` to `target` (x, y), turning counter-clockwise by `degrees`."""
    angle = degrees * pi / 180
    turn = scale * np.array([[cos(angle), sin(angle)], [-sin(angle), cos(angle)]])
    shift = np.asarray(target, np.float64) - turn @ np.asarray(source, np.float64)
    return np.column_stack([turn, shift])


def _ease(t: float) -> float:
    """0 to 1 with a soft start and end."""
    return 0.5 - 0.5 * cos(pi * t)


def _photograph(name: str) -> NDArray[np.float32]:
    spec = find_spec("skimage")
    folders = [Path(folder) / "data" for folder in (spec.submodule_search_locations or ())] if spec else []
    for folder in folders:
        if (folder / name).is_file():
            return np.asarray(Image.open(folder / name).convert("RGB"), dtype=np.float32)
    found = f"its folder {folders[0]} has no {name}" if folders else "it is not installed"
    raise UsageError(
        f"the sample clip is made from photographs that scikit-image ships, but {found}; "
        "install it with: pip install 'segic[demo]'"
    )


def _cutout(name: str) -> NDArray[np.float32]:
    """Alpha (h, w) float32 0..1: the drawn mask, half a pixel smaller and softened, so that no old background shows."""
    mask = Image.open(Path(__file__).with_name("assets") / f"cutout_{name}.png").convert("L")
    soft = cv2.GaussianBlur(np.asarray(mask, dtype=np.float32) / 255, (0, 0), 1.2)
    return np.clip((soft - 0.45) / 0.5, 0, 1).astype(np.float32)


def _layer(photograph: NDArray[np.float32], alpha: NDArray[np.float32], shrink: float = 1.0) -> Layer:
    rgba = np.dstack([photograph * alpha[..., None], alpha])
    if shrink != 1:
        rgba = cv2.resize(rgba, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)
    return Layer(rgba)
