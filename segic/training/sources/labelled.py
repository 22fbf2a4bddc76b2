"""Data sets whose masks are picture files: ADE20K-150, FSS-1000, and any folder of images and masks."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from segic.errors import UsageError
from segic.training.recipe import DataSet
from segic.training.sources.catalogue import Catalogue, Entity, Item, Value, White, read_index
from segic.training.sources.listing import folder_of, listing, pick
from segic.training.sources.sample import INSTANCES, Unusable
from segic.weights.cache import cache_dir

_ADE = (
    "ADE20K-150 is ADEChallengeData2016.zip of http://sceneparsing.csail.mit.edu: images/, annotations/ and "
    "objectInfo150.txt"
)
_FSS = "FSS-1000 is at https://github.com/HKUSTCV/FSS-1000: a folder for each class with 1.jpg, 1.png, ..."
_FOLDER = "Expected images/ with pictures and masks/ with a PNG of the same name for each"
_FSS_LISTS = ("trn.txt", "train.txt", "splits/trn.txt", "splits/train.txt")
_FSS_TEST_LISTS = ("fss_test_set.txt", "test.txt", "splits/test.txt")
_PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
VOID = 255


def read_ade20k(one: DataSet, root: Path) -> Catalogue:
    """ADE20K-150's training images; value v of a mask is line v of objectInfo150.txt, 0 is nothing."""
    base = root / one.path
    if not base.is_dir():
        raise UsageError(f"the folder {base} does not exist. {_ADE}")
    pictures = folder_of(base, one.images or "images/training", _ADE)
    masks = folder_of(base, one.annotations or "annotations/training", _ADE)
    lines = pick(base, ("objectInfo150.txt",), _ADE).read_text(encoding="utf-8").splitlines()[1:]
    # Names have synonyms: "wall", "building, edifice", ...
    names = {i: line.split("\t")[-1].split(",")[0].strip() for i, line in enumerate(filter(str.strip, lines), start=1)}
    if len(names) < 150:
        raise UsageError(f"{base / 'objectInfo150.txt'} has {len(names)} classes, expected 150. {_ADE}")
    return _from_masks(one, pictures, masks, names, _ADE)


def read_folder(one: DataSet, root: Path) -> Catalogue:
    """images/NAME.jpg and masks/NAME.png. Every value of a mask is an entity, or a class for "semantic" sets, whose
    names are the lines of classes.txt where there is one (line 1 is value 1). 255 beside other values is no entity:
    such pixels are trained as background like those of value 0, since the loss knows no void; alone, it is one.

    These are a user's own photographs, whose masks are of what is seen: pictures are turned as their EXIF orientation
    says, as `segic image segment` turns them.
    """
    base = root / one.path
    pictures = folder_of(base, one.images or "images", _FOLDER)
    masks = folder_of(base, one.annotations or "masks", _FOLDER)
    names: dict[int, str] = {}
    if (base / "classes.txt").is_file():
        names = dict(enumerate((base / "classes.txt").read_text(encoding="utf-8").split("\n"), start=1))
    return _from_masks(one, pictures, masks, names, _FOLDER, upright=True)


def _from_masks(
    one: DataSet, pictures: Path, masks: Path, names: dict[int, str], help_: str, *, upright: bool = False
) -> Catalogue:
    images = sorted(p for p in pictures.iterdir() if p.suffix.lower() in _PICTURES)
    if not images:
        raise UsageError(f"{pictures} holds no pictures; found {listing(pictures)}. {help_}")
    drawn = {p.stem: p for p in masks.iterdir() if p.suffix.lower() == ".png"}
    chosen = [
        p for i, p in enumerate(images) if one.part == "all" or (i % one.holdout == 0) == (one.part == "held-out")
    ]
    without = [p.name for p in chosen if p.stem not in drawn]
    paired = [p for p in chosen if p.stem in drawn]
    if not paired:
        raise UsageError(f"no picture of {pictures} has a mask of its name in {masks}; found {listing(masks)}. {help_}")
    values, broken = _values([drawn[p.stem] for p in paired])
    items, empty = [], 0
    named = one.kind == "semantic"
    for path, present in zip(paired, values, strict=True):
        mask = drawn[path.stem]
        kept = [v for v in present if v and not (v == VOID and len([x for x in present if x]) > 1)]
        # A class without a name is told apart from others by its value, which is no text.
        entities = [Entity(names.get(v, f"#{v}") if named else INSTANCES, Value(mask, v)) for v in kept]
        empty += not entities
        if entities:
            items.append(Item(path, tuple(entities), upright=upright))
    if not items:
        reason = f": {broken[0]}" if broken else ""
        raise UsageError(f"{masks} has no mask that shows anything{reason}. {help_}")
    notes = [f"{len(without)} pictures have no mask, {without[0]} for one"] if without else []
    notes += [f"{empty} masks are empty or unreadable and left out"] if empty else []
    notes += [f"unusable mask: {text}" for text in broken]
    return Catalogue(tuple(items), tuple(notes)).only(one.classes, (), names.values() if named else ())


def read_fss1000(one: DataSet, root: Path) -> Catalogue:
    """FSS-1000's classes in the training list; without one, those that are not in the test list; without either all of
    them (a note says so).
    """
    base = root / one.path
    if not base.is_dir():
        raise UsageError(f"the folder {base} does not exist. {_FSS}")
    if one.annotations:
        lists = [base / one.annotations, root / one.annotations]
        file = next((p for p in lists if p.is_file()), None)
        if file is None:
            raise UsageError(f"{lists[0]} does not exist; found {listing(base)}")
    else:
        file = next((base / name for name in _FSS_LISTS if (base / name).is_file()), None)
    inner = base
    while (inner / "fewshot_data").is_dir():  # the archive has one inside the other
        inner = inner / "fewshot_data"
    notes = []
    if file is not None:
        names = _lines(file)
    else:
        test = next((base / name for name in _FSS_TEST_LISTS if (base / name).is_file()), None)
        left_out = set(_lines(test)) if test is not None else set()
        names = sorted(p.name for p in inner.iterdir() if (p / "1.jpg").is_file() and p.name not in left_out)
        if test is None:
            notes = ["no list of training classes was found, so all are taken, test classes too"]
    items, lacking = [], []
    for name in names:
        if not (inner / name).is_dir():
            raise UsageError(f"the class folder {inner / name} does not exist; found {listing(inner)}. {_FSS}")
        for position, path in enumerate(sorted((inner / name).glob("*.jpg"))):
            if one.part != "all" and (position % one.holdout == 0) != (one.part == "held-out"):
                continue
            mask = path.with_suffix(".png")
            if mask.is_file():
                items.append(Item(path, (Entity(name.replace("_", " "), White(mask)),)))
            else:
                lacking.append(str(mask))
    if not items:
        raise UsageError(f"{inner} holds no class folders with 1.jpg and 1.png; found {listing(inner)}. {_FSS}")
    notes += [f"{len(lacking)} masks are missing, {lacking[0]} for one"] if lacking else []
    return Catalogue(tuple(items), tuple(notes)).only(one.classes, (), (name.replace("_", " ") for name in names))


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _values(masks: Sequence[Path]) -> tuple[list[list[int]], list[str]]:
    """The values in each mask, and what could not be read.

    Kept in the user's cache: reading 20,000 masks takes minutes.
    """
    state = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in masks]
    key = hashlib.sha256(repr((str(masks[0].parent.resolve()), state)).encode()).hexdigest()[:24]
    kept = cache_dir() / "mask-values" / f"{key}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(kept.read_text(encoding="utf-8"))
        return stored["values"], stored["broken"]
    broken: list[str] = []

    def present(path: Path) -> list[int]:
        try:
            return [int(v) for v in np.unique(read_index(path))]
        except Unusable as error:
            broken.append(str(error))
            return []

    with ThreadPoolExecutor(4) as pool:
        values = list(pool.map(present, masks))
    broken.sort()
    with suppress(OSError):  # a cache that cannot be written costs time at the next start
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"values": values, "broken": broken}), encoding="utf-8")
    return values, broken
