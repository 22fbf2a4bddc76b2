"""The clip that speed is measured on: a given one, or one made of N moving objects."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, cos, pi, sin
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from segic.errors import UsageError
from segic.files import make_folder
from segic_vos.frames import Annotation, Frame
from segic_vos.masks import read_annotations
from segic_vos.sinks.encoding import encoding
from segic_vos.sources import frame_name, open_source

MOST_OBJECTS = 200
_RATE = 24
_TURN = 48  # frames in which a made object goes round its circle once

Labels = NDArray[np.int32]


@dataclass(frozen=True)
class SpeedClip:
    """name: for reports. video: file or folder. size: (height, width). names: of the frames, all of which are run.

    first: the first frame's masks. truth: makes the true labels of all frames, None where they are not known.
    """

    name: str
    video: Path
    size: tuple[int, int]
    names: tuple[str, ...]
    first: Annotation
    truth: Callable[[], Iterator[Labels]] | None

    @property
    def count(self) -> int:
        """How many frames."""
        return len(self.names)

    def frames(self, count: int | None = None) -> Iterator[Frame]:
        """Decode from the start; the first `count` frames only."""
        return iter(open_source(self.video, end=self.count if count is None else min(count, self.count)))


def given_clip(video: Path, masks: Path | str, *, frames: int, objects: int | None = None) -> SpeedClip:
    """A clip of the user's.

    masks: as `segic vos run` takes them. Of a folder of masks by frame the first frame's is given to the model, and the
    others are the truth. frames: how many at most. objects: only the first so many ids.

    Raises UsageError where the files do not fit together, or hold fewer objects than asked for.
    """
    source = open_source(video, end=frames)
    annotations = read_annotations(masks, frame_names=source.names)
    names: list[str] = []
    masked = 0
    start: Frame | None = None
    given: Annotation | None = None
    for frame in source:  # to the end: containers lie about their number of frames
        found = annotations.at(frame, first=not names)
        masked += found is not None
        if start is None:
            start, given = frame, found
        names.append(frame.name)
    if start is None:
        raise UsageError(f"{video}: no frame to work on")
    if given is None:
        raise UsageError(f"{masks}: holds no mask for the first frame of {video}, {start.name}")
    if objects is not None and objects > len(given.ids):
        raise UsageError(
            f"{objects} objects were asked for and the first mask holds {len(given.ids)}; leave out --video and "
            "--masks for a clip made with any number of objects"
        )
    ids = given.ids[:objects]

    def truth() -> Iterator[Labels]:
        for frame in open_source(video, end=frames):
            if (found := annotations.at(frame, first=False)) is not None:
                yield _only(found.labels, ids, found.void)

    first = Annotation(_only(given.labels, ids, None), ids, palette=given.palette)
    return SpeedClip(video.name, video, start.size, tuple(names), first, truth if masked == len(names) else None)


def _only(labels: Labels, ids: Sequence[int], void: int | None) -> Labels:
    """Other objects become background, void stays."""
    kept = [*ids, *(() if void is None else (void,))]
    out: Labels = np.where(np.isin(labels, kept), labels, 0).astype(np.int32)
    return out


def made_clip(folder: Path, *, objects: int, frames: int, size: tuple[int, int]) -> SpeedClip:
    """An H.264 clip of textured ellipses that circle before a drifting background, all of them in sight all the time.

    size: (height, width), even. The pictures are the same on every run. Raises UsageError for sizes that H.264 cannot
    hold, and for more than MOST_OBJECTS objects.
    """
    if not 1 <= objects <= MOST_OBJECTS:
        raise UsageError(f"{objects} objects: expected 1 to {MOST_OBJECTS}")
    if min(size) < 32 or size[0] % 2 or size[1] % 2:
        raise UsageError(f"a made clip of {size[1]}x{size[0]} pixels: expected even sides of at least 32")
    scene = _Scene(objects, size)
    path = folder / f"made_{objects}.mp4"
    make_folder(folder)
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with encoding(path), av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(_RATE))
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "20", "preset": "veryfast"} if codec == "libx264" else {"qscale": "3"}
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scene.picture(index), format="rgb24")))
        container.mux(stream.encode(None))
    first = Annotation(scene.labels(0), tuple(range(1, objects + 1)))
    names = tuple(frame_name(index) for index in range(frames))
    return SpeedClip("made", path, size, names, first, lambda: (scene.labels(index) for index in range(frames)))


class _Scene:
    """Objects on a grid of cells, each an ellipse of its own texture that circles within its cell."""

    def __init__(self, objects: int, size: tuple[int, int]) -> None:
        self._size = size
        self._columns = ceil((objects * size[1] / size[0]) ** 0.5)
        self._rows = ceil(objects / self._columns)
        self._objects = objects
        noise = np.random.default_rng(0)
        self._ground = _texture(noise, (size[0], size[1]), 24, (90, 170))
        self._textures = [
            _texture(noise, (2 * self._radii[1], 2 * self._radii[0]), 6, (20, 235)) for _ in range(objects)
        ]

    @property
    def _radii(self) -> tuple[int, int]:
        """An ellipse's half axes in x and y, pixels."""
        height, width = self._size
        return max(3, int(0.3 * width / self._columns)), max(3, int(0.3 * height / self._rows))

    def picture(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        out = np.roll(self._ground, (index // 2, index), axis=(0, 1))
        labels = self.labels(index)
        for number, texture in enumerate(self._textures):
            centre = self._centre(number, index)
            left, top = centre[0] - self._radii[0], centre[1] - self._radii[1]
            box = (slice(max(top, 0), top + texture.shape[0]), slice(max(left, 0), left + texture.shape[1]))
            own = labels[box] == number + 1
            shown = texture[max(-top, 0) :, max(-left, 0) :][: own.shape[0], : own.shape[1]]
            out[box][own] = shown[own]
        return out

    def labels(self, index: int) -> Labels:
        """(H, W) int32, ids from 1."""
        out = np.zeros(self._size, np.int32)
        for number in range(self._objects):
            cv2.ellipse(out, self._centre(number, index), self._radii, 0, 0, 360, number + 1, thickness=-1)
        return out

    def _centre(self, number: int, index: int) -> tuple[int, int]:
        height, width = self._size
        row, column = divmod(number, self._columns)
        angle = 2 * pi * (index / _TURN + number / self._objects)
        x = (column + 0.5 + 0.15 * cos(angle)) * width / self._columns
        y = (row + 0.5 + 0.15 * sin(angle)) * height / self._rows
        return round(x), round(y)


def _texture(
    noise: np.random.Generator, size: tuple[int, int], grain: int, levels: tuple[int, int]
) -> NDArray[np.uint8]:
    """(H, W, 3) smooth noise around a colour of its own, features about `grain` pixels wide."""
    coarse = noise.uniform(-40, 40, (ceil(size[0] / grain) + 1, ceil(size[1] / grain) + 1, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + noise.uniform(*levels, 3), 0, 255).astype(np.uint8)
