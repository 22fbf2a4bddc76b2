"""Samples by step and index: from the data sets themselves, or from features on disk."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from segic.errors import SegicError
from segic.training.features import read_scene
from segic.training.plan import Stream, generator, plan_step
from segic.training.recipe import Episode, Recipe
from segic.training.sources import Sample, Source, Unusable
from segic.training.sources.pairs import NOTHING
from segic.training.sources.sample import INSTANCES

ATTEMPTS = 30  # draws before a sample is given up
UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)  # what a damaged .npz file raises


@dataclass(frozen=True)
class Skipped:
    """A file that could not be used, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Drawn:
    """One sample of a step, in main memory.

    sample: pictures and masks, whose features are still to be computed; or, from the cache, features (F, C, h, w)
    float16, pixels (F, 3, 8h, 8w) uint8 and masks (F, N, 4h, 4w) float32, or of the pictures' size for the paper's
    models, with `sample` None.
    prompts: the N texts. negatives: whether the entities are each other's negatives. name: what it is, for messages.
    """

    sample: Sample | None
    features: NDArray[np.float16] | None
    pixels: NDArray[np.uint8] | None
    masks: NDArray[np.float32] | None
    prompts: tuple[str, ...]
    negatives: bool
    has_recent: bool
    kind: str
    name: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()


class Feed(Protocol):
    """Where a run's samples come from."""

    def draw(self, step: int, index: int) -> Drawn:
        """Sample `index` of the global batch of `step`; always the same one. Safe to call from several threads.

        Raises SegicError when the data give nothing usable.
        """
        ...


def prompt(text: str, episode: Episode) -> str:
    """A sample's text in the recipe's words."""
    if text == INSTANCES:
        return episode.instance_text
    return episode.class_text.format(text) if text else ""


class LiveFeed:
    """Draws from data sets, mixed by weight."""

    def __init__(self, recipe: Recipe, sources: Sequence[tuple[Source, float]]):
        self.recipe = recipe
        self.sources = [source for source, _ in sources]
        weights = np.array([weight for _, weight in sources])
        self._shares = weights / weights.sum()

    def draw(self, step: int, index: int) -> Drawn:
        """See `Feed`."""
        return self.draw_from(lambda attempt: generator(self.recipe.seed, Stream.SAMPLE, step, index, attempt))

    def draw_from(self, state: "RandomState") -> Drawn:
        """A sample by random states of one's own, one an attempt."""
        episode = self.recipe.episode
        skipped: dict[str, Skipped] = {}
        source: Source | None = None
        for attempt in range(ATTEMPTS):
            rng = state(attempt)
            chosen = self.sources[int(rng.choice(len(self.sources), p=self._shares))]
            # Another set at another attempt would favour those that seldom fail.
            source = source or chosen
            negatives = bool(rng.random() < episode.negatives)
            with_text = rng.random() < episode.text
            try:
                sample = source.draw(rng)
            except Unusable as error:
                if error.reason != NOTHING:
                    skipped[error.file] = Skipped(error.file, error.reason)
                continue
            prompts = tuple(prompt(text, episode) if with_text else "" for text in sample.texts)
            return Drawn(
                sample, None, None, None, prompts, negatives, sample.has_recent, sample.kind, sample.origin,
                tuple(skipped.values()),
            )  # fmt: skip
        example = f"; {next(iter(skipped.values()))}" if skipped else ""
        raise SegicError(
            f"{ATTEMPTS} draws from data set {source.name if source else ''} gave no usable sample ({len(skipped)} "
            f"files broken{example}); mend the data, or lower data.least_area"
        )


class RandomState(Protocol):
    """Random states by attempt."""

    def __call__(self, attempt: int, /) -> np.random.Generator: ...


@dataclass(frozen=True)
class CachedIndex:
    """What is known of a cache's samples without their features. All (number of samples,)."""

    paths: tuple[Path, ...]
    counts: NDArray[np.int64]
    chains: NDArray[np.bool_]


def index_cache(paths: Sequence[Path]) -> CachedIndex:
    """Reads the notes of cached samples."""
    import json

    counts, chains = [], []
    for path in paths:
        try:
            with np.load(path) as data:
                meta = json.loads(str(data["meta"]))
        except UNREADABLE as error:
            raise _broken(path, error) from error
        counts.append(meta["count"])
        chains.append(meta["has_recent"])
    return CachedIndex(tuple(paths), np.array(counts), np.array(chains, np.bool_))


class CachedFeed:
    """Draws from features on disk. All samples of a step are alike: chains or pairs, with one number of entities."""

    def __init__(self, recipe: Recipe, index: CachedIndex):
        self.recipe = recipe
        self.index = index
        self._whole = recipe.model.config().matching is None

    def draw(self, step: int, index: int) -> Drawn:
        """See `Feed`."""
        plan = plan_step(self.recipe, step)
        chosen, entities = self._pick(step, plan.chain, plan.entities)
        rng = generator(self.recipe.seed, Stream.SAMPLE, step, index)
        drawn = load_cached(self.index.paths[chosen[index]], entities, rng, flip=plan.flip, whole=self._whole)
        negatives = bool(rng.random() < self.recipe.episode.negatives)
        with_text = rng.random() < self.recipe.episode.text
        words = self.recipe.episode.instance_text if with_text else ""
        # Of a sample whose masks overlap, fewer entities may be seen than were counted.
        return replace(drawn, negatives=negatives, prompts=(words,) * len(drawn.prompts))

    def _pick(self, step: int, chain: bool, entities: int) -> tuple[NDArray[np.int64], int]:
        """(positions of the step's samples, number of entities): as planned, or the nearest that the cache has."""
        alike = self.index.chains == chain
        if not alike.any():
            alike = ~alike
        entities = min(entities, int(self.index.counts[alike].max()))
        fitting = np.flatnonzero(alike & (self.index.counts >= entities))
        rng = generator(self.recipe.seed, Stream.PICK, step)
        again = len(fitting) < self.recipe.batch
        return rng.choice(fitting, self.recipe.batch, replace=again), entities


def _broken(path: Path, error: Exception) -> SegicError:
    return SegicError(f"the cached sample {path} is broken ({error}); delete it, and it is made again")


def load_cached(
    path: Path, entities: int | None, rng: np.random.Generator, *, flip: bool, whole: bool = False
) -> Drawn:
    """A cached sample with `entities` of its entities (None: all) in random order. flip: mirrored. whole: with masks of
    the pictures' size, as the paper's models want them.

    Raises SegicError for a file that cannot be read.
    """
    try:
        scene = read_scene(path)
    except UNREADABLE as error:
        raise _broken(path, error) from error
    labels = torch.from_numpy(scene.labels)
    visible = [i for i in range(1, scene.count + 1) if (labels[0] == i).any()]
    ids = rng.permutation(visible)[:entities]
    h, w = scene.features.shape[-2:]
    stacked = torch.stack([(labels == int(i)).float() for i in ids], 1)
    masks = (stacked if whole else F.interpolate(stacked, (4 * h, 4 * w), mode="area")).numpy()
    features, pixels = scene.features, scene.pixels
    if flip:
        features, pixels, masks = (np.ascontiguousarray(a[..., ::-1]) for a in (features, pixels, masks))
    return Drawn(
        None, features, pixels, masks, ("",) * len(ids), True, scene.has_recent, scene.kind, (path.name,)
    )  # fmt: skip
