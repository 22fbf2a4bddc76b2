"""Weights that lie as a CPU's products want them: the same numbers, whatever is done with the layer."""

from __future__ import annotations

import copy
import pickle
from multiprocessing import get_context

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segic.backbones import frozen_linear
from segic.backbones.dinov2 import DinoV2, DinoV2Config
from segic.backbones.frozen_linear import FrozenLinear
from segic.backbones.int8 import Int8Linear


def layer() -> FrozenLinear:
    torch.manual_seed(0)
    return FrozenLinear(24, 40).requires_grad_(False)


@pytest.fixture(params=["plain", pytest.param("packed", marks=pytest.mark.bfloat16)])
def half(request, monkeypatch) -> FrozenLinear:
    """A layer in bfloat16, as it comes where nothing can be packed and where it can."""
    if request.param == "plain":
        monkeypatch.setattr(frozen_linear, "_knows_how", lambda: False)
    out = layer().to(torch.bfloat16)
    assert (out.packed is not None) == (request.param == "packed")
    return out


@pytest.mark.parametrize("shape", [(24,), (1, 24), (7, 24), (2, 300, 24), (0, 24), (1, 0, 24)], ids=str)
def test_results_are_those_of_the_plain_layer(half, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = F.linear(x, layer().weight.bfloat16(), layer().bias.bfloat16())
    torch.testing.assert_close(half(x), expected, atol=0, rtol=0)


def test_parts_that_do_not_lie_side_by_side(half):
    """Sums of these may be rounded before the bias is added, or after."""
    x = torch.randn(3, 50, 2, 24, generator=torch.Generator().manual_seed(1)).bfloat16()[:, ::2, 1]
    expected = F.linear(x, layer().weight.bfloat16(), layer().bias.bfloat16())
    torch.testing.assert_close(half(x), expected, atol=2**-6, rtol=2**-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gelu_of_the_result(dtype):
    given = FrozenLinear(24, 40, gelu=True).requires_grad_(False).to(dtype)
    x = torch.randn(50, 24, generator=torch.Generator().manual_seed(1)).to(dtype)
    state = given.state_dict()
    expected = F.gelu(F.linear(x.float(), state["weight"].float(), state["bias"].float()))
    rounding = 1e-6 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(given(x).float(), expected, atol=rounding, rtol=rounding)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copied", "pickled"])
def test_copies_are_the_same(half, way):
    x = torch.ones(3, 24, dtype=torch.bfloat16)
    again = way(half)
    assert torch.equal(again(x), half(x))
    assert (again.packed is None) == (half.packed is None)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(lambda one: one, marks=pytest.mark.bfloat16),
        pytest.param(Int8Linear, marks=pytest.mark.bytes),
    ],
    ids=["packed", "int8"],
)
def test_a_process_that_is_spawned_takes_it(kind):
    """What torch shares with it must live until it has been started."""
    several = (FrozenLinear(24, 24).requires_grad_(False).to(torch.bfloat16) for _ in range(3))
    given = nn.Sequential(*map(kind, several))
    process = get_context("spawn").Process(target=given.forward, args=(torch.ones(3, 24, dtype=torch.bfloat16),))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_state_is_that_of_the_plain_layer(half):
    state = half.state_dict()
    assert set(state) == {"weight", "bias"}
    assert torch.equal(state["weight"], layer().weight.bfloat16())
    other = FrozenLinear(24, 40).requires_grad_(False).to(torch.bfloat16)
    for assign in (False, True):
        other.load_state_dict({"weight": 2 * state["weight"], "bias": state["bias"]}, assign=assign)
        assert torch.equal(other.state_dict()["weight"], 2 * state["weight"])
        x = torch.ones(3, 24, dtype=torch.bfloat16)
        assert torch.equal(other(x), F.linear(x, 2 * state["weight"], state["bias"]))


def test_it_becomes_a_plain_layer_elsewhere(half):
    exact = half.to(torch.float32)
    assert exact.packed is None
    assert torch.equal(exact.weight, layer().weight.bfloat16().float())
    assert not exact.weight.requires_grad
    assert half.to("meta").weight.is_meta


def test_float32_is_left_alone():
    assert layer().to(torch.float32).packed is None


@pytest.mark.bfloat16
@pytest.mark.parametrize("swiglu", [False, True])
def test_a_backbone_has_the_same_features(monkeypatch, swiglu):
    """To the bit, but for those that GELU is taken of before they are rounded."""
    torch.manual_seed(0)
    backbone = DinoV2(DinoV2Config("tiny", 32, 3, 2, registers=4, swiglu=swiglu))
    torch.nn.init.normal_(backbone.cls_token)
    packed = copy.deepcopy(backbone).to(torch.bfloat16)
    monkeypatch.setattr(frozen_linear, "_knows_how", lambda: False)
    plain = backbone.to(torch.bfloat16)
    assert packed.blocks[0].attn.qkv.packed is not None
    assert plain.blocks[0].attn.qkv.packed is None
    pixels = 255 * torch.rand(2, 3, 56, 84, generator=torch.Generator().manual_seed(1))
    found, expected = packed(pixels), plain(pixels)
    assert torch.equal(found, expected) == swiglu
    torch.testing.assert_close(found, expected, atol=2**-4, rtol=2**-5)
