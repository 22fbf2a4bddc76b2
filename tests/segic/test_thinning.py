"""Which tokens of an example's background speak for the others, and that the others are not missed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segic import thinning
from segic.config import MatchingConfig
from segic.ownership import partition
from segic.propagation import Context, margins_to
from segic.thinning import MORE_ALIKE, representatives, thinned

MATCHING = MatchingConfig(topk=2, radius=3)
SLACK = 1e-5  # of cosines that are formed in another order


def around(centres: Tensor, each: int, spread: float, seed: int) -> Tensor:
    """(len(centres) * each, C) tokens of length 1, `each` near to every centre."""
    generator = torch.Generator().manual_seed(seed)
    tokens = centres.repeat_interleave(each, 0)
    return F.normalize(tokens + spread * torch.randn(tokens.shape, generator=generator), dim=1)


def example(tokens: Tensor, group: Tensor) -> Context:
    weights = torch.stack([(group == i).float() for i in range(1, int(group.max()) + 1)])
    assert torch.equal(partition(weights), group)
    return Context(tuple(range(1, len(weights) + 1)), torch.zeros(len(weights), 8), weights.any(1), tokens, group)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 4), st.floats(0, 0.6), st.integers(1, 4), st.integers(0, 999))
def test_every_token_is_kept_or_spoken_for(count: int, entities: int, spread: float, topk: int, seed: int) -> None:
    tokens = around(torch.eye(8)[: 1 + seed % 5], -(-count // (1 + seed % 5)), spread, seed)
    group = torch.randint(0, entities + 1, (len(tokens),), generator=torch.Generator().manual_seed(seed))
    kept = representatives(tokens, group, topk, tokens[group > 0])
    assert torch.equal(kept, kept.unique())
    left = torch.ones(len(tokens), dtype=torch.bool)
    left[kept] = False
    assert not group[left].any()  # all of the entities' stay
    if not left.any():
        return
    background = kept[group[kept] == 0]
    limit = (tokens @ tokens[group > 0].T).amax(1) + MORE_ALIKE
    speakers = tokens[left] @ tokens[background].T > limit[left, None] - SLACK
    assert (speakers.sum(1) >= topk).all()
    spoken_to = tokens[background] @ tokens[background].T > limit[background] + SLACK
    assert int((spoken_to & spoken_to.T).fill_diagonal_(False).sum(1).amin()) < topk  # else one would be too many


def test_a_few_of_many_alike_are_enough_but_not_where_an_entity_is_like_them() -> None:
    road, coat, like_coat = torch.eye(8)[0], torch.eye(8)[1], F.normalize(torch.eye(8)[1] + torch.eye(8)[2] / 2, dim=0)
    tokens = around(torch.stack([road, coat, like_coat]), 30, 0.02, 0)
    group = torch.tensor([0, 1, 0]).repeat_interleave(30)
    for topk in (1, 4):
        kept = representatives(tokens, group, topk, tokens[group > 0])
        assert [int(((kept >= start) & (kept < start + 30)).sum()) for start in (0, 30, 60)] == [topk, 30, 30]


@pytest.mark.parametrize("owner", [0, 1])
def test_nothing_is_left_out_without_an_entity_or_a_background(owner: int) -> None:
    entities = torch.eye(8)[: 8 * owner]
    assert torch.equal(representatives(torch.eye(8), torch.full((8,), owner), 2, entities), torch.arange(8))


def test_what_is_like_an_entity_of_another_example_stays() -> None:
    """In the first one's background there is somebody like the entity that the second shows."""
    road, coat, guest = torch.eye(8)[:3]
    first = example(
        around(torch.stack([road, coat, guest]), 30, 0.02, 0), torch.tensor([0, 1, 0]).repeat_interleave(30)
    )
    second = example(around(torch.stack([road, guest]), 30, 0.02, 1), torch.tensor([0, 1]).repeat_interleave(30))

    def counts(one: Context) -> list[int]:
        assert one.representatives is not None
        return torch.bincount(one.representatives // 30).tolist()

    assert [counts(one) for one in thinned([first], 2)] == [[2, 30, 2]]
    assert [counts(one) for one in thinned([first, second], 2)] == [[2, 30, 30], [2, 30]]


def test_nothing_is_compared_with_what_is_left_out() -> None:
    """Be it a background's or, by mistake, an entity's, which stays."""
    tokens, group = around(torch.eye(8)[:3], 30, 0.02, 0), torch.tensor([0, 0, 1]).repeat_interleave(30)
    left_out = torch.arange(90) >= 30
    (one,) = thinned([replace(example(tokens, group), left_out=left_out)], 2)
    assert one.representatives is not None
    assert torch.bincount(one.representatives // 30).tolist() == [2, 0, 30]
    target = around(torch.eye(8)[1:2], 5, 0.02, 1)
    alone = replace(one, matching=tokens[one.representatives], group=group[one.representatives], representatives=None)
    assert torch.equal(margins_to(target, [one], (1,), MATCHING), margins_to(target, [alone], (1,), MATCHING))


def test_a_large_background_is_thinned_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of which keeps the promise by itself."""
    tokens, group = around(torch.eye(8)[:2], 40, 0.02, 0), torch.tensor([0, 1]).repeat_interleave(40)
    assert len(representatives(tokens, group, 2, tokens[40:])) == 42
    monkeypatch.setattr(thinning, "TOGETHER", 15)
    kept = representatives(tokens, group, 2, tokens[40:])
    assert len(kept) == 46
    assert [int(((kept >= a) & (kept < b)).sum()) for a, b in ((0, 14), (14, 27), (27, 40))] == [2, 2, 2]


def test_parts_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, group = around(torch.eye(8), 20, 0.3, 1), torch.arange(160) // 20 % 3
    whole = representatives(tokens, group, 2, tokens[group > 0])
    assert len(whole) < 160
    monkeypatch.setattr(thinning, "PAIRS_AT_ONCE_CPU", 7 * 160)
    assert torch.equal(representatives(tokens, group, 2, tokens[group > 0]), whole)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_targets_are_compared_with_representatives_alone(precision: torch.dtype) -> None:
    """Margins move by no more than tokens that are alike differ, and their signs do not."""
    centres = torch.eye(8)[:4]
    tokens, group = around(centres, 30, 0.02, 0).to(precision), torch.tensor([0, 0, 1, 2]).repeat_interleave(30)
    full = example(tokens, group)
    (thin,) = thinned([full], MATCHING.topk)
    assert thin.representatives is not None
    assert len(thin.representatives) < 70
    target = around(centres, 5, 0.02, 1).to(precision)
    found, expected = (margins_to(target, [one], (1, 2), MATCHING) for one in (thin, full))
    torch.testing.assert_close(found, expected, atol=0.06, rtol=0)
    assert not torch.equal(found, expected)
    assert torch.equal(found > 0, expected > 0)
    alone = replace(full, matching=tokens[thin.representatives], group=group[thin.representatives])
    assert torch.equal(found, margins_to(target, [alone], (1, 2), MATCHING))


def test_what_is_near_is_compared_with_all() -> None:
    tokens, group = around(torch.eye(8)[:4], 30, 0.02, 0), torch.tensor([0, 0, 1, 2]).repeat_interleave(30)
    full = example(tokens, group)
    (thin,) = thinned([full], MATCHING.topk)
    found, expected = (margins_to(tokens, [one], (1, 2), MATCHING, (12, 10)) for one in (thin, full))
    assert torch.equal(found, expected)
