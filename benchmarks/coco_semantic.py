"""COCO as semantic segmentation: its instances merged by class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .coco_format import CocoImages, rasterise, read_coco
from .examples import ExampleSet, draw_examples, folder_examples
from .semantic import VOID, SemanticBenchmark

TARGETS = ("annotations/instances_val2017.json", "annotations/instances_val2014.json", "instances.json")
TRAINING = ("annotations/instances_train2017.json", "annotations/instances_train2014.json", "instances.json")


@dataclass(frozen=True)
class CocoClasses:
    """Label maps of a dataset in COCO's format. Pixels of no instance are background."""

    coco: CocoImages
    background: bool = True

    @property
    def classes(self) -> Sequence[str]:
        """Class names by index."""
        return self.coco.categories

    @property
    def names(self) -> Sequence[str]:
        """The images with at least one instance."""
        return [name for name, instances in self.coco.instances.items() if instances]

    def image(self, name: str) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        return self.coco.image(name)

    def labels(self, name: str) -> NDArray[np.int32]:
        """(H, W) class indices, -1 for background. Where instances overlap, the smaller one is on top."""
        entry = self.coco.entries[name]
        labels = np.full((entry["height"], entry["width"]), VOID, np.int32)
        for annotation in sorted(self.coco.instances[name], key=lambda a: float(-a["area"])):
            mask = rasterise(annotation["segmentation"], entry["height"], entry["width"])
            labels[mask] = self.coco.categories.index(annotation["category"])
        return labels


def coco_semantic(
    root: Path,
    *,
    shots: int = 1,
    seed: int = 0,
    classes_known: bool = True,
    examples: Path | None = None,
    annotations: Path | None = None,
    training: Path | None = None,
    cache: Path | None = None,
) -> SemanticBenchmark:
    """Images of val, examples from train; both from one file where the dataset has only one.

    examples: a folder of own examples in place of the training set. annotations, training: the files to use. cache: a
    file that keeps the choice of examples.
    """
    coco = read_coco(root, TARGETS, annotations)
    targets = CocoClasses(coco)
    chosen: ExampleSet
    if examples is not None:
        chosen = folder_examples(examples, coco.categories, shots)
    else:
        source = read_coco(root, TRAINING, training)
        same = source.file == coco.file
        chosen = draw_examples(CocoClasses(source), shots=shots, seed=seed, same=same, cache=cache)
    notes = (*coco.notes, "80 classes of things, merged from instances; pixels of none of them are background")
    return SemanticBenchmark("coco-sem", targets, chosen, coco.file.stem, classes_known, notes=notes)
