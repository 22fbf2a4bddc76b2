"""Dense label propagation from the examples and recent frames of a target: the propagated masks of eq. 2."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from segic.backbones.fovea import Fovea
from segic.branches import side_by_side
from segic.carrying import SCALE, carry, token_flow, within_reach
from segic.config import MatchingConfig
from segic.correspondence import best_matches, margins_of_best
from segic.neighbours import PAIRS_AT_ONCE, neighbour_margins
from segic.numbers import numbers
from segic.parts import AT_ONCE
from segic.shots import Standing
from segic.target_model import TargetModel
from segic.tiles import near_margins

OF_EXAMPLES = slice(None, None, 2)  # of the maps of `dense_maps`: margins to the examples, and of their target models
OF_RECENT = 1  # of the same: margins to recent frames
NOBODY = 0  # in the place of an entity's key: that of the background, of which nobody asks
PAIRS_AT_ONCE_CPU = 2**21  # on a CPU more would leave its caches before they are ranked


@dataclass(frozen=True, eq=False)
class Context:
    """One in-context example: an image's features and the masks of the entities it shows. Equal only to itself.

    entities: the caller's keys of all masks given, empty ones too.
    visual:   (n, C) float32 visual instructions (eq. 3) in that order, zeros for an empty mask.
    covers:   (n,) bool, whether the entity's mask covers anything.
    matching: (h * w, D) tokens, group (h * w,) int64 (0 background, else 1 + position in `entities`) and weights
              (n, h * w), what each entity covers of them: for dense matching.
    masks:    (n, 4h, 4w) what each entity covers of the logits' pixels, for models that carry masks, else None.
    target_model: of given examples, for models that use one, else None. renewed: in its place, fitted to a later frame
              of a video as well; see `segic.renewal`.
    fovea:    which of the tokens are not the same as others, None: all.
    left_out: (h * w,) bool, tokens of the background that nothing is compared with, since they are those of entities
              that have other examples; None: none.
    representatives: (E,) int64, which of the tokens a target is compared with, None: all; see `segic.thinning`. Not
              where it is compared with what is near only.
    standing: of predicted frames, for models that notice cuts.
    """

    entities: tuple[int, ...]
    visual: Tensor
    covers: Tensor
    matching: Tensor | None = None
    group: Tensor | None = None
    weights: Tensor | None = None
    masks: Tensor | None = None
    target_model: TargetModel | None = None
    renewed: TargetModel | None = None
    fovea: Fovea | None = None
    left_out: Tensor | None = None
    representatives: Tensor | None = None
    standing: Standing | None = None

    @cached_property
    def present(self) -> tuple[bool, ...]:
        """`covers` as the host knows it: asking for it waits for a GPU once."""
        return tuple(self.covers.tolist())

    @property
    def shown(self) -> tuple[int, ...]:
        """The keys of the entities whose masks cover anything."""
        return tuple(key for key, present in zip(self.entities, self.present, strict=True) if present)

    @property
    def linear(self) -> TargetModel:
        """The target model that holds by now, of an example that has one."""
        model = self.renewed or self.target_model
        assert model is not None
        return model

    def renewing(self, model: TargetModel | None) -> "Context":
        """The same with another renewed model, or none."""
        return self._known_with(renewed=model)

    def without(self, entities: Collection[int]) -> "Context":
        """The same, of which these entities are nobody's: what they cover is background, from which an example still
        tells the others.
        """
        return self._known_with(entities=tuple(NOBODY if key in entities else key for key in self.entities))

    def _known_with(self, **changes: Any) -> "Context":
        """The same with changes that leave `covers` as it is: what the host knows of it need not be asked for again."""
        out = replace(self, **changes)
        if "present" in vars(self):
            vars(out)["present"] = self.present
        return out

    @property
    def settled(self) -> "Context":
        """The same, with the target model that holds by now as its only one."""
        return self if self.renewed is None else replace(self, target_model=self.renewed, renewed=None)


def dense_maps(
    target: Tensor,
    grid: tuple[int, int],
    given: Sequence[Context],
    recent: Sequence[Context],
    entities: Sequence[int],
    matching: MatchingConfig,
    fovea: Fovea | None = None,
    cut: Tensor | None = None,
) -> Tensor:
    """(N, P, h, w) float32 propagated masks of N entities on a target's tokens (h * w, D), in this order: margins to
    the examples; margins to recent frames, zero for who is in none of them; margins of the examples' target models,
    where the model has them. fovea: which of the target's tokens are not the same as others; those have the others'
    margins. cut: () bool, whether it is of another shot than the recent frames, which say nothing then.
    """
    seen = None if fovea is None else fovea.seen
    own = target if seen is None else target[seen]

    def from_recent() -> Tensor:
        if not recent:
            return torch.zeros(len(entities), len(own), device=own.device, dtype=torch.float32)
        shown = torch.stack([by_entity(each.covers, each.entities, entities) for each in recent]).any(0)
        shown = shown if cut is None else shown & ~cut
        # To who is not in them nothing is like, which would speak against it everywhere.
        return margins_to(own, recent, entities, matching, grid, seen).masked_fill_(~shown[:, None], 0)

    maps = [lambda: margins_to(own, given, entities, matching), from_recent]
    if matching.ridge:
        maps.append(lambda: target_margins(own, given, entities))
    margins = torch.stack(side_by_side(own.device, *maps), 1)
    return (margins if fovea is None else margins[..., fovea.source]).unflatten(-1, grid)


def carried_masks(
    target: Tensor, grid: tuple[int, int], recent: Sequence[Context], entities: Sequence[int], radius: int,
    cut: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """(N, 4h, 4w) float32 the last recent frame's masks of N entities, moved to where its tokens are in a target with
    tokens (h * w, D): 0 for entities that it does not know, without recent frames, and after a `cut`, as in
    `dense_maps`.
    """
    if not recent:
        size = (len(entities), SCALE * grid[0], SCALE * grid[1])
        return torch.zeros(size, device=target.device, dtype=torch.float32)
    last = recent[-1]
    assert last.matching is not None
    assert last.masks is not None
    known = by_entity(last.masks, last.entities, entities)
    wanted = within_reach(known, radius) if _in_parts(target.device) else None
    masks = carry(known, token_flow(target, last.matching, grid, radius, wanted))
    return masks if cut is None else masks.masked_fill_(cut, 0)


def target_margins(target: Tensor, given: Sequence[Context], entities: Sequence[int]) -> Tensor:
    """Margins of target tokens (T, C) by the examples' target models, the renewed ones where there are such
    -> (N, T) float32: an entity's mean over the examples that show it, 0 without any.
    """
    total = torch.zeros(len(entities), len(target), device=target.device, dtype=torch.float32)
    shown = dict.fromkeys(entities, 0)
    for context in given:
        known = tuple(key if there else None for key, there in zip(context.entities, context.present, strict=True))
        total += by_entity(context.linear.margins(target), known, entities)
        for key in context.shown:
            if key in shown:
                shown[key] += 1
    return total / numbers(tuple(max(1, count) for count in shown.values()), target.device)[:, None]


def by_entity(rows: Tensor, known: Sequence[int | None], entities: Sequence[int]) -> Tensor:
    """(n, ...) of entities with the keys `known` -> (N, ...) of `entities`, zeros for those that are not among them."""
    if tuple(known) == tuple(entities):
        return rows
    where = {key: row for row, key in enumerate(known)}
    index = numbers(tuple(where.get(key, len(known)) for key in entities), rows.device)
    return torch.cat([rows, rows.new_zeros(1, *rows.shape[1:])])[index]


def renumbered(owner: Tensor, known: Sequence[int], entities: Sequence[int]) -> Tensor:
    """(T,) int64 owners among entities with the keys `known`, 0 for background, else 1 + position -> the same among
    `entities`; who is not among them is background.
    """
    position = {key: i + 1 for i, key in enumerate(entities)}
    return numbers((0, *(position.get(key, 0) for key in known)), owner.device)[owner]


def _in_parts(device: torch.device) -> bool:
    """Whether nearby tokens are compared tile by tile: a GPU would rather form all pairs than wait for many parts."""
    return device.type == "cpu"


def margins_to(
    target: Tensor,
    contexts: Sequence[Context],
    entities: Sequence[int],
    matching: MatchingConfig,
    grid: tuple[int, int] | None = None,
    seen: Tensor | None = None,
) -> Tensor:
    """`entity_margins` of target tokens (T, C) against the tokens of several examples together -> (N, T) float32.

    grid: (h, w) of frames of one video, whose tokens match those within the radius only. seen: (T,) int64, where the
    target's tokens are in it, where they are not all h * w.
    """
    groups: list[Tensor] = []
    tokens: list[Tensor] = []
    for context in contexts:
        assert context.matching is not None
        assert context.group is not None
        group = renumbered(context.group, context.entities, entities)
        if grid is not None and context.fovea is not None:  # one speaks for all that are the same
            seen_once = torch.full_like(group, len(entities) + 1)
            seen_once[context.fovea.seen] = group[context.fovea.seen]
            group = seen_once
        whom = slice(None) if grid is not None or context.representatives is None else context.representatives
        groups.append(group[whom])
        tokens.append(context.matching[whom])
    group = torch.cat(groups)
    if grid is not None:
        near = near_margins if _in_parts(target.device) else neighbour_margins
        return near(target, tokens, group, grid, matching.radius, len(entities), matching.topk, seen)
    others, rows = torch.cat(tokens), max(1, PAIRS_AT_ONCE // len(group))
    if target.device.type == "cpu":
        group, order = group.sort()  # sorted, each entity's columns are a slice of the products
        others, rows = others[order], min(AT_ONCE, max(1, PAIRS_AT_ONCE_CPU // len(group)))
    parts = (target[start : start + rows] @ others.T for start in range(0, len(target), rows))
    best = [best_matches(similarity, group, len(entities) + 1, matching.topk) for similarity in parts]
    return margins_of_best(torch.cat(best, 1).float())
