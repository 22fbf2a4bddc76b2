"""What the mask decoder is shown of a target: all of it, or of each entity its place, and the rest blurred.

An entity's tokens look at what is far from it as well, so that a place alone would not do: it is shown at its full
resolution, and beyond it one token stands for a block of them, and counts for as many.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from segic.carrying import SCALE
from segic.decoder.places import Group, cut, left


@dataclass(frozen=True)
class Around:
    """A whole target in K blocks of BLOCK x BLOCK tokens. image: (N, K, C). position: (1, K, C)."""

    image: Tensor
    position: Tensor


@dataclass(frozen=True)
class Beyond:
    """What is beyond the places of N entities. counts: (N, K) float32, the logarithm of how many tokens each block has
    there, minus infinity for none.
    """

    around: Around
    counts: Tensor


@dataclass(frozen=True)
class View:
    """What is shown for N entities, of h x w tokens each.

    embedding, position: (N or 1, C, h, w). maps: (N, P, h, w) float32 margins. evidence: (N, E, h, w), these and the
    carried masks. carried: (N, 1, 4h, 4w). detail: (N or 1, D, 4h, 4w). beyond: None where this is all of a target.
    """

    embedding: Tensor
    position: Tensor
    maps: Tensor | None
    evidence: Tensor | None
    carried: Tensor | None
    detail: Tensor | None
    beyond: Beyond | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w)."""
        return self.embedding.shape[2], self.embedding.shape[3]

    def of(self, group: Group, around: Around | None) -> "View":
        """For some of the entities of a single target. around: that target, where they have places."""
        chosen, own = group.places, group.index
        maps, evidence, carried = (None if x is None else x[own] for x in (self.maps, self.evidence, self.carried))
        if chosen is None:
            return replace(self, maps=maps, evidence=evidence, carried=carried)
        assert around is not None
        return View(
            cut(self.embedding, chosen),
            cut(self.position, chosen),
            None if maps is None else cut(maps, chosen),
            None if evidence is None else cut(evidence, chosen),
            None if carried is None else cut(carried, chosen, SCALE),
            None if self.detail is None else cut(self.detail, chosen, SCALE),
            Beyond(Around(around.image[own], around.position), left(chosen, self.grid).log()),
        )
