"""In-context examples by class: drawn from a training set, or from a folder of own (or synthetic) pictures."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segic.errors import UsageError
from segic.files import write_whole

from .clips import contents_digest, listing
from .masks import read_image, read_labels
from .result import digest
from .segmenter import Picture, Shot

MINIMUM = 0.01  # of the picture: an example should show its class to more than a few tokens


class LabelledImages(Protocol):
    """A training set."""

    @property
    def classes(self) -> Sequence[str]: ...

    @property
    def names(self) -> Sequence[str]: ...

    def image(self, name: str) -> NDArray[np.uint8]: ...

    def labels(self, name: str) -> NDArray[np.int32]: ...


class ExampleSet(Protocol):
    """Examples of each class."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know, for instance classes without an example."""
        ...

    def identity(self) -> str:
        """What tells, in the settings, these examples from others."""
        ...

    def of(self, category: str, target: str) -> Sequence[Shot]:
        """Examples of the class, the target itself left out; none where there is no other."""
        ...


@dataclass(frozen=True)
class DrawnExamples:
    """chosen: by class, names of `images`. shots: how many of them a target gets. same: targets are of the same set."""

    images: LabelledImages
    chosen: Mapping[str, tuple[str, ...]]
    shots: int
    same: bool
    notes: tuple[str, ...] = ()

    def identity(self) -> str:
        return digest(self.chosen)

    def of(self, category: str, target: str) -> Sequence[Shot]:
        names = [name for name in self.chosen.get(category, ()) if not (self.same and name == target)]
        return [self._shot(category, name) for name in names[: self.shots]]

    def _shot(self, category: str, name: str) -> Shot:
        def mask() -> NDArray[np.bool_]:
            shown: NDArray[np.bool_] = self.images.labels(name) == list(self.images.classes).index(category)
            return shown

        # Targets of another set may have the same names.
        title = name if self.same else f"example {name}"
        return Shot(Picture(title, partial(self.images.image, name)), category, mask)


def draw_examples(
    images: LabelledImages, *, shots: int, seed: int, same: bool, cache: Path | None = None
) -> DrawnExamples:
    """Look through the training set in a seeded order until each class has its examples.

    An image counts as an example where the class covers a hundredth of it; for classes that no image shows so largely,
    those that show most. same: the targets come from this set too, so one example more is kept for each class, in place
    of the target itself. cache: a file that keeps the choice, since a large set takes minutes to look through.
    """
    wanted = shots + 1 if same else shots
    key = {"seed": seed, "wanted": wanted, "set": digest([list(images.names), list(images.classes)])}
    chosen = _cached(cache, key) if cache is not None else None
    if chosen is None:
        chosen = _look_through(images, wanted, seed)
        if cache is not None:
            write_whole(cache, json.dumps({"key": key, "chosen": chosen}, indent=1))
    absent = [name for name in images.classes if not chosen.get(name)]
    notes: tuple[str, ...] = ()
    if absent:
        notes += (f"no example of {len(absent)} classes: {', '.join(absent[:10])}",)
    if alone := [name for name in images.classes if same and len(chosen.get(name, ())) == 1]:
        named = ", ".join(alone[:10])
        notes += (f"{len(alone)} classes are in one image alone, no example for itself; they count 0: {named}",)
    return DrawnExamples(images, {name: tuple(found) for name, found in chosen.items()}, shots, same, notes)


def _look_through(images: LabelledImages, wanted: int, seed: int) -> dict[str, list[str]]:
    order = list(images.names)
    random.Random(seed).shuffle(order)
    large: dict[int, list[str]] = {index: [] for index in range(len(images.classes))}
    small: dict[int, list[tuple[float, str]]] = {index: [] for index in range(len(images.classes))}
    open_ = set(large)
    for name in order:
        labels = images.labels(name)
        counts = np.bincount(labels.ravel() + 1, minlength=1)[1:]  # -1 is no class
        for index in np.flatnonzero(counts).tolist():
            if index not in open_:
                continue
            share = float(counts[index]) / labels.size
            if share >= MINIMUM:
                large[index].append(name)
                if len(large[index]) == wanted:
                    open_.discard(index)
            else:
                small[index] = sorted([*small[index], (share, name)], key=lambda pair: (-pair[0], pair[1]))[:wanted]
        if not open_:
            break
    return {
        category: [*large[index], *(name for _, name in small[index])][:wanted]
        for index, category in enumerate(images.classes)
    }


def _cached(path: Path, key: Mapping[str, Any]) -> dict[str, list[str]] | None:
    try:
        data = json.loads(path.read_text())
        return dict(data["chosen"]) if data["key"] == dict(key) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class FolderExamples:
    """`root/CLASS/NAME.jpg` with its mask `NAME.png` (anything above 0), or `NAME_mask.png` beside a PNG.

    shots: how many of a class's files a target gets. A picture named like the target, suffix and folder aside, is taken
    for the target itself: the folder may well hold pictures that are scored.
    """

    root: Path
    files: Mapping[str, tuple[tuple[Path, Path], ...]]
    shots: int
    notes: tuple[str, ...] = ()

    def identity(self) -> str:
        names = {category: [image.name for image, _ in pairs] for category, pairs in self.files.items()}
        files = (path for pairs in self.files.values() for pair in pairs for path in pair)
        return digest([names, contents_digest(files)])

    def of(self, category: str, target: str) -> Sequence[Shot]:
        own = (target, Path(target).stem)  # names are stems in one data set and files in another
        pairs = [pair for pair in self.files.get(category, ()) if pair[0].stem not in own]
        return [
            Shot(Picture(str(image), partial(read_image, image)), category, partial(_read_mask, mask))
            for image, mask in pairs[: self.shots]
        ]


def _read_mask(path: Path) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = read_labels(path) > 0
    return mask


def folder_examples(root: Path, classes: Sequence[str], shots: int) -> FolderExamples:
    """Examples from a folder for each class, named like the class (spaces may be underscores).

    Raises UsageError where no class has a folder, or a picture lacks its mask. Classes without one are noted.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder; expected a folder of examples for each class")
    files = {}
    for category in classes:
        folder = next((f for f in (root / category, root / category.replace(" ", "_")) if f.is_dir()), None)
        if folder is not None:
            files[category] = _pairs(folder)[: shots + 1]  # one more, in place of the target itself
    if not files:
        raise UsageError(
            f"{root} has no folder named like a class ({', '.join(classes[:5])}, ...); found {listing(root)}"
        )
    absent = [name for name in classes if name not in files]
    notes: tuple[str, ...] = ()
    if absent:
        notes += (f"no example of {len(absent)} classes: {', '.join(absent[:10])}",)
    return FolderExamples(root, files, shots, notes)


def _pairs(folder: Path) -> tuple[tuple[Path, Path], ...]:
    pairs = []
    for path in _pictures(folder):
        masks = [folder / f"{path.stem}_mask.png", *([folder / f"{path.stem}.png"] if path.suffix != ".png" else [])]
        mask = next((m for m in masks if m.is_file()), None)
        if mask is None:
            raise UsageError(f"{path} has no mask beside it; looked for {', '.join(m.name for m in masks)}")
        pairs.append((path, mask))
    if not pairs:
        raise UsageError(f"{folder} holds no pictures; found {listing(folder)}")
    return tuple(pairs)


def _pictures(folder: Path) -> list[Path]:
    """The pictures of a folder that are not masks of others, by name."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    photographs = {p.stem for p in files if p.suffix.lower() != ".png"}
    return [p for p in files if not (p.suffix == ".png" and (p.stem in photographs or p.stem.endswith("_mask")))]
