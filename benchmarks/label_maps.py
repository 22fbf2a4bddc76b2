"""ADE20K, PC-459 and A-847: folders of images and of label maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segic.errors import UsageError

from .clips import listing, pictures
from .examples import ExampleSet, draw_examples, folder_examples
from .masks import read_image, read_labels
from .semantic import VOID, SemanticBenchmark


@dataclass(frozen=True)
class Layout:
    """A dataset's published arrangement.

    images, labels: pairs of folders to look for, with {split} to fill in. first: the label of class 0; smaller ones and
    those from `count + first` up are void. lists: files with the class names.
    """

    name: str
    count: int
    folders: tuple[tuple[str, str], ...]
    suffix: str
    first: int
    lists: tuple[str, ...]
    training: str = "training"
    validation: str = "validation"


ADE20K = Layout(
    name="ade20k",
    count=150,
    folders=(("images/{split}", "annotations/{split}"),),
    suffix=".png",
    first=1,
    lists=("objectInfo150.txt",),
)
# The two open-vocabulary sets are published as MATLAB files and coloured PNGs; these are the 16-bit label maps that
# everyone's preparation scripts make of them.
PC459 = Layout(
    name="pc459",
    count=459,
    folders=(
        ("images/{split}", "annotations_ctx459/{split}"),
        ("JPEGImages", "annotations_detectron2/pc459_{split}"),
        ("images/{split}", "annotations_detectron2/{split}"),
    ),
    suffix=".tif",
    first=0,
    lists=("labels.txt", "classes.txt"),
)
A847 = Layout(
    name="ade847",
    count=847,
    folders=(("images_detectron2/{split}", "annotations_detectron2/{split}"),),
    suffix=".tif",
    first=0,
    lists=("classes.txt",),
)
LAYOUTS = {layout.name: layout for layout in (ADE20K, PC459, A847)}
_SPLITS = {"training": ("training", "train"), "validation": ("validation", "val")}


@dataclass(frozen=True)
class LabelMaps:
    """One split. Every pixel has a class, or is void."""

    layout: Layout
    classes: Sequence[str]
    image_files: dict[str, Path]
    label_files: dict[str, Path]
    background: bool = False

    @property
    def names(self) -> Sequence[str]:
        """File stems, in order."""
        return list(self.label_files)

    def image(self, name: str) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        return read_image(self.image_files[name])

    def labels(self, name: str) -> NDArray[np.int32]:
        """(H, W) class indices, -1 for void."""
        labels = read_labels(self.label_files[name]).astype(np.int32) - self.layout.first
        labels[(labels < 0) | (labels >= self.layout.count)] = VOID
        return labels


def label_map_benchmark(
    layout: Layout,
    root: Path,
    *,
    shots: int = 1,
    seed: int = 0,
    classes_known: bool = True,
    examples: Path | None = None,
    class_names: Path | None = None,
    cache: Path | None = None,
) -> SemanticBenchmark:
    """Images of the validation split, examples from the training split or from a folder.

    class_names: a list of the classes, one a line, for datasets that come without. cache: a file that keeps the choice
    of examples. Raises UsageError that says what was looked for and what was found.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder; expected {layout.name}")
    names, notes = _class_names(layout, root, class_names)
    targets = _split(layout, root, layout.validation, names)
    chosen: ExampleSet
    if examples is not None:
        chosen = folder_examples(examples, names, shots)
    else:
        source = _split(layout, root, layout.training, names)
        chosen = draw_examples(source, shots=shots, seed=seed, same=False, cache=cache)
    return SemanticBenchmark(layout.name, targets, chosen, layout.validation, classes_known, notes=notes)


def _split(layout: Layout, root: Path, split: str, names: Sequence[str]) -> LabelMaps:
    tried = []
    for images, labels in layout.folders:
        for spelling in _SPLITS[split]:
            folders = root / images.format(split=spelling), root / labels.format(split=spelling)
            tried.append(" with ".join(str(f.relative_to(root)) for f in folders))
            if folders[0].is_dir() and folders[1].is_dir():
                return _files(layout, folders[0], folders[1], names)
    raise UsageError(
        f"{root} is not in a layout known for {layout.name}: looked for {'; '.join(tried)}; found {listing(root)}"
    )


def _files(layout: Layout, images: Path, labels: Path, names: Sequence[str]) -> LabelMaps:
    label_files = {p.stem: p for p in sorted(labels.iterdir()) if p.suffix == layout.suffix}
    if not label_files:
        raise UsageError(f"{labels} holds no label maps ({layout.suffix}); found {listing(labels)}")
    image_files = pictures(images)
    for stem, path in label_files.items():
        if stem not in image_files:
            raise UsageError(f"{images} has no picture for {path}")
    return LabelMaps(layout, names, image_files, label_files)


def _class_names(layout: Layout, root: Path, given: Path | None) -> tuple[list[str], tuple[str, ...]]:
    path = given or next((root / name for name in layout.lists if (root / name).is_file()), None)
    if path is None:
        names = [f"class {index}" for index in range(layout.count)]
        return names, (f"no list of class names was found ({', '.join(layout.lists)}); classes are numbered",)
    try:
        lines = [line.rstrip("\n") for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a list of classes: {error}") from None
    if lines and lines[0].startswith("Idx"):  # objectInfo150.txt: index, shares, and the name in the last column
        lines = [line.split("\t")[-1] for line in lines[1:]]
    # labels.txt of PASCAL Context numbers its lines, "1: accordion"; synonyms follow a comma or semicolon.
    names = [line.split(": ", 1)[-1].split(",")[0].split(";")[0].strip() for line in lines]
    if len(names) != layout.count:
        raise UsageError(f"{path} names {len(names)} classes; {layout.name} has {layout.count}")
    seen: dict[str, int] = {}
    for index, name in enumerate(names):  # two classes of one name must stay two
        seen[name] = seen.get(name, 0) + 1
        names[index] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return names, ()
