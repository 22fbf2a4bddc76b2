"""Synthetic training scenes for segmentation by example in video, made of still pictures only.

A scene is three frames: A, the example; B, a recent frame; and C, the target. B is near C in time, A is further away.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from segic.errors import SegicError
from segic.training.composites import Composition, draw_composite
from segic.training.drafts import Draft
from segic.training.lighting import Light, add_noise, blur_by_motion, degrade, draw_light, relight
from segic.training.photograph_scenes import draw_classes_scene, draw_views_scene
from segic.training.pools import Pools

# Part of the names of feature caches: raise it with every change to this code, or to what it calls, that gives other
# pixels or labels for the same random state, or caches of old scenes would be taken for new ones.
VERSION = 2
LEAST_SHARE = 0.0015
SLOWEST = 0.03
ATTEMPTS = 40


@dataclass(frozen=True)
class Scene:
    """Frames (3, S, S, 3) uint8 RGB and labels (3, S, S) uint8, in the order A, B, C.

    Labels are 1..count, the same thing in all frames, and 0 elsewhere. Every object covers at least LEAST_SHARE of A;
    it may be hidden or outside in B or C. kind: views, composite or classes. has_recent: whether the labels of B may
    serve as a second example, as the prediction on a recent frame of a video does.
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    count: int
    kind: str
    has_recent: bool


@dataclass(frozen=True)
class SceneMix:
    """Probabilities of the kinds (relative weights) and of a camera's defects.

    slow: that B is only moments from C, as a video's frames are: between the two everything moves SLOWEST to 1 times as
    far, which is drawn evenly on a logarithmic scale.
    """

    views: float = 0.40
    composite: float = 0.45
    classes: float = 0.15
    blur: float = 0.12
    noise: float = 0.2
    compression: float = 0.25
    softness: float = 0.15
    slow: float = 0.0
    composition: Composition = field(default_factory=Composition)


DEFAULT_MIX = SceneMix()


def make_scene(rng: np.random.Generator, pools: Pools, size: int = 448, mix: SceneMix = DEFAULT_MIX) -> Scene:
    """One random scene; the same random state and pools give the same scene.

    Raises SegicError when the pools give no scene with a visible object in ATTEMPTS trials.
    """
    weights = np.array([mix.views, mix.composite, mix.classes if pools.shared else 0.0])
    kind = ("views", "composite", "classes")[int(rng.choice(3, p=weights / weights.sum()))]
    slow = mix.slow > 0 and rng.random() < mix.slow
    pace = math.exp(rng.uniform(math.log(SLOWEST), 0)) if slow else 1.0
    for _ in range(ATTEMPTS):
        if kind == "views":
            draft = draw_views_scene(rng, pools, size, pace)
        elif kind == "composite":
            draft = draw_composite(rng, pools, size, mix.composition, pace)
        else:
            draft = draw_classes_scene(rng, pools, size)
        labels, count = number_visible(draft.labels)
        # One object must be there to find in the target; others may have left.
        if count and (labels[2] > 0).mean() >= LEAST_SHARE:
            return Scene(_expose(rng, draft, mix), labels, count, kind, draft.has_recent)
    raise SegicError(
        f"no scene of kind {kind} with a visible object in {ATTEMPTS} trials; the pictures' masks are empty or tiny"
    )


def number_visible(labels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """Labels (3, S, S) renumbered 1..count over the objects that cover enough of A; the others become 0."""
    areas = np.bincount(labels[0].ravel(), minlength=256)
    least = math.ceil(LEAST_SHARE * labels[0].size)
    kept = [number for number in range(1, 256) if areas[number] >= least]
    table = np.zeros(256, np.uint8)
    table[kept] = np.arange(1, len(kept) + 1)
    return table[labels], len(kept)


def _expose(rng: np.random.Generator, draft: Draft, mix: SceneMix) -> NDArray[np.uint8]:
    """The frames in their light, then with the camera's defects; B and C share most of both, A may differ much."""
    size = draft.frames.shape[1]
    target = draw_light(rng, 0.6)
    lights: tuple[Light, ...] = (
        target + draw_light(rng, rng.choice([0.3, 1.0])),
        target + draw_light(rng, 0.15),
        target,
    )
    moving = rng.random() < mix.blur
    noise = rng.uniform(2, 10) if rng.random() < mix.noise else 0.0
    softness = rng.uniform(0.4, 1.2) if rng.random() < mix.softness else 0.0
    quality = int(rng.integers(30, 90)) if rng.random() < mix.compression else 0
    exposed = []
    for frame, light in zip(draft.frames, lights, strict=True):
        picture = relight(frame, light)
        if moving:
            length, direction = rng.uniform(0, 0.025) * size, rng.uniform(0, 2 * math.pi)
            picture = blur_by_motion(picture, length * math.cos(direction), length * math.sin(direction))
        if noise:
            picture = add_noise(rng, picture, noise)
        exposed.append(degrade(picture, quality, softness))
    return np.stack(exposed)
