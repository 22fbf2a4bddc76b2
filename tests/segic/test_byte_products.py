"""Products of bytes: exact sums, in steps, on whatever CPU this is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from segic import byte_products
from segic.byte_products import largest_weight, multiplied, packed


@pytest.fixture
def anew():
    """`largest_weight` tries again, and forgets what it found."""
    largest_weight.cache_clear()
    yield
    largest_weight.cache_clear()


@pytest.mark.bytes
@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 90), st.integers(1, 70)),
    zero=st.integers(0, 255),
    seed=st.integers(0, 2**31),
)
def test_sums_are_exact(shape, zero, seed):
    rows, inner, columns = shape
    largest = largest_weight()
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (rows, inner), generator=generator, dtype=torch.uint8)
    weight = torch.randint(-largest, largest + 1, (columns, inner), generator=generator, dtype=torch.int8)
    found = multiplied(x, 1.0, zero, packed(weight), torch.ones(columns))
    assert torch.equal(found.double(), (x.double() - zero) @ weight.double().T)


@pytest.mark.bytes
@pytest.mark.parametrize("gelu", [False, True])
def test_steps_and_what_comes_after(gelu):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (2, 9, 32), generator=generator, dtype=torch.uint8)
    weight = torch.randint(-64, 65, (24, 32), generator=generator, dtype=torch.int8)
    steps, bias = torch.rand(24, generator=generator) / 64, torch.randn(24, generator=generator)
    found = multiplied(x, 0.02, 100, packed(weight), steps, bias, gelu=gelu)
    expected = F.linear(0.02 * (x.float() - 100), steps[:, None] * weight.float(), bias)
    torch.testing.assert_close(found, F.gelu(expected) if gelu else expected, atol=1e-4, rtol=1e-4)


def test_a_torch_without_them(anew, monkeypatch):
    def missing(_weight):
        raise AttributeError("'_OpNamespace' 'onednn' object has no attribute 'qlinear_prepack'")

    monkeypatch.setattr(byte_products, "packed", missing)
    assert largest_weight() is None


def in_16_bits(x, _step, _zero, weight, _steps):
    """As CPUs without VNNI multiply: two products at a time, which stay within 16 bits."""
    pairs = x.double().unflatten(1, (-1, 2))[:, None] * weight.double().unflatten(1, (-1, 2))[None]
    return pairs.sum(-1).clamp(-(2**15), 2**15 - 1).sum(-1)


@pytest.mark.parametrize(("way", "largest"), [(in_16_bits, 64), (lambda *_: torch.zeros(1), None)])
def test_what_sums_have_room_for(anew, monkeypatch, way, largest):
    monkeypatch.setattr(byte_products, "AT_ONCE", 32)
    monkeypatch.setattr(byte_products, "packed", lambda weight: weight)
    monkeypatch.setattr(byte_products, "multiplied", way)
    assert largest_weight() == largest


@pytest.mark.bytes
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="no x86 with AVX2")
def test_this_cpu_without_vnni():
    """oneDNN told not to use what is beyond AVX2."""
    code = "from segic.byte_products import largest_weight; print(largest_weight())"
    known = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=known, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["64"]
