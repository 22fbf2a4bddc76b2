"""Scenes of cut-outs that move over a photograph: each object has its own path, depth, light and articulation."""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from segic.training.cameras import FAR, NEAR, Views, alphas_of, draw_crop, draw_objects, draw_views, see_labelled
from segic.training.cutouts import Cutout
from segic.training.drafts import Draft
from segic.training.lighting import Light, draw_light, relight
from segic.training.motion import Grid, Matrix, Reach, draw_grid, draw_motion, pose, sampling_map, streak, translation
from segic.training.photographs import Picture
from segic.training.pools import Pools

OBJECT_NEAR = Reach(shift=0.07, log_scale=0.08, degrees=6.0, elastic=0.02)
OBJECT_FAR = Reach(shift=0.40, log_scale=0.35, degrees=25.0, elastic=0.08, flip=0.1)
FAST_SHIFT = 0.20
# Sides of objects in a frame of 448 pixels, and how far a cut-out is enlarged at most before it is only a smear.
SIDES = (24.0, 300.0)
REFERENCE_SIZE = 448
LARGEST_ZOOM = 2.5
# The background's own movement is gentler than that of a view, so that objects move against it.
CALM = 0.5
MOST_LABELS = 6
MOST_BESIDE = 3


@dataclass(frozen=True)
class Composition:
    """Probabilities of what a composite scene may hold.

    beside: that look-alikes, up to MOST_BESIDE, stand next to each other and partly hide each other, instead of one
    anywhere.
    """

    stamps: float = 0.5
    wallpaper: float = 0.2
    lookalike: float = 0.35
    lookalike_labelled: float = 0.5
    background_objects: float = 0.5
    other_background: float = 0.2
    fast: float = 0.25
    object_blur: float = 0.25
    reordered: float = 0.3
    clustered: float = 0.35
    beside: float = 0.0


@dataclass(frozen=True)
class Pose:
    """One object in one frame: cut-out to frame pixels, elastic grid, light, motion blur (x, y) in pixels."""

    matrix: Matrix
    grid: Grid
    light: Light
    blur: tuple[float, float]


@dataclass(frozen=True)
class Actor:
    """A cut-out, its poses in A, B and C, its depths there (smaller is nearer) and whether it is an object."""

    cutout: Cutout
    poses: tuple[Pose, Pose, Pose]
    depths: tuple[float, float, float]
    labelled: bool


@dataclass(frozen=True)
class _Place:
    """A cut-out and where it stands in C: its centre as fractions of the frame, its side at REFERENCE_SIZE."""

    cutout: Cutout
    labelled: bool
    centre: NDArray[np.float64]
    side: float


def draw_composite(
    rng: np.random.Generator, pools: Pools, size: int, composition: Composition, pace: float = 1.0
) -> Draft:
    """One composite scene, before the light and the camera's defects. pace: of the way from B to C, up to 1."""
    frames, labels = _background(rng, pools, size, composition, pace)
    actors = _draw_actors(rng, pools, size, composition, pace)
    number = int(labels.max())
    numbers = []
    for actor in actors:
        number += 1 if actor.labelled else 0
        numbers.append(number if actor.labelled and number <= MOST_LABELS else 0)
    for frame in range(3):
        order = sorted(range(len(actors)), key=lambda index: -actors[index].depths[frame])
        for index in order:
            paste(frames[frame], labels[frame], actors[index].cutout, actors[index].poses[frame], numbers[index])
    return Draft(frames, labels, has_recent=True)


def _background(
    rng: np.random.Generator, pools: Pools, size: int, composition: Composition, pace: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    frames = np.empty((3, size, size, 3), np.uint8)
    labels = np.zeros((3, size, size), np.uint8)
    picture, alphas, views = _backdrop(rng, pools, size, composition, pace)
    elsewhere = rng.random() < composition.other_background
    for frame, view in enumerate(views):
        frames[frame], labels[frame] = see_labelled(picture, alphas, view, size)
    if elsewhere:
        picture, _, views = _backdrop(rng, pools, size, composition, pace)
        frames[0], _ = see_labelled(picture, (), views[0], size)
        labels[:] = 0
    return frames, labels


def _backdrop(
    rng: np.random.Generator, pools: Pools, size: int, composition: Composition, pace: float
) -> tuple[Picture, list[NDArray[np.uint8]], Views]:
    near, far = NEAR.gentler(CALM * pace), replace(FAR.gentler(CALM), flip=FAR.flip / 2)
    if pools.backgrounds and rng.random() < composition.wallpaper:
        picture = _crop_backdrop(rng, pools.background(int(rng.integers(len(pools.backgrounds)))), size)
        height, width = picture.shape[:2]
        zoom = rng.uniform(0.7, 0.95)
        crop = translation((width - 1) / 2, (height - 1) / 2) @ np.diag([zoom * width / size, zoom * height / size, 1])
        base = crop @ translation(-(size - 1) / 2, -(size - 1) / 2)
        return picture, [], draw_views(rng, base, width, height, size, near, far)
    index = int(rng.integers(len(pools.photographs)))
    photograph = pools.photographs[index]
    base = draw_crop(rng, photograph, None, size)
    alphas: list[NDArray[np.uint8]] = []
    if rng.random() < composition.background_objects:
        focus = int(rng.integers(len(photograph.instances)))
        alphas = alphas_of(photograph, draw_objects(rng, photograph, focus, most=3))
    return pools.picture(index), alphas, draw_views(rng, base, photograph.width, photograph.height, size, near, far)


def _crop_backdrop(rng: np.random.Generator, picture: Picture, size: int) -> Picture:
    """A random square of a large background, reduced to what the frame can show."""
    height, width = picture.shape[:2]
    side = int(rng.uniform(0.45, 1.0) * min(height, width))
    x, y = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
    part = picture[y : y + side, x : x + side]
    limit = int(size * 1.2)
    if side <= limit:
        return part
    return np.asarray(cv2.resize(part, (limit, limit), interpolation=cv2.INTER_AREA), np.uint8)


def _draw_actors(
    rng: np.random.Generator, pools: Pools, size: int, composition: Composition, pace: float
) -> list[Actor]:
    centre = rng.uniform(0.15, 0.85, 2)
    places = []
    for _ in range(int(rng.integers(1, 6))):
        centre = _draw_centre(rng, centre, composition)
        places.append(_Place(pools.draw_cutout(rng, composition.stamps), True, centre, _draw_side(rng)))
    if rng.random() < composition.lookalike:
        places += _draw_twins(rng, places, composition)
    again = rng.random() < composition.reordered
    actors: list[Actor] = []
    for place in places:
        depth = float(rng.random())
        depths = (float(rng.random()) if again else depth, depth, depth)
        actors.append(_draw_actor(rng, place, depths, size, composition, pace))
    return actors


def _draw_centre(
    rng: np.random.Generator, previous: NDArray[np.float64], composition: Composition
) -> NDArray[np.float64]:
    """A cluster makes objects cover each other, which spread out ones seldom do."""
    if rng.random() < composition.clustered:
        return np.clip(previous + rng.uniform(-0.2, 0.2, 2), 0.1, 0.9)
    return rng.uniform(0.1, 0.9, 2)


def _draw_side(rng: np.random.Generator) -> float:
    return math.exp(rng.uniform(math.log(SIDES[0]), math.log(SIDES[1])))


def _draw_twins(rng: np.random.Generator, places: "list[_Place]", composition: Composition) -> "list[_Place]":
    """Copies of one of the objects: one anywhere, or up to MOST_BESIDE in a row, each next to the one before."""
    last = places[int(rng.integers(len(places)))]
    beside = composition.beside > 0 and rng.random() < composition.beside
    twins = []
    for _ in range(int(rng.integers(1, MOST_BESIDE + 1)) if beside else 1):
        centre, side = _draw_centre(rng, places[-1].centre, composition), _draw_side(rng)
        if beside:
            away, direction = rng.uniform(0.3, 1.0) * last.side / REFERENCE_SIZE, rng.uniform(0, 2 * math.pi)
            step = away * np.array([math.cos(direction), math.sin(direction)])
            centre, side = np.clip(last.centre + step, 0.08, 0.92), last.side * math.exp(rng.uniform(-0.2, 0.2))
        last = _Place(last.cutout, bool(rng.random() < composition.lookalike_labelled), centre, side)
        twins.append(last)
    return twins


def _draw_actor(
    rng: np.random.Generator,
    place: _Place,
    depths: tuple[float, float, float],
    size: int,
    composition: Composition,
    pace: float,
) -> Actor:
    cutout, centre = place.cutout, place.centre
    height, width = cutout.alpha.shape
    scale = min(place.side * size / REFERENCE_SIZE / math.sqrt(width * height), LARGEST_ZOOM)
    angle, flip = math.radians(rng.uniform(-15, 15)), bool(rng.random() < 0.5)
    cutout, scale = _reduce(cutout, scale)

    recent = OBJECT_NEAR.gentler(pace)
    near, far = draw_motion(rng, recent), draw_motion(rng, OBJECT_FAR)
    if rng.random() < composition.fast:
        length, direction = pace * rng.uniform(NEAR.shift, FAST_SHIFT), rng.uniform(0, 2 * math.pi)
        near = replace(near, shift=(length * math.cos(direction), length * math.sin(direction)))
    bend, light = draw_grid(rng, OBJECT_NEAR.elastic), draw_light(rng, 0.6)
    blurred = rng.random() < composition.object_blur
    exposure = rng.uniform(0.1, 0.5) * size if blurred else 0.0
    smear = (-near.shift[0] * exposure, -near.shift[1] * exposure)
    away = np.clip(centre + far.shift, 0.08, 0.92)

    def stand(at: NDArray[np.float64], zoom: float, turn: float, mirrored: bool) -> Matrix:
        middle = translation(-(cutout.alpha.shape[1] - 1) / 2, -(cutout.alpha.shape[0] - 1) / 2)
        return translation(at[0] * size, at[1] * size) @ pose(scale * zoom, angle + turn, mirrored) @ middle

    return Actor(
        cutout=cutout,
        poses=(
            Pose(
                stand(away, far.scale, far.angle, flip != far.flip),
                bend + draw_grid(rng, OBJECT_FAR.elastic),
                light + draw_light(rng, 0.4),
                (0.0, 0.0),
            ),
            Pose(
                stand(centre + near.shift, near.scale, near.angle, flip),
                bend + draw_grid(rng, recent.elastic),
                light + draw_light(rng, 0.1),
                smear,
            ),
            Pose(stand(centre, 1.0, 0.0, flip), bend, light, smear),
        ),
        depths=depths,
        labelled=place.labelled,
    )


def _reduce(cutout: Cutout, scale: float) -> tuple[Cutout, float]:
    """The cut-out made as small as its use allows, because plain bilinear sampling of a large one would alias."""
    factor = scale * 1.2
    if factor > 0.8:
        return cutout, scale
    height, width = cutout.alpha.shape
    shape = (max(8, round(width * factor)), max(8, round(height * factor)))
    reduced = Cutout(
        np.asarray(cv2.resize(cutout.rgb, shape, interpolation=cv2.INTER_AREA), np.uint8),
        np.asarray(cv2.resize(cutout.alpha, shape, interpolation=cv2.INTER_AREA), np.uint8),
    )
    return reduced, scale * math.sqrt(width * height / (shape[0] * shape[1]))


def paste(frame: Picture, labels: NDArray[np.uint8], cutout: Cutout, where: Pose, number: int) -> None:
    """Draw an object into an (S, S, 3) frame and (S, S) labels in place; it is labelled where alpha is half or more."""
    size = labels.shape[0]
    height, width = cutout.alpha.shape
    corners = where.matrix @ np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]], np.float64)
    side = math.sqrt(abs(np.linalg.det(where.matrix[:2, :2])) * width * height)
    pad = 0.15 * side + max(map(abs, where.blur)) / 2 + 2
    left, top = (math.floor(low - pad) for low in corners[:2].min(1))
    right, bottom = (math.ceil(high + pad) for high in corners[:2].max(1))
    columns, rows = slice(max(0, left), min(size, right)), slice(max(0, top), min(size, bottom))
    if columns.start >= columns.stop or rows.start >= rows.stop:
        return
    x, y = sampling_map(
        np.linalg.inv(where.matrix) @ translation(left, top), where.grid, right - left, bottom - top, side
    )
    layer = np.empty((height, width, 4), np.uint8)
    alpha = cutout.alpha[..., None]
    lit = relight(cutout.rgb, where.light).astype(np.uint16)
    layer[..., :3] = (lit * alpha + 127) // 255
    layer[..., 3] = cutout.alpha
    drawn = cv2.remap(layer, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0, 0))
    if max(map(abs, where.blur)) >= 2:
        drawn = cv2.filter2D(drawn, -1, streak(*where.blur), borderType=cv2.BORDER_CONSTANT)
    drawn = drawn[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    under = frame[rows, columns].astype(np.uint16)
    behind = (255 - drawn[..., 3:]).astype(np.uint16)
    frame[rows, columns] = np.minimum(drawn[..., :3] + (under * behind + 127) // 255, 255).astype(np.uint8)
    labels[rows, columns][drawn[..., 3] >= 128] = number
