"""Semantic segmentation by in-context examples: classes of every pixel, scored by mean IoU."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .examples import ExampleSet
from .items import Counts, Record, ratios, score_items
from .result import Result, digest, versions
from .segmenter import Picture, Segment, check_size
from .shards import Shard

VOID = -1


class SemanticImages(Protocol):
    """Images with a class for each pixel."""

    @property
    def classes(self) -> Sequence[str]:
        """Class names by index."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Image names, in a fixed order."""
        ...

    @property
    def background(self) -> bool:
        """True where pixels may belong to no class at all, and to say so is right (-1 counts as background)."""
        ...

    def image(self, name: str) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        ...

    def labels(self, name: str) -> NDArray[np.int32]:
        """(H, W) class indices; -1 for void, or for background."""
        ...


@dataclass(frozen=True)
class Target:
    """One image to segment."""

    key: str


@dataclass(frozen=True)
class SemanticBenchmark:
    """name: "ade20k", ... images: what is scored. examples: images and masks that show each class.

    classes_known: only the classes that a target shows are asked for (the paper's #); otherwise all of them.
    at_once: classes asked for together.
    """

    name: str
    images: SemanticImages
    examples: ExampleSet
    split: str
    classes_known: bool = True
    at_once: int = 32
    notes: tuple[str, ...] = ()

    def run(
        self,
        segment: Segment,
        out: Path,
        settings: Mapping[str, Any],
        *,
        shard: Shard | None = None,
        progress: Callable[[str], None] = lambda name: None,
    ) -> Result | None:
        """Segment every image, write `out/result.json`. Resumable; None while another shard's images are missing."""
        settings = {
            "benchmark": self.name,
            "split": self.split,
            "classes_known": self.classes_known,
            "images": len(self.images.names),
            "images_sha256": digest(list(self.images.names)),
            "examples_sha256": self.examples.identity(),
            **settings,
        }
        targets = [Target(name) for name in self.images.names]

        def work(target: Target) -> Counts:
            return self._score(target.key, segment)

        def conclude(records: Sequence[Record]) -> Result:
            return self._result(records, settings)

        return score_items(targets, work, conclude, out, "images", settings, shard=shard, progress=progress)

    def _score(self, name: str, segment: Segment) -> Counts:
        image, truth = self.images.image(name), self.images.labels(name)
        check_size(name, truth.shape, image.shape[:2])
        present = [int(c) for c in np.unique(truth) if c != VOID]
        asked = present if self.classes_known else range(len(self.images.classes))
        found = self._segment(Picture(name, lambda: image), truth.shape, asked, segment)
        if not self.images.background:
            found[truth == VOID] = VOID
        counts = {}
        for index in sorted({*present, *(int(c) for c in np.unique(found) if c != VOID)}):
            wanted, got = truth == index, found == index
            both, either = int(np.count_nonzero(wanted & got)), int(np.count_nonzero(wanted | got))
            counts[self.images.classes[index]] = (both, either)
        return counts

    def _segment(
        self, target: Picture, size: tuple[int, ...], asked: Sequence[int], segment: Segment
    ) -> NDArray[np.int32]:
        """(H, W) class indices: the class with the largest logit. With background, -1 where none is above 0."""
        # Only the largest logit so far is kept: hundreds of classes at full size would not fit.
        best = np.full(size, 0 if self.images.background else -np.inf, np.float32)
        found = np.full(size, VOID, np.int32)
        examples = {index: self.examples.of(self.images.classes[index], target.name) for index in asked}
        shown = [index for index in asked if examples[index]]
        for start in range(0, len(shown), self.at_once):
            together = shown[start : start + self.at_once]
            for index, logits in zip(together, segment(target, [examples[i] for i in together]), strict=True):
                better = logits > best
                best[better] = logits[better]
                found[better] = index
        return found

    def _result(self, records: Sequence[Record], settings: Mapping[str, Any]) -> Result:
        by_class = ratios(records)
        value = float(np.mean(list(by_class.values())))
        notes = self.notes + self.examples.notes
        if absent := len(self.images.classes) - len(by_class):
            notes += (f"{absent} of {len(self.images.classes)} classes are in no image, and not in the mean",)
        return Result(
            benchmark=self.name,
            metric="mIoU",
            value=value,
            figures={"mIoU": value},
            rows={name: {"mIoU": iou} for name, iou in by_class.items()},
            split=self.split,
            settings=settings,
            versions=versions(),
            notes=notes,
        )
