"""What every source of training data gives, and how it says that a picture cannot be used."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

INSTANCES = "instances"  # a Sample's texts for entities without a class; see `segic.training.texts`


@dataclass(frozen=True)
class Sample:
    """One episode's pictures: 2 (a pair: example and target) or 3 (a scene: example, recent frame, target).

    frames: (F, S, S, 3) uint8 RGB. masks: (F, N, S, S) bool, the same entities in all frames, none empty in frame 0.
    valid: F (height, width) of the top-left part that holds the picture; what is outside is padding.
    texts: the class of each entity, INSTANCES where it has none, "" where nothing is to be said.
    kind: "pair", or a scene's kind. has_recent: whether frame 1 may serve as a second example. origin: file names.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    valid: tuple[tuple[int, int], ...]
    texts: tuple[str, ...]
    kind: str
    has_recent: bool
    origin: tuple[str, ...]


class Unusable(Exception):
    """A picture or mask that cannot be used: it is left out, counted and listed, and another one is drawn.

    file: its name. reason: in words.
    """

    def __init__(self, file: str, reason: str):
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason


class Source(Protocol):
    """A data set.

    name: as in the recipe. notes: what was left out when it was opened.
    """

    name: str
    notes: tuple[str, ...]

    def draw(self, rng: np.random.Generator) -> Sample:
        """A random episode; the same random state gives the same one. Raises Unusable for a broken file, and for a
        draw in which no entity is left after augmentation (with the reason "no entity in view")."""
        ...
