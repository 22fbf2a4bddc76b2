"""What a later frame of a video teaches the linear model of an example, and what it may not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segic.ownership import partition
from segic.propagation import Context
from segic.renewal import AGREED, CERTAIN, certain, renewed
from segic.target_model import GOAL, fit, moments

RIDGE = 0.02
WIDTH = 16
# Directions of the features: two entities, the background that the example shows, and one that it does not.
ONE, TWO, KNOWN, NEW = (F.one_hot(torch.tensor(i), WIDTH).float() for i in range(4))
LIKE_ONE = F.normalize(NEW + 0.45 * ONE, dim=0)  # a background that comes into view and looks a little like an entity


def around(*directions: Tensor, count: int = 40, seed: int = 0) -> Tensor:
    """(count * directions, WIDTH) tokens of length 1 near the directions, in their order."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.stack(directions).repeat_interleave(count, 0)
    return F.normalize(centres + 0.08 * torch.randn(centres.shape, generator=generator), dim=1)


def frame(tokens: Tensor, owners: list[int], entities: tuple[int, ...], count: int = 40) -> Context:
    """A frame whose tokens, `count` at a time, are wholly owned by 0 (the background) or by one of the entities."""
    owner = torch.tensor(owners).repeat_interleave(count)
    weights = torch.stack([(owner == key).float() for key in entities])
    return shown(tokens, weights, entities)


def shown(tokens: Tensor, weights: Tensor, entities: tuple[int, ...]) -> Context:
    group = partition(weights[:, None])
    present = tuple((weights.amax(1) > 0).tolist())
    return Context(entities, torch.zeros(len(entities), WIDTH), present, tokens, group, weights)


def example(tokens: Tensor, owners: list[int], entities: tuple[int, ...]) -> Context:
    given = frame(tokens, owners, entities)
    assert given.group is not None
    known = moments(tokens, given.group, len(entities))
    return replace(given, target_model=fit([known], RIDGE), moments=known)


def margins(context: Context, tokens: Tensor) -> Tensor:
    assert context.target_model is not None
    return context.target_model.margins(tokens)


GIVEN = example(around(KNOWN, ONE, TWO), [0, 5, 9], (5, 9))


def test_a_background_that_the_example_does_not_show_is_learnt() -> None:
    fresh = around(LIKE_ONE, seed=2)
    later = frame(around(LIKE_ONE, ONE, TWO, seed=1), [0, 5, 9], (5, 9))
    before, after = margins(GIVEN, fresh)[0].mean(), margins(renewed(GIVEN, later, RIDGE), fresh)[0].mean()
    assert before > -GOAL  # it could as well be the entity's
    assert after < before - 0.1
    assert margins(renewed(GIVEN, later, RIDGE), around(ONE, seed=3))[0].mean() > GOAL


def test_nothing_else_of_the_example_changes() -> None:
    new = renewed(GIVEN, frame(around(KNOWN, ONE, TWO, seed=1), [0, 5, 9], (5, 9)), RIDGE)
    assert replace(new, target_model=None).__dict__ == replace(GIVEN, target_model=None).__dict__


def test_fitted_again_to_what_it_knows_it_stays_as_it_is() -> None:
    """The example's own frame counts half, and half is the same."""
    new = renewed(GIVEN, replace(GIVEN), RIDGE)
    tokens = around(KNOWN, ONE, TWO, NEW, seed=4)
    torch.testing.assert_close(margins(new, tokens), margins(GIVEN, tokens), atol=1e-4, rtol=0)


def test_a_mask_that_ran_over_is_not_believed() -> None:
    """What the example says is background does not become the entity's because a prediction took it."""
    tokens = around(KNOWN, ONE, TWO, KNOWN, seed=1)
    wrong, right = frame(tokens, [0, 5, 9, 5], (5, 9)), frame(tokens[:120], [0, 5, 9], (5, 9))
    assert (margins(GIVEN, tokens[120:])[0] < AGREED).all()
    fresh = around(KNOWN, ONE, TWO, seed=5)
    torch.testing.assert_close(
        margins(renewed(GIVEN, wrong, RIDGE), fresh), margins(renewed(GIVEN, right, RIDGE), fresh), atol=1e-5, rtol=0
    )


def test_rims_are_left_out() -> None:
    """Tokens that owners share do not count, whoever has more of them."""
    tokens = around(KNOWN, ONE, TWO, ONE, NEW, seed=1)
    whole = frame(tokens, [0, 5, 9, 5, 0], (5, 9))
    assert whole.weights is not None
    shared = whole.weights.clone()
    shared[0, 120:160], shared[0, 160:] = 0.9, 0.1
    without = frame(tokens[:120], [0, 5, 9], (5, 9))
    fresh = around(KNOWN, ONE, TWO, NEW, seed=5)
    torch.testing.assert_close(
        margins(renewed(GIVEN, shown(tokens, shared, (5, 9)), RIDGE), fresh),
        margins(renewed(GIVEN, without, RIDGE), fresh), atol=1e-5, rtol=0,
    )  # fmt: skip


def test_entities_are_told_by_their_keys() -> None:
    """In another order, and among others: those are background to the example, as they were in it."""
    tokens = around(KNOWN, ONE, TWO, NEW, seed=1)
    later = frame(tokens, [0, 5, 9, 7], (7, 9, 5))
    same = frame(tokens, [0, 5, 9, 0], (5, 9))
    fresh = around(KNOWN, ONE, TWO, NEW, seed=5)
    torch.testing.assert_close(
        margins(renewed(GIVEN, later, RIDGE), fresh), margins(renewed(GIVEN, same, RIDGE), fresh), atol=1e-6, rtol=0
    )


def test_a_frame_without_the_entities_teaches_the_background_alone() -> None:
    later = frame(around(NEW, seed=1), [0], (5, 9))
    new = renewed(GIVEN, later, RIDGE)
    assert margins(new, around(ONE, seed=3))[0].mean() > GOAL
    assert (margins(new, around(NEW, seed=3)) < -GOAL).all()


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
    assert certain(scores, present) is expected
