"""The CPU's attention in bfloat16: as exact as torch's own, whatever the shape."""

from __future__ import annotations

from math import log

import pytest
import torch
import torch.nn.functional as F

from segic.backbones import attention as module
from segic.backbones.attention import LARGEST, ROWS, WORTH_IT, _rows_at_once, attention, spelled_out


def inputs(batch=2, heads=3, n=300, d=16, common=0.0):
    """q, k, v in bfloat16. common: a part that all keys share, as trained backbones' do."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(batch, heads, n, d, generator=generator) for _ in range(3))
    return [t.bfloat16() for t in (2 * q, 2 * k + common, v)]


def exact(q, k, v):
    return F.scaled_dot_product_attention(q.float(), k.float(), v.float())


def error(found, expected):
    return ((found.float() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("scores", [2**10, 2**20])
@pytest.mark.parametrize("n", [1, ROWS - 1, ROWS, ROWS + 1, 255, 256, 515])
def test_any_number_of_tokens(monkeypatch, n, scores):
    """In one part and in many, the last of them smaller or not."""
    monkeypatch.setattr(module, "SCORES", scores)
    monkeypatch.setattr(module, "LEAST", 1)
    given = inputs(n=n)
    expected = exact(*given)
    found = spelled_out(*given)
    assert found.dtype == torch.bfloat16
    assert found.shape == expected.shape
    assert error(found, expected) < 0.02
    assert torch.equal(spelled_out(*inputs(n=n), most=n + 700), found)


@pytest.mark.parametrize("n", [1, 17, 512, 1168, 1456, 2041, 4081, 8193, 36865])
def test_parts_are_about_as_large(n):
    rows, most = _rows_at_once(n), max(module.SCORES, module.LEAST * n) * torch.get_num_threads()
    parts = -(-n // rows)
    assert rows % ROWS == 0
    assert (rows - ROWS) * n <= most
    assert parts * rows - n < ROWS * parts
    assert parts == 1 or (rows + ROWS) * n > most / 2


def test_what_all_keys_share_does_not_reach_the_scores():
    """Scores of some hundreds, rounded to 8 bits, would leave nothing of the differences between them."""
    given = inputs(common=60)
    expected = exact(*given)
    assert error(spelled_out(*given), expected) < 0.02


def test_scores_whose_powers_no_number_can_hold():
    q, k, v = inputs(batch=1, heads=2, d=64)
    q[:, 1] *= 40  # the other head's stay small
    expected = exact(q, k, v)
    found = spelled_out(q.clone(), k.clone(), v.clone())
    assert (q[:, 1].float() @ k[:, 1].float().mT).amax() / 8 > 2 * LARGEST
    assert found.isfinite().all()
    for head in (0, 1):
        assert error(found[:, head], expected[:, head]) < (0.02, 0.1)[head]  # scores of some hundreds, in 8 bits


def test_powers_that_are_just_small_enough_do_not_overflow():
    """Half of the scores are nearly LARGEST: 2 to that power, thousands of times."""
    n, d = 4096, 64
    side = (0.98 * LARGEST * log(2) / d**0.5) ** 0.5
    sign = torch.ones(n).index_fill(0, torch.arange(n // 2), -1)[None, None, :, None]  # a mean key of zero
    q = torch.full((1, 1, n, d), side).bfloat16()
    k = (q * sign).bfloat16()
    v = torch.ones_like(q)
    assert 0.95 * LARGEST < q[0, 0, 0].float() @ k[0, 0, -1].float() / d**0.5 / log(2) < LARGEST
    assert error(spelled_out(q.clone(), k.clone(), v), exact(q, k, v)) < 0.02


@pytest.mark.parametrize(
    ("dtype", "n", "instructions", "taken"),
    [
        (torch.bfloat16, WORTH_IT, {"avx512_bf16"}, True),
        (torch.bfloat16, WORTH_IT - 1, {"avx512_bf16"}, False),
        (torch.bfloat16, WORTH_IT, {"avx512_bf16", "amx_tile"}, False),
        (torch.bfloat16, WORTH_IT, set(), False),
        (torch.float32, WORTH_IT, {"avx512_bf16"}, False),
    ],
)
def test_only_where_it_pays(monkeypatch, dtype, n, instructions, taken):
    calls = []
    monkeypatch.setattr(module, "cpu_has", instructions.__contains__)
    monkeypatch.setattr(module, "spelled_out", lambda q, k, v, most: calls.append(q.shape) or v)
    q, k, v = (t.to(dtype) for t in inputs(batch=1, heads=1, n=n, d=8))
    expected = F.scaled_dot_product_attention(q, k, v)
    found = attention(q, k, v)
    assert bool(calls) == taken
    assert taken or torch.equal(found, expected)
