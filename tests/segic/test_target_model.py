"""The linear model of an example's tokens, against its definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from segic.target_model import FEW, GOAL, ROWS, TargetModel, fit_counted, fit_target_model


def unit_tokens(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def loss_of(model: TargetModel, tokens: torch.Tensor, group: torch.Tensor, entities: int, ridge: float) -> torch.Tensor:
    """What `fit_target_model` makes as small as can be, token by token."""
    counts = [int((group == number).sum()) for number in range(entities + 1)]
    share = torch.tensor([1 / (counts[owner] + FEW) for owner in group.tolist()], dtype=torch.float64)
    share = share / share.sum()
    middle = sum(s * x for s, x in zip(share, tokens.double(), strict=True))
    variance = sum(s * (x - middle).square().mean() for s, x in zip(share, tokens.double(), strict=True))
    total = ridge * variance * model.weight.square().sum()
    for s, x, owner in zip(share, tokens.double(), group.tolist(), strict=True):
        goal = torch.full((entities + 1,), -GOAL, dtype=torch.float64)
        goal[owner] = GOAL
        total = total + s * (x @ model.weight + model.offset - goal).square().sum()
    return total


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(4, 40), st.sampled_from([0.01, 0.1, 1.0]), st.integers(0, 999))
def test_nothing_fits_better(entities: int, count: int, ridge: float, seed: int) -> None:
    tokens = unit_tokens(count, 6, seed)
    group = torch.randint(0, entities + 1, (count,), generator=torch.Generator().manual_seed(seed + 1))
    found = fit_target_model(tokens, group, entities, ridge)
    weight, offset = (t.double().requires_grad_() for t in (found.weight, found.offset))
    loss = loss_of(TargetModel(weight, offset), tokens, group, entities, ridge)
    for slope in torch.autograd.grad(loss, (weight, offset)):  # the loss is convex: flat is lowest
        assert slope.abs().max() < 1e-5


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(0, 999))
def test_margins_are_to_the_best_of_the_others(entities: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, offset = (torch.randn(*shape, generator=generator) for shape in ((6, entities + 1), (entities + 1,)))
    tokens = unit_tokens(9, 6, seed)
    found = TargetModel(weight, offset).margins(tokens)
    scores = tokens @ weight + offset
    for entity in range(1, entities + 1):
        for token in range(9):
            others = [float(scores[token, other]) for other in range(entities + 1) if other != entity]
            assert float(found[entity - 1, token]) == pytest.approx(
                float(scores[token, entity]) - max(others), abs=1e-5
            )


def test_tells_look_alikes_apart_where_cosines_hardly_differ() -> None:
    """Two entities of one look: a sixteenth of the features differs, by less than the rest varies in each of them."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        group = torch.arange(count) % 3
        tokens = 0.5 * torch.randn(count, 32, generator=generator)
        tokens[:, 0] += torch.where(group == 0, -3.0, 3.0)
        tokens[:, 1:3] += 0.9 * F.one_hot(group, 3)[:, 1:]
        return F.normalize(tokens, dim=1), group

    tokens, group = draw(600)
    fresh, owner = draw(300)
    margins = fit_target_model(tokens, group, 2, 0.02).margins(fresh)
    right = (torch.cat([torch.zeros(1, 300), margins]).argmax(0) == owner).float().mean()
    nearest = group[(fresh @ tokens.T).argmax(1)]
    assert right > 0.85
    assert right > (nearest == owner).float().mean() + 0.1
    assert margins.abs().mean() < 2 * GOAL


def test_the_order_of_the_tokens_means_nothing() -> None:
    tokens, group = unit_tokens(50, 8), torch.arange(50) % 3
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    one, two = fit_target_model(tokens, group, 2, 0.02), fit_target_model(tokens[order], group[order], 2, 0.02)
    torch.testing.assert_close(one.weight, two.weight, atol=1e-4, rtol=1e-4)


def test_one_token_may_stand_for_several_and_others_for_none() -> None:
    """Of different owners too: a block of tokens that look the same may lie across a border."""
    tokens = unit_tokens(20, 8)
    counted = torch.randint(0, 4, (20, 3), generator=torch.Generator().manual_seed(0)).float()
    counted[:3] = 0
    place = torch.arange(60).repeat_interleave(counted.flatten().long())
    index, group = place // 3, place % 3
    one, two = fit_counted(tokens, counted, 0.02), fit_target_model(tokens[index], group, 2, 0.02)
    torch.testing.assert_close(one.weight, two.weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.offset, two.offset, atol=1e-4, rtol=1e-4)


def test_parts_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, group = unit_tokens(50, 8), torch.arange(50) % 3
    assert len(tokens) < ROWS
    whole = fit_target_model(tokens, group, 2, 0.02)
    monkeypatch.setattr("segic.target_model.ROWS", 7)
    parts = fit_target_model(tokens, group, 2, 0.02)
    torch.testing.assert_close(parts.weight, whole.weight, atol=1e-4, rtol=1e-4)


def test_a_plain_picture_says_nothing() -> None:
    """All tokens alike: no token is nearer to one owner than another is."""
    tokens = unit_tokens(1, 8).expand(30, -1)
    margins = fit_target_model(tokens, torch.arange(30) % 2, 1, 0.02).margins(tokens)
    assert margins.isfinite().all()
    assert margins.std() < 1e-6


def test_an_entity_without_tokens_is_nowhere() -> None:
    tokens = unit_tokens(30, 8)
    margins = fit_target_model(tokens, torch.arange(30) % 2, 2, 0.02).margins(tokens)
    assert (margins[1] < 0).all()
    assert (margins[0] > 0).any()


def test_features_that_are_not_finite_make_margins_that_are_not() -> None:
    tokens, group = unit_tokens(30, 8), torch.arange(30) % 2
    broken = tokens.clone()
    broken[3, 2] = torch.nan
    assert fit_target_model(broken, group, 1, 0.02).margins(tokens).isnan().all()
