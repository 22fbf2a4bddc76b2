"""Pairs of images as the paper draws them (section 4.2, algorithm 2)."""

import numpy as np
from numpy.typing import NDArray

from segic.errors import UsageError
from segic.training.recipe import Augmentation
from segic.training.sources.catalogue import Catalogue, Item
from segic.training.sources.sample import INSTANCES, Sample, Unusable
from segic.training.sources.views import View, cropped, jittered

ATTEMPTS = 10  # augmentations of one image before another is drawn
NOTHING = "no entity in view"


class SemanticPairs:
    """The example is another image that shows the target's class; one class an image, merged over its instances."""

    def __init__(self, name: str, catalogue: Catalogue, size: int, how: Augmentation, least: int):
        """size: of the canvas. least: pixels that a mask must cover. Classes with one image are left out and named.

        Raises UsageError when no class has two.
        """
        classes = catalogue.classes()
        alone = [category for category, positions in classes.items() if len(positions) < 2]
        self.name = name
        self.items = catalogue.items
        self.classes = {category: p for category, p in classes.items() if len(p) > 1}
        if not self.classes:
            raise UsageError(
                f"data set {name}: no class is shown by two images, so none can be another's example; add images, or "
                'use kind = "instance"'
            )
        note = f"classes with one image left out: {', '.join(alone)}"
        self.notes = (*catalogue.notes, *([note] if alone else []))
        self._size, self._how, self._least = size, how, least
        self._targets = sorted({position for positions in self.classes.values() for position in positions})

    def draw(self, rng: np.random.Generator) -> Sample:
        """See `Source`. Images are drawn uniformly, then one of their classes."""
        target = int(rng.choice(self._targets))
        shown = dict.fromkeys(e.category for e in self.items[target].entities if e.category in self.classes)
        category = str(rng.choice(list(shown)))
        others = [p for p in self.classes[category] if p != target]
        pair = (self.items[int(rng.choice(others))], self.items[target])
        frames, masks, valid = [], [], []
        for item in pair:
            image = item.picture()
            mask = item.class_mask(category, (image.shape[0], image.shape[1]))
            view, seen = self._view(rng, image, mask)
            frames.append(view.picture(image))
            masks.append(seen[None])
            valid.append(view.shown)
        text = "" if category.startswith("#") else category
        origin = tuple(str(item.path) for item in pair)
        return Sample(np.stack(frames), np.stack(masks), tuple(valid), (text,), "pair", False, origin)

    def _view(
        self, rng: np.random.Generator, image: NDArray[np.uint8], mask: NDArray[np.bool_]
    ) -> tuple[View, NDArray[np.bool_]]:
        for _ in range(ATTEMPTS):
            view = jittered(rng, image.shape, self._size, self._how)
            seen = view.mask(mask)
            if seen.sum() >= self._least:
                return view, seen
        raise Unusable("", NOTHING)


class InstanceViews:
    """Two augmented views of one image are each other's example, up to `entities` instances."""

    def __init__(self, name: str, catalogue: Catalogue, size: int, how: Augmentation, least: int, entities: int):
        """As `SemanticPairs`."""
        if not catalogue.items:
            raise UsageError(f"data set {name} has no image with a mask")
        self.name = name
        self.items: tuple[Item, ...] = catalogue.items
        self.notes = catalogue.notes
        self._size, self._how, self._least, self._entities = size, how, least, entities

    def draw(self, rng: np.random.Generator) -> Sample:
        """See `Source`."""
        item = self.items[int(rng.integers(len(self.items)))]
        image = item.picture()
        order = rng.permutation(len(item.entities))
        size = (image.shape[0], image.shape[1])
        # Hundreds of instances are not drawn for the sake of the ten that are wanted.
        masks = [item.entities[int(i)].mask.read(size) for i in order[: 4 * self._entities]]
        for _ in range(ATTEMPTS):
            views = [cropped(rng, image.shape, self._size, self._how) for _ in range(2)]
            seen = np.stack([[view.mask(mask) for mask in masks] for view in views])
            kept = np.flatnonzero((seen.sum((2, 3)) >= self._least).all(0))[: self._entities]
            if kept.size:
                frames = np.stack([view.picture(image) for view in views])
                valid = tuple(view.shown for view in views)
                texts = (INSTANCES,) * kept.size
                return Sample(frames, seen[:, kept], valid, texts, "pair", False, (str(item.path),))
        raise Unusable("", NOTHING)
