"""A backbone whose products are of bytes: near the plain one, by no more than the steps that it takes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from segic.backbones import int8
from segic.backbones.dinov2 import DinoV2, DinoV2Config
from segic.backbones.frozen_linear import FrozenLinear
from segic.backbones.int8 import LEVELS, Int8Linear, in_steps, plain_norm
from segic.byte_products import largest_weight
from segic.errors import UsageError

pytestmark = pytest.mark.bytes

precisions = [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.bfloat16)]


def layer(gelu: bool = False) -> FrozenLinear:
    torch.manual_seed(0)
    return FrozenLinear(96, 40, gelu=gelu).requires_grad_(False)


def tokens(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    scale=st.floats(1e-6, 1e6),
    offset=st.floats(-3, 3),
)
def test_no_result_is_further_off_than_its_steps(seed, scale, offset):
    plain = layer()
    x = scale * (torch.randn(20, 96, generator=torch.Generator().manual_seed(seed)) + offset)
    steps = plain.weight.abs().amax(1) / largest_weight()
    step = (max(float(x.max()), 0) - min(float(x.min()), 0)) / LEVELS
    room = steps / 2 * x.abs().sum(1, keepdim=True) + step / 2 * (plain.weight.abs() + steps[:, None]).sum(1)
    assert ((Int8Linear(plain)(x) - plain(x)).abs() <= 1.001 * room + 1e-5 * scale + 1e-5).all()


@settings(deadline=None)
@given(
    zero=st.integers(0, 255),
    step=st.floats(1e-6, 1e6),
    wide=st.booleans(),
    values=st.lists(st.floats(0, 255, width=32), min_size=1, max_size=40),
)
def test_numbers_are_brought_to_the_nearest_step(zero, step, wide, values):
    """From one end of a byte to the other, and a little further."""
    x = ((torch.tensor(values, dtype=torch.float64) - zero) * step).to(torch.float32 if wide else torch.bfloat16)
    exact = x.double() / step + zero
    inside = (exact >= -0.4) & (exact <= 255.4)
    found = in_steps(x, step, zero)
    assert found.dtype == torch.uint8
    assert ((found.double() - exact).abs()[inside] <= 0.5 + 1e-4).all()


@pytest.mark.parametrize("dtype", precisions)
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("shape", [(96,), (1, 96), (2, 50, 96)], ids=str)
def test_it_is_near_the_plain_layer(dtype, gelu, shape):
    x = tokens(*shape).to(dtype)
    found = Int8Linear(layer(gelu))(x)
    assert found.dtype == dtype
    assert distance(found, layer(gelu)(x.float())) < 0.02


def test_a_norm_becomes_part_of_it():
    """Also where its channels are of very different sizes, which bytes in common steps would lose the small ones of."""
    norm = nn.LayerNorm(96, eps=1e-6).requires_grad_(False)
    norm.weight[:] = torch.logspace(-3, 2, 96)
    norm.bias[:] = torch.linspace(-1, 1, 96)
    x, plain = 5 * tokens(2, 50, 96) + 1, layer()
    found = Int8Linear(plain, norm)(plain_norm(norm)(x))
    expected = plain(norm(x))
    assert distance(found, expected) < 0.02
    assert distance(Int8Linear(plain)(norm(x)), expected) > 0.02


@pytest.mark.parametrize("dtype", precisions)
@pytest.mark.parametrize("low", [-126.5, -127.5, -0.5, -254.0])
def test_the_ends_stay_at_their_ends(dtype, low):
    """Whatever the size of a step, also where zero lies between two: beyond a byte's end would be its other end."""
    plain, of_bytes = layer(), Int8Linear(layer())
    for size in torch.linspace(0.01, 120, 300).tolist():
        x = (size * torch.linspace(low, low + 254, 96)).to(dtype).expand(2, 96)
        assert distance(of_bytes(x), plain(x.float())) < 0.05, size


@pytest.mark.parametrize("value", [0.0, -2.5, 7.0])
def test_what_is_the_same_everywhere(value):
    x = torch.full((3, 96), value)
    torch.testing.assert_close(Int8Linear(layer())(x), layer()(x), atol=0.03, rtol=0.02)


def test_parts_that_do_not_lie_side_by_side():
    x = tokens(1, 96, 50).transpose(1, 2)
    assert torch.equal(Int8Linear(layer())(x), Int8Linear(layer())(x.contiguous()))


def test_pictures_of_a_batch_do_not_mix():
    """Though the steps of the one with the largest numbers would be coarser."""
    one, x = Int8Linear(layer()), tokens(3, 50, 96) * torch.tensor([1.0, 30.0, 0.01])[:, None, None]
    assert torch.equal(one(x), torch.cat([one(picture) for picture in x.split(1)]))
    assert distance(one(x)[2], layer()(x[2])) < 0.02


def test_what_torch_takes_by_default_changes_nothing():
    one, x = Int8Linear(layer()), tokens(50, 96)
    expected = one(x)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert torch.equal(one(x), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.bfloat16  # weights are packed there
def test_a_layer_that_was_packed():
    packed = layer().to(torch.bfloat16)
    assert packed.packed is not None
    x = tokens(50, 96)
    assert distance(Int8Linear(packed)(x), layer()(x)) < 0.02


@pytest.mark.parametrize("way", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copied", "pickled"])
def test_copies_are_the_same(way):
    one, x = Int8Linear(layer(gelu=True)), tokens(3, 96)
    assert torch.equal(way(one)(x), one(x))


def test_where_there_are_no_such_products(monkeypatch):
    monkeypatch.setattr(int8, "largest_weight", lambda: None)
    with pytest.raises(UsageError, match="dtype 'int8': this version of torch has no products of bytes"):
        Int8Linear(layer())


@pytest.mark.parametrize("dtype", precisions)
@pytest.mark.parametrize("swiglu", [False, True])
def test_a_backbone_has_nearly_the_same_features(dtype, swiglu):
    torch.manual_seed(0)
    backbone = DinoV2(DinoV2Config("tiny", 64, 3, 2, registers=4, swiglu=swiglu))
    nn.init.normal_(backbone.cls_token)
    for block in backbone.blocks:
        nn.init.normal_(block.norm1.weight)
        nn.init.normal_(block.norm2.bias)
    pixels = 255 * torch.rand(2, 3, 56, 84, generator=torch.Generator().manual_seed(1))
    expected = backbone(pixels)
    assert backbone.precision == torch.float32
    of_bytes = backbone.to_int8().to_int8().to(dtype)
    assert (of_bytes.precision, of_bytes.dtype) == (torch.int8, dtype)
    found = of_bytes(pixels)
    torch.testing.assert_close(torch.cat([of_bytes(picture) for picture in pixels.split(1)]), found)
    assert found.dtype == dtype
    assert 0 < distance(found, expected) < 0.04
    assert F.cosine_similarity(found.float(), expected, dim=1).min() > 0.99


def test_a_backbone_stays_on_its_cpu():
    backbone = DinoV2(DinoV2Config("tiny", 32, 1, 2)).to_int8()
    with pytest.raises(UsageError, match="for CPUs, and this is meta"):
        backbone.to("meta")
    assert backbone.dtype == torch.float32
