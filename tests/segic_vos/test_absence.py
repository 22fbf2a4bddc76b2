"""Who is not there, though something was found in his place."""

from __future__ import annotations

import pytest
import torch

from segic.model import Prediction
from segic.propagation import Context
from segic.shots import Standing
from segic_vos.absence import AS_LIKE, LEEWAY, WEIGHT, after, before, claimed, unlike

UNKNOWN = -torch.inf


def yes(*values):
    return torch.tensor(values)


def test_how_much_examples_speak_for_what_is_covered():
    """By the first of the margins, on average over what each object covers; of nobody's pixels nothing is said."""
    margins = torch.zeros(3, 2, 4, 6)
    margins[:, 1] = 9
    margins[0, 0, :, :2], margins[0, 0, :, 2:], margins[1, 0] = 0.3, -0.7, 0.2
    logits = torch.full((3, 16, 24), -5.0)
    logits[0, :, :12], logits[1, 8:, 12:] = 5, 5
    found = claimed(Prediction(logits, torch.ones(3), margins.amax(1), margins)).likeness
    torch.testing.assert_close(found, yes((2 * 0.3 - 0.7) / 3, 0.2, 0.0))


@pytest.mark.parametrize(("cut", "away", "asked"), [(False, False, False), (True, False, True), (False, True, True)])
def test_after_a_cut_and_until_found_an_object_must_be_like_the_examples(cut, away, asked):
    seen = Standing(yes(0.2, 0.2, UNKNOWN), yes(away, away, away))
    found = unlike(yes(0.2 * AS_LIKE - 0.01, 0.2 * AS_LIKE + 0.01, -1.0), seen, yes(cut)[0])
    assert found.tolist() == [asked, False, False]


@pytest.mark.parametrize("known", [0.003, -0.1])
def test_for_whom_the_examples_hardly_speak_a_little_less_is_enough(known):
    """As for a rider, whose horse speaks against her: a share of nearly nothing would be asked for to a hundredth."""
    seen = Standing(yes(known, known), yes(False, False))
    found = unlike(yes(known - LEEWAY + 0.001, known - LEEWAY - 0.001), seen, yes(True)[0])
    assert found.tolist() == [False, True]


def test_what_is_known_of_who_is_present_is_a_mean_over_frames():
    start = Standing(yes(UNKNOWN, 0.2, 0.2), yes(False, True, False))
    found = after(yes(0.4, 0.4, 0.4), yes(True, True, False), start, yes(False)[0])
    torch.testing.assert_close(found.likeness, yes(0.4, 0.2 + WEIGHT * 0.2, 0.2))
    assert found.away.tolist() == [False, False, False]


def test_who_is_not_found_after_a_cut_is_away_until_he_is():
    seen = Standing(yes(0.2, 0.3), yes(False, False))
    for cut, present, away in [(True, False, True), (False, False, True), (False, True, False), (False, False, False)]:
        seen = after(yes(0.3, 0.3), yes(present, True), seen, yes(cut)[0])
        assert seen.away.tolist() == [away, False]


def test_of_given_masks_nothing_is_known_and_objects_may_come_in_another_order():
    covers = yes(True, True)
    given = before(Context((4, 7), torch.zeros(2, 3), covers), (4, 7))
    assert given.likeness.tolist() == [UNKNOWN, UNKNOWN]
    assert not given.away.any()
    known = Standing(yes(0.1, 0.2), yes(True, False))
    found = before(Context((4, 7), torch.zeros(2, 3), covers, standing=known), (7, 4))
    torch.testing.assert_close(found.likeness, yes(0.2, 0.1))
    assert found.away.tolist() == [False, True]
