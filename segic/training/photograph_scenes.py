"""Scenes of photographs alone: three views of one, or two photographs that show the same class."""

import numpy as np
from numpy.typing import NDArray

from segic.training.cameras import NEAR, View, alphas_of, draw_crop, draw_objects, draw_views, see_labelled
from segic.training.drafts import Draft
from segic.training.photographs import Photograph, coverage
from segic.training.pools import Pools

MOST_LABELS = 6
LEAST_FOCUS = 120.0
SECOND_CLASS = 0.5


def draw_views_scene(rng: np.random.Generator, pools: Pools, size: int, pace: float = 1.0) -> Draft:
    """One photograph seen three times, with some of its instances as objects. pace: of the way from B to C, up to 1."""
    index = int(rng.integers(len(pools.photographs)))
    photograph = pools.photographs[index]
    focus = _focus(rng, photograph, None)
    base = draw_crop(rng, photograph, focus, size)
    views = draw_views(rng, base, photograph.width, photograph.height, size, NEAR.gentler(pace))
    alphas = alphas_of(photograph, draw_objects(rng, photograph, focus, MOST_LABELS))
    seen = [see_labelled(pools.picture(index), alphas, view, size) for view in views]
    return Draft(np.stack([frame for frame, _ in seen]), np.stack([labels for _, labels in seen]), has_recent=True)


def draw_classes_scene(rng: np.random.Generator, pools: Pools, size: int) -> Draft:
    """Two completely annotated photographs with a class in common; a label is all instances of a class. B is near C."""
    categories = list(pools.shared)
    category = categories[int(rng.integers(len(categories)))]
    members = pools.shared[category]
    example, target = (members[i] for i in rng.choice(len(members), 2, replace=False))
    both = {instance.category for instance in pools.photographs[example].instances} & {
        instance.category for instance in pools.photographs[target].instances
    }
    others = sorted(both - {category})
    classes = [category]
    if others and rng.random() < SECOND_CLASS:
        classes.append(others[int(rng.integers(len(others)))])
    views = {index: _class_views(rng, pools.photographs[index], category, size) for index in (example, target)}
    seen = []
    for frame, index in enumerate((example, target, target)):
        photograph = pools.photographs[index]
        seen.append(see_labelled(pools.picture(index), _class_alphas(photograph, classes), views[index][frame], size))
    return Draft(np.stack([frame for frame, _ in seen]), np.stack([labels for _, labels in seen]), has_recent=False)


def _class_views(rng: np.random.Generator, photograph: Photograph, category: int, size: int) -> tuple[View, View, View]:
    base = draw_crop(rng, photograph, _focus(rng, photograph, category), size)
    return draw_views(rng, base, photograph.width, photograph.height, size)


def _class_alphas(photograph: Photograph, classes: list[int]) -> list[NDArray[np.uint8]]:
    return [
        coverage(
            tuple(instance for instance in photograph.instances if instance.category == category),
            photograph.width,
            photograph.height,
        )
        for category in classes
    ]


def _focus(rng: np.random.Generator, photograph: Photograph, category: int | None) -> int:
    """An instance to look at: of the class if one is given, and not a speck if there is any larger one."""
    fitting = [i for i, thing in enumerate(photograph.instances) if category is None or thing.category == category]
    large = [i for i in fitting if photograph.instances[i].area >= LEAST_FOCUS]
    choice = large or fitting
    return choice[int(rng.integers(len(choice)))]
