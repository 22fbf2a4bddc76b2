"""What a later frame of a video teaches the linear model of an example, and what it may not."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segic.backbones.fovea import fovea
from segic.config import MatchingConfig
from segic.ownership import partition
from segic.propagation import Context, target_margins
from segic.renewal import AGREED, CERTAIN, RING, TOUCHED, certain, due, renewed
from segic.target_model import GOAL, TargetModel, fit_target_model

MATCHING = MatchingConfig(ridge=0.02, ridge_share=0.3)
WIDTH = 16
COLUMNS = 40  # of the grids here; each row is one kind of token
# Directions of the features: two entities, the background that the example shows, and one that it does not.
ONE, TWO, KNOWN, NEW = (F.one_hot(torch.tensor(i), WIDTH).float() for i in range(4))
LIKE_ONE = F.normalize(NEW + 0.45 * ONE, dim=0)  # a background that comes into view and looks a little like an entity


def around(*directions: Tensor, seed: int = 0) -> Tensor:
    """(COLUMNS * directions, WIDTH) tokens of length 1 near the directions, a row of each."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.stack(directions).repeat_interleave(COLUMNS, 0)
    return F.normalize(centres + 0.08 * torch.randn(centres.shape, generator=generator), dim=1)


def shown(tokens: Tensor, weights: Tensor, entities: tuple[int, ...]) -> Context:
    visual = torch.zeros(len(entities), WIDTH)
    return Context(entities, visual, weights.amax(1) > 0, tokens, partition(weights), weights)


def frame(tokens: Tensor, owners: list[int], entities: tuple[int, ...]) -> Context:
    """A frame each of whose rows is wholly owned by 0 (the background) or by one of the entities."""
    owner = torch.tensor(owners).repeat_interleave(COLUMNS)
    return shown(tokens, torch.stack([(owner == key).float() for key in entities]), entities)


def example(tokens: Tensor, owners: list[int], entities: tuple[int, ...]) -> Context:
    given = frame(tokens, owners, entities)
    assert given.group is not None
    return replace(given, target_model=fit_target_model(tokens, given.group, len(entities), MATCHING.ridge))


def renew(later: Context, given: Context | None = None) -> Context:
    assert later.matching is not None
    return renewed(given or GIVEN, later, (len(later.matching) // COLUMNS, COLUMNS), MATCHING)


def margins(context: Context, tokens: Tensor) -> Tensor:
    return target_margins(tokens, [context], context.entities)


FAR = [KNOWN] * RING  # rows that keep what lies beyond them away from an entity
GIVEN = example(around(KNOWN, ONE, TWO), [0, 5, 9], (5, 9))


def test_a_background_that_the_example_does_not_show_is_learnt() -> None:
    fresh = around(LIKE_ONE, seed=2)
    later = frame(around(LIKE_ONE, *FAR, ONE, TWO, seed=1), [0, 0, 0, 5, 9], (5, 9))
    before, after = margins(GIVEN, fresh)[0].mean(), margins(renew(later), fresh)[0].mean()
    assert before > -GOAL  # it could as well be the entity's
    assert after < before - 0.1
    assert margins(renew(later), around(ONE, seed=3))[0].mean() > GOAL


def test_an_entity_that_looks_different_by_now_is_learnt() -> None:
    turned = F.normalize(ONE + 0.6 * NEW, dim=0)
    later = frame(around(KNOWN, *FAR, turned, TWO, seed=1), [0, 0, 0, 5, 9], (5, 9))
    assert (margins(GIVEN, around(turned, seed=1))[0] > AGREED).float().mean() > 0.9
    fresh = around(turned, seed=2)
    assert margins(renew(later), fresh)[0].mean() > margins(GIVEN, fresh)[0].mean() + 0.02


def test_the_example_stays_as_it_is_and_so_does_its_own_model() -> None:
    new = renew(frame(around(KNOWN, *FAR, ONE, TWO, seed=1), [0, 0, 0, 5, 9], (5, 9)))
    assert new.renewed is not None
    assert all(getattr(replace(new, renewed=None), f.name) is getattr(GIVEN, f.name) for f in fields(GIVEN))
    # So that what is believed of a later frame is by the example alone, however often it was renewed before.
    later = frame(around(LIKE_ONE, *FAR, ONE, TWO, seed=2), [0, 0, 0, 5, 9], (5, 9))
    misled = replace(GIVEN, renewed=TargetModel(-new.renewed.weight, -new.renewed.offset))
    assert torch.equal(margins(renew(later, misled), around(ONE, NEW)), margins(renew(later), around(ONE, NEW)))


def test_a_mask_that_ran_over_is_not_believed() -> None:
    """What the example says is background does not become the entity's because a prediction took it."""
    tokens = around(KNOWN, *FAR, KNOWN, ONE, TWO, seed=1)
    wrong = frame(tokens, [0, 0, 0, 5, 5, 9], (5, 9))
    assert (margins(GIVEN, tokens)[0, 3 * COLUMNS : 4 * COLUMNS] < AGREED).all()
    one_row = slice(0, COLUMNS)  # the rest of the background is too near to the entities, as the mask has them
    assert GIVEN.matching is not None
    tokens = torch.cat([GIVEN.matching, tokens[one_row], tokens[4 * COLUMNS :]])
    owner = torch.tensor([0, 1, 2, 0, 1, 2]).repeat_interleave(COLUMNS)
    fresh = around(KNOWN, ONE, TWO, seed=5)
    expected = fit_target_model(tokens, owner, 2, MATCHING.ridge).margins(fresh)
    torch.testing.assert_close(margins(renew(wrong), fresh), expected, atol=1e-5, rtol=0)


def test_what_lies_around_an_entity_is_not_learnt_as_background() -> None:
    """There its thin parts lie that a mask has missed, as far as RING tokens from one that it touches."""
    for share, learnt in ((0.0, True), (TOUCHED / 2, True), (2 * TOUCHED, False)):
        tokens = around(LIKE_ONE, *FAR[1:], KNOWN, *FAR, ONE, seed=1)
        later = frame(tokens, [0] * (1 + 2 * RING) + [5], (5, 9))
        assert later.weights is not None
        weights = later.weights.clone()
        weights[0, RING * COLUMNS : (RING + 1) * COLUMNS] = share  # its row is RING rows from LIKE_ONE's
        change = margins(renew(shown(tokens, weights, (5, 9))), around(LIKE_ONE, seed=2))[0]
        assert (change.mean() < margins(GIVEN, around(LIKE_ONE, seed=2))[0].mean() - 0.1) == learnt


def test_entities_are_told_by_their_keys() -> None:
    """In another order, and among others: those, and what is around them, say nothing to the example."""
    tokens = around(LIKE_ONE, *FAR, ONE, TWO, KNOWN, *FAR[1:], NEW, seed=1)
    rows = len(tokens) // COLUMNS
    later = frame(tokens, [0, 0, 0, 5, 9] + [0] * (rows - 6) + [7], (7, 9, 5))
    without = slice(0, -COLUMNS)
    same = frame(tokens[without], [0, 0, 0, 5, 9] + [0] * (rows - 6), (5, 9))
    fresh = around(KNOWN, ONE, TWO, NEW, seed=5)
    torch.testing.assert_close(margins(renew(later), fresh), margins(renew(same), fresh), atol=1e-6, rtol=0)


def test_a_frame_without_the_entities_teaches_the_background_alone() -> None:
    new = renew(frame(around(NEW, seed=1), [0], (5, 9)))
    assert margins(new, around(ONE, seed=3))[0].mean() > GOAL
    assert (margins(new, around(NEW, seed=3)) < -GOAL).all()


def test_tokens_that_are_one_are_learnt_as_if_they_were_several() -> None:
    """Whatever their owners: of a block, one may be the entity's and be kept, and the others background or left out."""
    directions = [KNOWN, *FAR, ONE, TWO, NEW, NEW]
    grid = (len(directions), COLUMNS)
    layout = fovea(torch.where(torch.arange(grid[0])[:, None] < 2, 1, 4).expand(grid))
    later = frame(around(*directions, seed=1), [0, *[0] * RING, 5, 9, 0, 0], (5, 9))
    assert later.matching is not None
    assert len(layout) < len(later.matching)
    copied = replace(later, matching=later.matching[layout.seen][layout.source])
    fresh = around(KNOWN, ONE, TWO, NEW, seed=5)
    found, expected = (margins(renew(one), fresh) for one in (replace(copied, fovea=layout), copied))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(found, margins(renew(later), fresh), atol=1e-3)


@pytest.mark.parametrize(
    ("scores", "present", "expected"),
    [
        ({1: 0.9, 2: CERTAIN}, [1, 2], True),
        ({1: 0.9, 2: CERTAIN - 0.01}, [1, 2], False),
        ({1: 0.9, 2: 0.0}, [1], True),  # who is gone need not be certain
        ({1: 0.9, 2: 0.9}, [], False),
    ],
)
def test_who_must_be_certain(scores: dict[int, float], present: list[int], expected: bool) -> None:
    covers = torch.tensor([key in present for key in scores])
    assert bool(certain(torch.tensor(list(scores.values())), covers)) is expected
    for predicted, turn in ((1, False), (2, True)):
        assert due(predicted, 2, scores, present) is (turn and expected)


@pytest.mark.parametrize("sure", [True, False])
def test_a_linear_model_stays_what_it_was_where_nobody_is_sure(sure: bool) -> None:
    later = frame(around(LIKE_ONE, *FAR, ONE, TWO, seed=1), [0, 0, 0, 5, 9], (5, 9))
    before = replace(GIVEN, renewed=TargetModel(-GIVEN.linear.weight, -GIVEN.linear.offset))
    new = renewed(before, later, (5, COLUMNS), MATCHING, torch.tensor(sure))
    expected = renew(later) if sure else before
    assert torch.equal(new.linear.weight, expected.linear.weight)
    assert torch.equal(new.linear.offset, expected.linear.offset)
