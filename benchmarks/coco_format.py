"""Annotation files in COCO's format (COCO itself, LVIS, and own data): images, classes, masks by class."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segic.errors import UsageError

from .clips import listing
from .masks import read_image
from .result import described

_IMAGE_FOLDERS = ("images", "val2014", "val2017", "train2014", "train2017", ".")
_SPECK = 32  # area in pixels up to which a thin polygon may cover no pixel at all


@dataclass(frozen=True)
class CocoImages:
    """A dataset in COCO's format.

    root: folder of the images. file: the annotation file. categories: class names by index (0 first), in the order of
    their ids. entries: image name to its entry. instances: image name to its annotations, without specks that cover no
    pixel; crowds are among them, since their pixels belong to the class.
    notes: what was left out.
    """

    root: Path
    file: Path
    categories: tuple[str, ...]
    entries: Mapping[str, Mapping[str, Any]]
    instances: Mapping[str, tuple[Mapping[str, Any], ...]]
    notes: tuple[str, ...] = ()

    def pools(self) -> dict[str, list[str]]:
        """Class name to the names of the images that show it otherwise than as a crowd, in the file's order."""
        pools: dict[str, list[str]] = {name: [] for name in self.categories}
        for image, annotations in self.instances.items():
            for category in dict.fromkeys(a["category"] for a in annotations if not a["crowd"]):
                pools[category].append(image)
        return pools

    def image(self, name: str) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        pixels = read_image(self.path(name))
        entry = self.entries[name]
        if pixels.shape[:2] != (entry["height"], entry["width"]):
            raise UsageError(
                f"{self.path(name)} is {pixels.shape[1]}x{pixels.shape[0]} pixels; {self.file.name} says "
                f"{entry['width']}x{entry['height']}"
            )
        return pixels

    def path(self, name: str) -> Path:
        """The image's file. Raises UsageError that names the folders looked in."""
        for folder in _IMAGE_FOLDERS:
            path = self.root / folder / name
            if path.is_file():
                return path
        raise UsageError(f"{name} of {self.file} is in none of {', '.join(_IMAGE_FOLDERS)} of {self.root}")

    def mask(self, name: str, category: str) -> NDArray[np.bool_]:
        """(H, W) union of the class's instances."""
        entry = self.entries[name]
        mask = np.zeros((entry["height"], entry["width"]), np.bool_)
        for annotation in self.instances[name]:
            if annotation["category"] == category:
                mask |= rasterise(annotation["segmentation"], entry["height"], entry["width"])
        return mask


def read_coco(root: Path, candidates: tuple[str, ...], annotations: Path | None = None) -> CocoImages:
    """Read the first of ROOT's `candidates` (paths within it) that exists, or the file given.

    Images whose entry says in `labelled` that not all instances are annotated are left out, which a note says: what is
    not annotated there would count as background. Raises UsageError that says what was looked for.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder; expected a dataset in COCO's format")
    file = annotations or next((root / c for c in candidates if (root / c).is_file()), None)
    if file is None:
        raise UsageError(f"{root} has no annotations: looked for {', '.join(candidates)}; found {listing(root)}")
    return _read(root, file)


@lru_cache(maxsize=2)
def _read(root: Path, file: Path) -> CocoImages:
    try:
        data = json.loads(file.read_text())
        categories = {c["id"]: str(c["name"]) for c in sorted(data["categories"], key=lambda c: int(c["id"]))}
        names: dict[int, str] = {}
        entries: dict[str, Mapping[str, Any]] = {}
        partial = 0
        for image in data["images"]:
            if image.get("labelled", "all instances") != "all instances":
                partial += 1
                continue
            # LVIS names its files by their address alone: .../train2017/000000000009.jpg
            file_name = image.get("file_name") or "/".join(image["coco_url"].split("/")[-2:])
            names[image["id"]] = file_name
            entries[file_name] = image
        grouped: dict[str, list[Mapping[str, Any]]] = {name: [] for name in entries}
        for annotation in data["annotations"]:
            name = names.get(annotation["image_id"])
            area = float(annotation.get("area", 0))
            if name is None or (area < _SPECK and _covers_nothing(annotation["segmentation"], entries[name])):
                continue
            grouped[name].append(
                {
                    "category": categories[annotation["category_id"]],
                    "segmentation": annotation["segmentation"],
                    "area": area,
                    "crowd": bool(annotation.get("iscrowd")),
                }
            )
    except FileNotFoundError:
        raise UsageError(f"{file}: there is no such file; expected annotations in COCO's format") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{file} is not an annotation file in COCO's format: {described(error)}") from None
    if not entries:
        raise UsageError(f"{file} has no images")
    notes = (f"{partial} of {len(data['images'])} images are not fully annotated and left out",) if partial else ()
    return CocoImages(root, file, tuple(categories.values()), entries, {n: tuple(a) for n, a in grouped.items()}, notes)


def _covers_nothing(segmentation: Any, image: Mapping[str, Any]) -> bool:
    """A class cannot be asked for by an example that shows not one pixel of it."""
    return not rasterise(segmentation, image["height"], image["width"]).any()


def rasterise(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Polygons or RLE to (H, W), exactly as COCO's own tools do."""
    try:
        from pycocotools import mask as coco_mask
    except ImportError:
        raise UsageError("annotations in COCO's format need pycocotools: pip install 'segic[coco]'") from None
    if isinstance(segmentation, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        rle = coco_mask.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    return np.asarray(coco_mask.decode(rle), np.bool_)
