"""COCO's format: COCO itself, LVIS, and own data."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from segic.errors import UsageError
from segic.training.recipe import DataSet
from segic.training.sources.catalogue import Catalogue, Entity, Item, MaskSource, Polygons, RunLengths
from segic.training.sources.listing import existing, listing, pick

_COCO = (
    "COCO is at https://cocodataset.org/#download: train2014.zip, annotations_trainval2014.zip, unpacked side by side"
)
_LVIS = (
    "LVIS is at https://www.lvisdataset.org/dataset: lvis_v1_train.json; its images are COCO's train2017 and val2017"
)

_COCO_FILES = ("annotations/instances_train2014.json", "instances.json", "annotations/instances_train2017.json")
_LVIS_FILES = ("lvis/lvis_v1_train.json", "lvis_v1_train.json", "annotations/lvis_v1_train.json")
_PARTS = ("train2014", "train2017", "val2014", "val2017")
_FOLDERS = ("images", *_PARTS, *(f"images/{part}" for part in _PARTS), ".")
FOLDS = 4  # of COCO-20i


def read_coco(one: DataSet, root: Path) -> Catalogue:
    """The data set `one` under `root`. Empty masks and images without a mask are left out and counted, and crowds, but
    for "semantic" sets, where they belong to their class. There, LVIS's classes of which an image has more than is
    annotated are left out.

    Raises UsageError that names the folder or file that is missing or broken and where to get it.
    """
    lvis = one.layout == "lvis"
    help_ = _LVIS if lvis else _COCO
    base = root / one.path
    if not base.is_dir():
        raise UsageError(f"the folder {base} does not exist. {help_}")
    file = pick(base, [one.annotations] if one.annotations else _LVIS_FILES if lvis else _COCO_FILES, help_)
    folders = [base / one.images] if one.images else [base / name for name in _FOLDERS]
    if lvis and not one.images:
        folders += [file.parent, base / "coco", root / "coco", root / "coco" / "images"]
    document = _load(file)
    try:
        return _catalogue(document, file, folders, one, help_)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{file} is not an annotation file in COCO's format: {error!r}. {help_}") from error


def _load(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} is broken: {error}; get it anew") from error
    if not isinstance(document, dict) or not {"images", "annotations", "categories"} <= set(document):
        raise UsageError(f"{file} has no lists of images, annotations and categories; expected COCO's format")
    return document


def _catalogue(document: dict[str, Any], file: Path, folders: list[Path], one: DataSet, help_: str) -> Catalogue:
    ordered = sorted(document["categories"], key=lambda c: int(c["id"]))
    names = {c["id"]: str(c["name"]).replace("_", " ") for c in ordered}
    excluded = [
        names[c["id"]] for i, c in enumerate(ordered) if one.exclude_fold is not None and i % FOLDS == one.exclude_fold
    ]
    grouped: dict[Any, list[Entity]] = {}
    crowds = empty = partial = partial_masks = 0
    unfinished: dict[Any, list[int]] = {}
    if one.kind == "semantic":
        unfinished = {image["id"]: image.get("not_exhaustive_category_ids", []) for image in document["images"]}
    for annotation in document["annotations"]:
        mask = _mask(annotation, str(file))
        if annotation.get("iscrowd") and one.kind != "semantic":
            crowds += 1
        elif annotation["category_id"] in unfinished.get(annotation["image_id"], ()):
            partial_masks += 1
        elif mask is None:
            empty += 1
        else:
            grouped.setdefault(annotation["image_id"], []).append(Entity(names[annotation["category_id"]], mask))
    wanted = []
    for image in document["images"]:
        held_out = int(image["id"]) % one.holdout == 0
        if image["id"] not in grouped or (one.part != "all" and held_out != (one.part == "held-out")):
            continue
        # What is not annotated would count as background where masks are merged by class.
        if one.kind == "semantic" and image.get("labelled", "all instances") != "all instances":
            partial += 1
            continue
        # LVIS names its files by their address alone: .../train2017/000000000009.jpg
        name = image.get("file_name") or "/".join(str(image["coco_url"]).split("/")[-2:])
        wanted.append((name, (int(image["height"]), int(image["width"])), tuple(grouped[image["id"]])))
    paths, missing = existing(folders, [name for name, _, _ in wanted])
    if wanted and not paths:
        looked = ", ".join(str(folder) for folder in folders if folder.is_dir()) or ", ".join(map(str, folders))
        raise UsageError(
            f"none of the {len(wanted)} images of {file} is there ({wanted[0][0]}); looked in {looked}. {help_}"
        )
    items = tuple(Item(paths[name], entities, size) for name, size, entities in wanted if name in paths)
    if not items:
        raise UsageError(f"{file} has no image with a mask for the part {one.part!r}; found {listing(file.parent)}")
    counted = (
        (len(missing), f"images are not in the folder, {missing[0] if missing else ''} for one"),
        (crowds, "crowd masks left out"),
        (empty, "empty masks left out"),
        (partial_masks, "masks left out of classes that an image has more of than is annotated"),
        (partial, "images left out of which not all instances are annotated"),
    )
    notes = tuple(f"{count} {what}" for count, what in counted if count)
    return Catalogue(items, notes).only(one.classes, excluded, names.values())


def _mask(annotation: dict[str, Any], file: str) -> MaskSource | None:
    """None where it covers nothing."""
    segmentation = annotation.get("segmentation")
    if annotation.get("area", 1) < 1 or not segmentation:
        return None
    if isinstance(segmentation, dict):
        if not isinstance(segmentation["counts"], list) and find_spec("pycocotools") is None:
            raise UsageError(f"{file} has compressed masks, which need pycocotools: pip install 'segic[coco]'")
        return RunLengths(segmentation, file)
    rings = tuple(np.asarray(flat, np.float32).reshape(-1, 2) for flat in segmentation if len(flat) >= 6)
    return Polygons(rings) if rings else None
