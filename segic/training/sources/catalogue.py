"""The images of a data set with their masks, not yet read, and which classes they show."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from segic.errors import UsageError
from segic.training.photographs import Instance, coverage
from segic.training.sources.sample import Unusable

Size = tuple[int, int]
MOST = 10  # classes that a message lists


class MaskSource(Protocol):
    """A mask that is drawn or read when it is needed."""

    def read(self, size: Size) -> NDArray[np.bool_]:
        """(H, W) for an image of `size` (height, width). Raises Unusable."""
        ...


@dataclass(frozen=True)
class Polygons:
    """The union of COCO polygons, (n, 2) float32 x and y in pixels each."""

    rings: tuple[NDArray[np.float32], ...]

    def read(self, size: Size) -> NDArray[np.bool_]:
        points = np.concatenate(self.rings)
        (x0, y0), (x1, y1) = points.min(0), points.max(0)
        whole = Instance(0, (float(x0), float(y0), float(x1), float(y1)), self.rings, 0.0)
        return coverage((whole,), size[1], size[0]) >= 128


@dataclass(frozen=True)
class RunLengths:
    """A COCO run-length mask, as its file has it."""

    segmentation: Mapping[str, Any]
    file: str

    def read(self, size: Size) -> NDArray[np.bool_]:
        if tuple(self.segmentation["size"]) != size:
            raise Unusable(self.file, f"a mask is {self.segmentation['size']} pixels, its image is {list(size)}")
        counts = self.segmentation["counts"]
        if isinstance(counts, list):
            values = np.arange(len(counts)) % 2 == 1
            flat = np.repeat(values, counts)
            if flat.size != size[0] * size[1]:
                raise Unusable(self.file, f"a run-length mask has {flat.size} pixels, expected {size[0] * size[1]}")
            return flat.reshape(size[::-1]).T
        from pycocotools import mask as coco_mask  # that it is there was seen when the file was read

        return np.asarray(coco_mask.decode(dict(self.segmentation)), np.bool_)


@dataclass(frozen=True)
class Value:
    """The pixels of an index mask file that hold one value."""

    path: Path
    value: int

    def read(self, size: Size) -> NDArray[np.bool_]:
        return np.asarray(_of_size(read_index(self.path), size, self.path) == self.value)


@dataclass(frozen=True)
class White:
    """The pixels of a picture file that are lighter than middle grey, as FSS-1000 draws its masks."""

    path: Path

    def read(self, size: Size) -> NDArray[np.bool_]:
        from PIL import Image

        try:
            with Image.open(self.path) as image:
                grey = np.asarray(image.convert("L"))
        except (OSError, SyntaxError, ValueError) as error:
            raise Unusable(str(self.path), f"does not decode as a mask ({error})") from error
        return _of_size(grey, size, self.path) >= 128


def _of_size(values: NDArray[Any], size: Size, path: Path) -> NDArray[Any]:
    if values.shape != size:
        raise Unusable(
            str(path), f"the mask is {values.shape[1]}x{values.shape[0]} pixels, its image is {size[1]}x{size[0]}"
        )
    return values


@dataclass(frozen=True)
class Entity:
    """One mask of an image and its class, "" without one."""

    category: str
    mask: MaskSource


@dataclass(frozen=True)
class Item:
    """One image. size: (height, width) that its annotations were made for, None where they do not say.

    upright: whether its masks are of the picture turned as its EXIF orientation says, or of the pixels as stored.
    """

    path: Path
    entities: tuple[Entity, ...]
    size: Size | None = None
    upright: bool = False

    def picture(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB. Raises Unusable when it is missing, does not decode or is of another size."""
        try:
            data = np.fromfile(self.path, np.uint8)
        except OSError as error:
            raise Unusable(str(self.path), f"cannot be read ({error.strerror})") from error
        how = cv2.IMREAD_COLOR if self.upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        picture = cv2.imdecode(data, how) if data.size else None
        if picture is None:
            raise Unusable(str(self.path), "does not decode as a picture")
        if self.size is not None and picture.shape[:2] != self.size:
            raise Unusable(
                str(self.path),
                f"is {picture.shape[1]}x{picture.shape[0]} pixels, its annotations are for "
                f"{self.size[1]}x{self.size[0]}",
            )
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)

    def class_mask(self, category: str, size: Size) -> NDArray[np.bool_]:
        """The union of a class's masks (H, W)."""
        masks = [entity.mask.read(size) for entity in self.entities if entity.category == category]
        return np.logical_or.reduce(masks)


@dataclass(frozen=True)
class Catalogue:
    """A data set, read as far as its lists go. notes: what was left out, in words."""

    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()

    def classes(self) -> dict[str, tuple[int, ...]]:
        """Class to the positions of the images that show it, all classes."""
        found: dict[str, list[int]] = {}
        for position, item in enumerate(self.items):
            for category in dict.fromkeys(entity.category for entity in item.entities):
                found.setdefault(category, []).append(position)
        return {category: tuple(positions) for category, positions in sorted(found.items())}

    def only(self, classes: Sequence[str], excluded: Sequence[str], known: Iterable[str] = ()) -> "Catalogue":
        """Without the excluded classes and, if `classes` names any, with these alone; images left bare go.

        known: the data set's classes, of which these images may lack some. UsageError for a class that is none of them.
        """
        if not classes and not excluded:
            return self
        if classes:
            _refuse_unknown(classes, list(dict.fromkeys([*filter(None, known), *self.classes()])))
        kept = []
        for item in self.items:
            entities = tuple(
                e for e in item.entities if e.category not in excluded and (not classes or e.category in classes)
            )
            if entities:
                kept.append(replace(item, entities=entities))
        left = len(self.items) - len(kept)
        return Catalogue(tuple(kept), (*self.notes, f"{left} images left out that show no class asked for"))


def _refuse_unknown(classes: Sequence[str], known: Sequence[str]) -> None:
    unknown = []
    for name in (name for name in classes if name not in known):
        near = difflib.get_close_matches(name, known, n=1)
        unknown.append(f"{name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    if unknown:
        some = ", ".join(known[:MOST]) + (f" and {len(known) - MOST} more" if len(known) > MOST else "")
        raise UsageError(f"classes: it has none of the name {' or '.join(unknown)}; its classes are {some}")


def read_index(path: Path) -> NDArray[np.integer]:
    """(H, W) values of a palette or grey mask file. Raises Unusable."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except FileNotFoundError:
        raise Unusable(str(path), "there is no such file") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise Unusable(str(path), f"does not decode as a mask ({error})") from error
    if values.ndim == 3 and values.shape[2] == 2:
        values = values[..., 0]  # grey with alpha
    if values.ndim == 3:
        if (values[..., :1] != values[..., :3]).any():
            raise Unusable(str(path), "is a colour picture, expected a mask whose pixels are numbers")
        values = values[..., 0]
    return values.astype(np.uint8) if values.dtype == np.bool_ else values
