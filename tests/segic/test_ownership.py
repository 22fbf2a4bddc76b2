"""Which entity owns which token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segic.ownership import partition


def coverage(entities: int, tokens: int, seed: int) -> torch.Tensor:
    """(entities, 1, tokens) of shares that leave something to the background."""
    shares = torch.rand(entities + 1, 1, tokens, generator=torch.Generator().manual_seed(seed))
    return (shares / shares.sum(0))[:-1]


def test_partition():
    weights = torch.tensor([[[0.9, 0.2, 0.0, 0.0]], [[0.1, 0.7, 0.3, 0.0]]])
    assert partition(weights).tolist() == [1, 2, 0, 0]


def test_partition_gives_small_entities_their_best_token():
    weights = torch.zeros(3, 2, 3)
    weights[0, :, :2] = 1
    weights[1, 1, 2] = 0.01
    assert partition(weights).tolist() == [1, 1, 0, 1, 1, 2]  # the third covers nothing and owns nothing


def test_partition_makes_up_for_a_token_that_was_given_away():
    """The first has none by right, and what it covers is the second's only one."""
    assert partition(torch.tensor([[[0.3, 0.0, 0.0]], [[0.6, 0.0, 0.0]]])).tolist() == [2, 0, 0]
    assert partition(torch.tensor([[[0.3, 0.0, 0.0]], [[0.6, 0.2, 0.0]]])).tolist() == [2, 0, 0]


def test_small_entities_that_share_a_token_do_not_rob_each_other():
    assert partition(torch.tensor([[[0.3, 0.1, 0.0]], [[0.4, 0.0, 0.0]]])).tolist() == [2, 1, 0]
    # An entity with several tokens gives one away, not its last one.
    assert partition(torch.tensor([[[0.9, 0.6, 0.0]], [[0.1, 0.2, 0.0]], [[0.0, 0.1, 0.0]]])).tolist() == [1, 2, 0]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(6, 30), st.integers(0, 999))
def test_whoever_covers_enough_tokens_owns_one(entities, tokens, seed):
    owner = partition(coverage(entities, tokens, seed) * 0.3)  # everyone covers something of every token
    assert set(range(1, entities + 1)) <= set(owner.tolist())


@pytest.mark.parametrize(("least", "owned"), [(0.5, [0, 0, 0, 1]), (0.3, [0, 0, 1, 1]), (0.15, [0, 1, 1, 1])])
def test_thin_parts_own_tokens_that_they_do_not_fill(least, owned):
    assert partition(torch.tensor([[[0.1, 0.2, 0.35, 0.6]]]), least).tolist() == owned


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(4, 30), st.floats(0.05, 0.5), st.integers(0, 999))
def test_whoever_covers_more_than_the_least_share_owns_or_loses_to_another(entities, tokens, least, seed):
    weights = coverage(entities, tokens, seed)
    owner = partition(weights, least)
    flat = weights[:, 0]
    best = flat.max(0)
    needed = (1 - flat.sum(0)) * least / (1 - least)  # to be the background's equal
    lucky = torch.bincount(owner, minlength=entities + 1)[1:] == 1  # who owns one token may have been given it
    for token in range(tokens):
        if owner[token] == 0:
            assert best.values[token] <= needed[token]
        elif not lucky[owner[token] - 1]:
            assert owner[token] - 1 == best.indices[token]
            assert best.values[token] >= needed[token]
    if entities == 1:
        assert (owner[flat[0] > least + 1e-6] == 1).all()
