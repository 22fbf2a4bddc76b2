"""Label propagation without resampled features and without loops, against the literal definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segic.correspondence import (
    best_by_group,
    best_of_columns,
    entity_margins,
    margins_of_best,
    mean_similarity,
    unit,
    upsampled_norm,
    window,
)

sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))
targets = st.tuples(st.integers(1, 26), st.integers(1, 26))
seeds = st.integers(0, 2**31 - 1)


def randn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(sizes, targets, seeds)
@example((1, 1), (4, 4), 0)
@example((1, 7), (3, 26), 0)
@example((4, 6), (14, 21), 0)  # the model's own ratio: 14 pixels a token, a map of a quarter of the pixels
@example((7, 7), (3, 2), 0)  # made smaller
@example((5, 5), (5, 5), 0)
@settings(max_examples=150, deadline=None)
def test_upsampled_norm(size, target, seed):
    features = randn(seed, 2, 5, *size)
    expected = F.interpolate(features, target, mode="bilinear", align_corners=False).norm(dim=1)
    torch.testing.assert_close(upsampled_norm(features, target), expected, atol=2e-5, rtol=1e-5)


def test_upsampled_norm_at_full_size():
    """The released model's: 64 x 64 tokens to 224 x 224, where rounding has room to add up."""
    features = 3 + randn(0, 1, 64, 64, 64)
    expected = F.interpolate(features, (224, 224), mode="bilinear").norm(dim=1)
    torch.testing.assert_close(upsampled_norm(features, (224, 224)), expected, atol=1e-4, rtol=1e-5)


def test_upsampled_norm_where_neighbours_cancel():
    """Halfway between opposite features there is nothing: a squared norm that rounds below zero must not be NaN."""
    f = randn(1, 1, 16, 1, 1)
    norm = upsampled_norm(torch.cat([f, -f], dim=3), (1, 5))
    assert norm.isfinite().all()
    assert norm[0, 0, 2] < 1e-3 * f.norm()


def test_upsampled_norm_of_half_precision_is_float32():
    assert upsampled_norm(randn(0, 1, 4, 3, 3).bfloat16(), (6, 6)).dtype == torch.float32


@given(sizes, targets, seeds)
@settings(max_examples=80, deadline=None)
def test_mean_similarity(size, target, seed):
    features, visual = randn(seed, 2, 6, *size), randn(seed + 1, 2, 3, 6)
    upsampled = F.interpolate(features, target, mode="bilinear", align_corners=False)
    expected = F.cosine_similarity(upsampled[:, None], visual[..., None, None], dim=2, eps=1e-8)
    found = mean_similarity(features, upsampled_norm(features, target), visual, 1e-8)
    # Where the upsampled feature is nearly zero its direction is rounding noise.
    clear = upsampled.norm(dim=1)[:, None].expand_as(found) > 0.05
    torch.testing.assert_close(found[clear], expected[clear], atol=1e-3, rtol=0)
    assert found.abs().max() < 1.01


def test_mean_similarity_with_nothing_is_zero():
    features = randn(0, 1, 4, 2, 2)
    norm = upsampled_norm(features, (4, 4))
    assert not mean_similarity(features, norm, torch.zeros(1, 1, 4), 1e-8).any()
    nothing = torch.zeros_like(features)
    assert not mean_similarity(nothing, upsampled_norm(nothing, (4, 4)), torch.ones(1, 1, 4), 1e-8).any()


def margins_by_definition(similarity, group, entities, topk):
    def best(values):
        chosen = sorted(values, reverse=True)[:topk]
        return sum(chosen) / len(chosen) if chosen else 0.0

    pairs = [list(zip(row, group.tolist(), strict=True)) for row in similarity.tolist()]
    return torch.tensor(
        [
            [best([s for s, g in row if g == e]) - best([s for s, g in row if g != e]) for row in pairs]
            for e in range(1, entities + 1)
        ]
    )


@st.composite
def matchings(draw):
    """similarity (T, E), with many ties; group (E,), some of them empty; entities; topk."""
    tokens, examples = draw(st.integers(1, 5)), draw(st.integers(1, 14))
    entities, topk = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    cosines = st.lists(st.integers(-4, 4), min_size=tokens * examples, max_size=tokens * examples)
    similarity = torch.tensor(draw(cosines)).view(tokens, examples) / 4
    group = torch.tensor(draw(st.lists(st.integers(0, entities), min_size=examples, max_size=examples)))
    return similarity, group, entities, topk


@given(matchings())
@settings(max_examples=150, deadline=None)
def test_entity_margins(matching):
    torch.testing.assert_close(entity_margins(*matching), margins_by_definition(*matching), atol=1e-6, rtol=0)


@given(matchings())
@settings(max_examples=150, deadline=None)
def test_entity_margins_by_sorting(matching):
    """As on a GPU; groups may differ from row to row, and one more is left out."""
    similarity, group, entities, topk = matching
    expected = margins_by_definition(*matching)
    best, count = best_by_group(similarity, group, entities + 1, topk)
    torch.testing.assert_close(margins_of_best(best), expected, atol=1e-6, rtol=0)
    assert count.T.tolist() == [torch.bincount(group, minlength=entities + 1).tolist()] * len(similarity)
    more = torch.cat([similarity, torch.ones(len(similarity), 2)], 1)
    by_row = torch.cat([group, torch.tensor([entities + 1] * 2)]).expand(len(similarity), -1)
    best, _ = best_by_group(more, by_row, entities + 1, topk)
    torch.testing.assert_close(margins_of_best(best), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("topk", [1, 4, 300])
def test_entity_margins_of_many_entities(topk):
    similarity = randn(0, 7, 250).tanh()
    group = torch.randint(0, 41, (250,), generator=torch.Generator().manual_seed(0))
    found = entity_margins(similarity, group, 40, topk)
    assert found.shape == (40, 7)
    torch.testing.assert_close(found, margins_by_definition(similarity, group, 40, topk), atol=1e-5, rtol=0)


def test_entity_margins_where_one_entity_owns_all():
    similarity = torch.tensor([[0.5, 0.25]])
    assert entity_margins(similarity, torch.tensor([1, 1]), 2, 2).tolist() == [[0.375], [-0.375]]


@pytest.mark.parametrize("counts", [(1, 3, 15), (16, 0, 63), (64, 65, 1), (255, 256, 257)])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_best_of_columns_of_any_number(counts, precision):
    """Those that torch is given more columns for, and those that it is not."""
    similarity = randn(0, 5, sum(counts)).tanh().to(precision)
    found = best_of_columns(similarity, counts, 4)
    for mine, columns in zip(found, similarity.split(counts, dim=1), strict=True):
        best = columns.sort(dim=1, descending=True).values[:, :4]
        assert torch.equal(mine, F.pad(best, (0, 4 - best.shape[1]), value=-torch.inf))


def test_entity_margins_do_not_depend_on_the_order_of_examples():
    similarity, group = randn(3, 6, 40), torch.randint(0, 4, (40,), generator=torch.Generator().manual_seed(3))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(4))
    expected = entity_margins(similarity, group, 3, 4)
    torch.testing.assert_close(entity_margins(similarity[:, order], group[order], 3, 4), expected)


@pytest.mark.parametrize("radius", [0, 1, 2, 10])
def test_window(radius):
    near = window((3, 4), radius, torch.device("cpu"))
    places = [(y, x) for y in range(3) for x in range(4)]
    expected = [[max(abs(a - c), abs(b - d)) <= radius for c, d in places] for a, b in places]
    assert near.tolist() == expected


def test_unit():
    features = randn(0, 2, 5, 3, 4)
    tokens = unit(features)
    assert tokens.shape == (2, 12, 5)
    torch.testing.assert_close(tokens.norm(dim=-1), torch.ones(2, 12))
    cosine = F.cosine_similarity(features[0, :, 2, 1], features[0, :, 0, 3], dim=0)
    torch.testing.assert_close(tokens[0, 2 * 4 + 1] @ tokens[0, 3], cosine)
    assert torch.equal(unit(features[1]), tokens[1])


def test_unit_of_nothing_is_zero():
    assert not unit(torch.zeros(5, 2, 2)).any()
