"""One-shot (K-shot) segmentation: episodes of a target and K examples of one class, scored by mean IoU."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segic.errors import UsageError

from .items import Counts, Record, ratios, score_items
from .result import Result, digest, versions
from .segmenter import Picture, Segment, Shot, check_size
from .shards import Shard


class OneShotImages(Protocol):
    """Images by name, and what they show of a class."""

    def image(self, name: str) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        ...

    def mask(self, name: str, category: str) -> NDArray[np.bool_]:
        """(H, W) pixels of the class."""
        ...


@dataclass(frozen=True)
class Episode:
    """One question. category: the class; target, examples: image names. fold: part of the benchmark it belongs to."""

    key: str
    fold: str
    category: str
    target: str
    examples: tuple[str, ...]


@dataclass(frozen=True)
class OneShotBenchmark:
    """name: "coco20i", ... episodes: fixed and in order. split: what they were drawn from."""

    name: str
    images: OneShotImages
    episodes: tuple[Episode, ...]
    split: str
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
        """Ask every episode, write `out/result.json`. Resumable; None while another shard's episodes are missing."""
        settings = {"benchmark": self.name, "split": self.split, "episodes": len(self.episodes), **settings}
        settings["episodes_sha256"] = digest([asdict(episode) for episode in self.episodes])

        def work(episode: Episode) -> Counts:
            return self._ask(episode, segment)

        def conclude(records: Sequence[Record]) -> Result:
            return self._result(records, settings)

        return score_items(self.episodes, work, conclude, out, "episodes", settings, shard=shard, progress=progress)

    def _ask(self, episode: Episode, segment: Segment) -> Counts:
        category = episode.category
        shots = [
            Shot(self._picture(name), category, partial(self.images.mask, name, category)) for name in episode.examples
        ]
        found = segment(self._picture(episode.target), [shots])[0] > 0
        truth = self.images.mask(episode.target, category)
        check_size(episode.target, truth.shape, found.shape)
        both, either = int(np.count_nonzero(found & truth)), int(np.count_nonzero(found | truth))
        return {category: (both, either)}

    def _picture(self, name: str) -> Picture:
        return Picture(name, partial(self.images.image, name))

    def _result(self, records: Sequence[Record], settings: Mapping[str, Any]) -> Result:
        """Intersections and unions are summed by class first; a fold is its classes' mean, the whole the folds'."""
        folds: dict[str, list[Record]] = {}
        for episode, record in zip(self.episodes, records, strict=True):
            folds.setdefault(episode.fold, []).append(record)
        by_fold = {fold: ratios(part) for fold, part in folds.items()}
        means = {fold: float(np.mean(list(classes.values()))) for fold, classes in by_fold.items()}
        value = float(np.mean(list(means.values())))
        figures = {"mIoU": value} | ({f"fold {fold}": mean for fold, mean in means.items()} if len(means) > 1 else {})
        rows = {name: {"mIoU": iou} for classes in by_fold.values() for name, iou in classes.items()}
        notes = (*self.notes, f"mean over {len(rows)} classes, {len(records)} episodes")
        return Result(self.name, "mIoU", value, figures, rows, self.split, settings, versions(), notes=notes)


def drawn_episodes(
    pools: Mapping[str, Sequence[str]], count: int, *, shots: int, seed: int, fold: str
) -> tuple[list[Episode], tuple[str, ...]]:
    """`count` episodes: a class at random, a target of it, `shots` other images of it. Also notes.

    pools: class to image names, in a fixed order. Classes with too few images are left out, which a note says.
    """
    usable = {name: list(images) for name, images in pools.items() if len(images) > shots}
    if not usable:
        raise UsageError(f"fold {fold}: no class has the {shots + 1} images that {shots} shots and a target take")
    absent = sorted(set(pools) - set(usable))
    left_out = f"fold {fold}: {len(absent)} of {len(pools)} classes left out for want of {shots + 1} images"
    named = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
    notes = (f"{left_out}: {named}",) if absent else ()
    draw = random.Random(f"{seed}/{fold}")
    names = list(usable)
    episodes = []
    for number in range(count):
        category = names[draw.randrange(len(names))]
        target, *examples = draw.sample(usable[category], shots + 1)
        episodes.append(Episode(f"{fold}/{number:05d}", fold, category, target, tuple(examples)))
    return episodes, notes


def episodes_of_every_image(pools: Mapping[str, Sequence[str]], *, shots: int, seed: int) -> list[Episode]:
    """Every image of every class is a target once, with `shots` other images of its class at random."""
    draw = random.Random(f"{seed}")
    episodes = []
    for category, images in pools.items():
        if len(images) <= shots:
            raise UsageError(f"class {category} has {len(images)} images; {shots} shots and a target take {shots + 1}")
        for target in images:
            others = [name for name in images if name != target]
            examples = tuple(draw.sample(others, shots))
            episodes.append(Episode(target, "0", category, target, examples))
    return episodes
