"""Photographs with instance polygons (COCO format) and plain backgrounds, decoded on demand.

Decoded pictures are kept in a cache bounded in bytes: a photograph costs a few milliseconds to decode, a scene needs a
handful, and a whole data set does not fit beside several workers.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segic.errors import UsageError

Picture = NDArray[np.uint8]

ALL_INSTANCES = "all instances"
SUPERSAMPLING = 4
BACKGROUND_SIDE = 1600
# Flat artwork (a gradient, a logo on one colour) teaches nothing about clutter: the least mean absolute Laplacian of a
# background, in grey levels, measured at 400 pixels.
LEAST_DETAIL = 1.5


@dataclass(frozen=True)
class Instance:
    """One annotated thing: class id, box (x0, y0, x1, y1), polygons of (N, 2) float32 and area, all in pixels."""

    category: int
    box: tuple[float, float, float, float]
    polygons: tuple[NDArray[np.float32], ...]
    area: float


@dataclass(frozen=True)
class Photograph:
    """One picture file with its instances. `complete` says that every thing of the known classes is annotated."""

    id: int
    path: Path
    width: int
    height: int
    complete: bool
    instances: tuple[Instance, ...]


class BrokenPicture(UsageError):
    """A picture that cannot be used. file: its name. reason: in words."""

    def __init__(self, file: str, reason: str):
        super().__init__(f"the picture {file} {reason}; replace it or take it out of the annotations")
        self.file = file
        self.reason = reason


class PictureCache:
    """Decoded pictures by key, the least recently used dropped beyond `limit` bytes. Threads may share it."""

    def __init__(self, limit: int = 256 << 20) -> None:
        self._limit = limit
        self._bytes = 0
        self._pictures: OrderedDict[str, Picture] = OrderedDict()
        self._lock = Lock()

    def photograph(self, path: Path) -> Picture:
        """The (H, W, 3) uint8 RGB picture of a file. Raises BrokenPicture when it is missing or does not decode."""

        def read() -> NDArray[np.uint8]:
            try:
                return np.fromfile(path, np.uint8)
            except OSError as error:
                raise BrokenPicture(str(path), f"cannot be read ({error.strerror})") from error

        return self._get(str(path), read)

    def encoded(self, key: str, data: bytes) -> Picture:
        """As `photograph`, for picture bytes held in memory."""
        return self._get(key, lambda: np.frombuffer(data, np.uint8))

    def _get(self, key: str, read: Callable[[], NDArray[np.uint8]]) -> Picture:
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
                return self._pictures[key]
        picture = decode(read(), key)  # without the lock: threads decode beside each other
        picture.setflags(write=False)
        with self._lock:
            if key not in self._pictures:
                self._pictures[key] = picture
                self._bytes += picture.nbytes
            while self._bytes > self._limit and len(self._pictures) > 1:
                self._bytes -= self._pictures.popitem(last=False)[1].nbytes
        return picture


def decode(data: NDArray[np.uint8], name: str) -> Picture:
    """(H, W, 3) uint8 RGB of an encoded picture. Raises BrokenPicture when it does not decode."""
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    if picture is None:
        raise BrokenPicture(name, "does not decode")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def read_photographs(images: Path, annotations: Path) -> tuple[Photograph, ...]:
    """The photographs of a COCO file that have at least one usable instance, in the order of their ids.

    An image without the field `labelled` counts as completely annotated, as COCO itself is. Crowds, run-length masks
    and polygons of fewer than three points are left out. Raises UsageError when the file or the folder is missing or
    broken.
    """
    if not images.is_dir():
        raise UsageError(f"the picture folder {images} does not exist; give the folder that holds the photographs")
    try:
        document = json.loads(annotations.read_text(encoding="utf-8"))
        grouped: dict[int, list[Instance]] = {}
        for thing in document["annotations"]:
            instance = _instance(thing)
            if instance is not None:
                grouped.setdefault(int(thing["image_id"]), []).append(instance)
        read = [
            Photograph(
                id=int(entry["id"]),
                path=images / entry["file_name"],
                width=int(entry["width"]),
                height=int(entry["height"]),
                complete=entry.get("labelled", ALL_INSTANCES) == ALL_INSTANCES,
                instances=tuple(grouped[int(entry["id"])]),
            )
            for entry in document["images"]
            if int(entry["id"]) in grouped
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"{annotations} is not a COCO instance file ({reason}); give one with polygons") from error
    return tuple(sorted(read, key=lambda photograph: photograph.id))


def _instance(thing: dict[str, Any]) -> Instance | None:
    segmentation = thing.get("segmentation")
    if thing.get("iscrowd") or not isinstance(segmentation, list):
        return None
    polygons = tuple(np.asarray(flat, np.float32).reshape(-1, 2) for flat in segmentation if len(flat) >= 6)
    if not polygons:
        return None
    points = np.concatenate(polygons)
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    area = sum(float(cv2.contourArea(polygon)) for polygon in polygons)
    if area < 1:
        return None
    return Instance(int(thing["category_id"]), (float(x0), float(y0), float(x1), float(y1)), polygons, area)


def coverage(instances: tuple[Instance, ...], width: int, height: int) -> NDArray[np.uint8]:
    """How much of each pixel the union of the instances covers: (height, width) uint8, 255 is all of it.

    Outlines come out up to a quarter of a pixel too wide, far less than annotators are out by.
    """
    alpha = np.zeros((height, width), np.uint8)
    for instance in instances:
        x0, y0 = max(0, int(instance.box[0]) - 1), max(0, int(instance.box[1]) - 1)
        x1, y1 = min(width, int(instance.box[2]) + 2), min(height, int(instance.box[3]) + 2)
        if x1 <= x0 or y1 <= y0:
            continue
        fine = np.zeros(((y1 - y0) * SUPERSAMPLING, (x1 - x0) * SUPERSAMPLING), np.uint8)
        for polygon in instance.polygons:
            # COCO counts from the pixel's corner, OpenCV from its centre; four binary digits of fraction are kept.
            points = np.round(((polygon - (x0, y0)) * SUPERSAMPLING - 0.5) * 16).astype(np.int32)
            cv2.fillPoly(fine, [points], 255, shift=4)
        part = cv2.resize(fine, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
        np.maximum(alpha[y0:y1, x0:x1], part, out=alpha[y0:y1, x0:x1])
    return alpha


def read_backgrounds(folder: Path) -> tuple[tuple[str, bytes], ...]:
    """Every detailed photograph under a folder as (name, JPEG bytes), at most BACKGROUND_SIDE pixels on the long side.

    One picture stored in several resolutions (files of one folder that are named by their size) is read once. Files
    that do not decode are passed over. Raises UsageError when the folder does not exist.
    """
    if not folder.is_dir():
        raise UsageError(f"the background folder {folder} does not exist; give a folder of photographs or none")
    read = []
    for path in _background_files(folder):
        try:
            with Image.open(path) as image:
                # A decoder that can scale (JPEG) saves most of the time here.
                image.draft("RGB", (BACKGROUND_SIDE, BACKGROUND_SIDE))
                image.thumbnail((BACKGROUND_SIDE, BACKGROUND_SIDE))
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
        if min(pixels.shape[:2]) < 200 or _detail(pixels) < LEAST_DETAIL:
            continue
        encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
        read.append((path.relative_to(folder).as_posix(), encoded.tobytes()))
    return tuple(read)


def _background_files(folder: Path) -> Iterator[Path]:
    suffixes = {".jpg", ".jpeg", ".png", ".webp"}
    by_size: dict[Path, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in suffixes or not path.is_file() or "screenshot" in path.stem.lower():
            continue
        width, _, height = path.stem.partition("x")
        if width.isdigit() and height.isdigit():
            kept = by_size.get(path.parent)
            if kept is None or path.stat().st_size > kept.stat().st_size:
                by_size[path.parent] = path
        else:
            yield path
    yield from (by_size[parent] for parent in sorted(by_size))


def _detail(pixels: Picture) -> float:
    scale = 400 / max(pixels.shape[:2])
    small = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return float(np.abs(cv2.Laplacian(small, cv2.CV_32F)).mean())
