"""Conversion to canonical names: .pth, .onnx, .whl; and what is refused."""

import hashlib
import json
import math
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from segic.backbones.dinov2 import CONFIGS, DinoV2
from segic.errors import SegicError, UsageError
from segic.weights import REGISTRY, WeightFile, load_tensors, read_header
from segic.weights.convert import convert
from segic.weights.decoder_layout import released_shapes
from segic.weights.dinov2_layout import LAYOUTS, DinoV2Layout, detect_dinov2
from segic.weights.registry import WheelMember
from segic.weights.resolve import resolve

TINY = DinoV2Layout("dinov2-t", width=8, depth=2, hidden=32)
MEMBER = "fake_focus/models/vit.onnx"
RELEASED = Path(__file__).parents[1] / "data" / "golden" / "segic_dinov2_l_state_dict_shapes.json"


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(LAYOUTS, TINY.name, TINY)


def random_state(shapes):
    return {key: torch.randn(shape) for key, shape in shapes.items()}


def write_onnx(path, state, drop=(), extra=(), more=None):
    """An ONNX file with the names and the transposed linears that the exporter gives transformers' Dinov2.

    drop: tensors left out. extra: further nodes. more: further tensors, or others in the place of those.
    """
    initializers, nodes, instead = [], [], dict(more or {})

    def keep(name, tensor):
        if name not in drop:
            initializers.append(numpy_helper.from_array(instead.pop(name, tensor).numpy().copy(), name))

    def node(op, name, inputs):
        nodes.append(helper.make_node(op, inputs, [name + "_output_0"], name=name))

    def linear(i, name, weight, bias):
        keep(f"backbone.encoder.layer.{i}.{name}.bias", bias)
        keep(f"onnx::MatMul_{len(nodes)}", weight.T)
        full = f"/backbone/encoder/layer.{i}/{name.replace('.', '/')}/MatMul"
        node("MatMul", full, ["x", f"onnx::MatMul_{len(nodes)}"])

    embeddings = "backbone.embeddings."
    keep(embeddings + "cls_token", state["cls_token"])
    keep(embeddings + "patch_embeddings.projection.weight", state["patch_embed.proj.weight"])
    keep(embeddings + "patch_embeddings.projection.bias", state["patch_embed.proj.bias"])
    keep("onnx::Concat_1", state["pos_embed"][:, :1])
    keep("onnx::Reshape_1", state["pos_embed"][:, 1:])
    node("Concat", "/backbone/embeddings/Concat_6", ["onnx::Concat_1", "y"])
    node("Reshape", "/backbone/embeddings/Reshape_1", ["onnx::Reshape_1", "shape"])
    for i in range(TINY.depth):
        ours, theirs = f"blocks.{i}.", f"encoder.layer.{i}."
        qkv = zip(state[ours + "attn.qkv.weight"].chunk(3), state[ours + "attn.qkv.bias"].chunk(3), strict=True)
        for part, (weight, bias) in zip(("query", "key", "value"), qkv, strict=True):
            linear(i, f"attention.attention.{part}", weight, bias)
        for a, b in (("attn.proj", "attention.output.dense"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2")):
            linear(i, b, state[f"{ours}{a}.weight"], state[f"{ours}{a}.bias"])
        for n in (1, 2):
            keep(f"backbone.{theirs}layer_scale{n}.lambda1", state[f"{ours}ls{n}.gamma"])
            keep(f"backbone.{theirs}norm{n}.weight", state[f"{ours}norm{n}.weight"])
            keep(f"backbone.{theirs}norm{n}.bias", state[f"{ours}norm{n}.bias"])
    keep("backbone.layernorm.weight", state["norm.weight"])
    keep("backbone.layernorm.bias", state["norm.bias"])
    keep("decoder.of.the.wheel", torch.zeros(3))
    for name in list(instead):
        keep(name, instead[name])
    nodes.extend(extra)
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [], [], initializers)), str(path))
    return path


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_layouts_are_those_of_the_backbones(name):
    with torch.device("meta"):
        state = DinoV2(CONFIGS[name]).state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert shapes == LAYOUTS[name].shapes()
    assert detect_dinov2(shapes).name == name
    tensors = 4 * sum(math.prod(shape) for shape in shapes.values())
    assert abs(REGISTRY[name].size_bytes - tensors) < 0.03 * tensors


def test_released_decoder_layout():
    shapes = released_shapes()
    assert len(shapes) == 148
    assert sum(math.prod(shape) for shape in shapes.values()) == 5_377_764


def test_released_decoder_layout_against_the_file():
    assert {key: list(shape) for key, shape in released_shapes().items()} == json.loads(RELEASED.read_text())


def test_official_backbone(tmp_path):
    state = random_state(TINY.shapes())
    source = tmp_path / "dinov2_vitt14_pretrain.pth"
    torch.save({**state, "mask_token": torch.zeros(1, 8)}, source)
    converted = convert(source)
    assert converted.name == "dinov2-t"
    converted.save(tmp_path / "out.safetensors")
    assert_same(load_tensors(tmp_path / "out.safetensors"), state)
    _, metadata = read_header(tmp_path / "out.safetensors")
    assert metadata["format"] == "dinov2"
    assert metadata["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert_same(convert(tmp_path / "out.safetensors").tensors, state)


def test_old_pickle_format_and_half_precision(tmp_path):
    state = random_state(TINY.shapes())
    torch.save({k: v.half() for k, v in state.items()}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert_same(convert(tmp_path / "a.pth").tensors, {k: v.half().float() for k, v in state.items()})


def test_tensors_that_share_memory(tmp_path):
    state = random_state(TINY.shapes())
    together = torch.stack([state["norm.weight"], state["norm.bias"]])
    torch.save({**state, "norm.weight": together[0], "norm.bias": together[1]}, tmp_path / "a.pth")
    convert(tmp_path / "a.pth").save(tmp_path / "out.safetensors")
    assert_same(load_tensors(tmp_path / "out.safetensors"), state)


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path):
    state = random_state(TINY.shapes())
    del state["blocks.1.ls2.gamma"]
    state["head.weight"] = torch.zeros(3)
    state["norm.bias"] = torch.zeros(9)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(UsageError) as caught:
        convert(tmp_path / "a.pth")
    for part in (
        "a.pth",
        "missing (1): blocks.1.ls2.gamma",
        "unexpected (1): head.weight",
        "norm.bias is (9,)",
        "(8,)",
    ):
        assert part in str(caught.value)


def test_another_variant_than_asked(tmp_path):
    torch.save(random_state(TINY.shapes()), tmp_path / "a.pth")
    with pytest.raises(UsageError, match="those of dinov2-t, expected dinov2-b"):
        convert(tmp_path / "a.pth", "dinov2-b")


@pytest.mark.parametrize("name", ["segic-l-80k", "segic-l-160k"])
def test_released_decoder(tmp_path, name):
    state = random_state(released_shapes())
    source = tmp_path / f"segic_dinov2_l_{name.rsplit('-', 1)[1]}x12e.pth"
    torch.save(state, source)
    converted = convert(source)
    converted.save(tmp_path / "out.safetensors")
    assert_same(load_tensors(tmp_path / "out.safetensors"), state)
    _, metadata = read_header(tmp_path / "out.safetensors")
    assert (metadata["format"], metadata["preset"]) == ("segic", name)


def test_released_decoder_under_another_name(tmp_path):
    torch.save(random_state(released_shapes()), tmp_path / "mine.pth")
    with pytest.raises(UsageError, match="segic-l-80k or segic-l-160k"):
        convert(tmp_path / "mine.pth")
    assert convert(tmp_path / "mine.pth", "segic-l-160k").name == "segic-l-160k"
    with pytest.raises(UsageError, match="expected dinov2-l"):
        convert(tmp_path / "mine.pth", "dinov2-l")


def test_a_released_decoder_is_not_taken_for_the_other(tmp_path):
    source = tmp_path / "segic_dinov2_l_80kx12e.pth"
    torch.save(random_state(released_shapes()), source)
    with pytest.raises(UsageError, match=r"80kx12e\.pth is, by its name, .* segic-l-80k, expected segic-l-160k"):
        convert(source, "segic-l-160k")
    assert convert(source, "segic-l-80k").name == "segic-l-80k"
    both = source.rename(tmp_path / "80k-or-160k.pth")  # says nothing
    assert convert(both, "segic-l-160k").name == "segic-l-160k"


def test_decoder_on_another_backbone_is_refused(tmp_path):
    torch.save(random_state(released_shapes(768)), tmp_path / "80k.pth")
    with pytest.raises(UsageError, match=r"neck\.0\.weight is \(256, 768, 1, 1\), expected \(256, 1024, 1, 1\)"):
        convert(tmp_path / "80k.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"cls_token": torch.zeros(1)}}, "keys model, expected a flat state dict"),
        ([torch.zeros(1)], "expected a flat state dict"),
        ({"weight": torch.zeros(1)}, "no tensor 'cls_token'"),
        ({"cls_token": torch.zeros(1, 1, 5)}, r"\(1, 1, 5\): no DINOv2 variant"),
        ({"path": Path("x")}, "plain tensors only"),
    ],
)
def test_other_pickles_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UsageError, match=message) as refused:
        convert(tmp_path / "a.pth")
    assert "weights_only" not in str(refused.value)  # PyTorch's advice, which would run the file's code


def test_a_decoder_of_segics_own_needs_no_conversion():
    with pytest.raises(UsageError, match=r"segic-s\.safetensors is a decoder that segic wrote.*--weights"):
        convert(resolve("segic-s"))


@pytest.mark.parametrize("suffix", [".pth", ".onnx", ".whl", ".safetensors", ".bin"])
def test_files_that_are_something_else(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"<html>not found</html>" * 10)
    with pytest.raises(SegicError, match=r"a\."):
        convert(path)
    with pytest.raises(UsageError, match=r"nothing\.pth does not exist"):
        convert(tmp_path / "nothing.pth")
    with pytest.raises(UsageError, match="is a folder"):
        convert(tmp_path)


def test_onnx(tmp_path):
    state = random_state(TINY.shapes())
    converted = convert(write_onnx(tmp_path / "a.onnx", state))
    assert converted.name == "dinov2-t"
    assert_same(converted.tensors, state)


@pytest.mark.parametrize(
    "name",
    ["backbone.encoder.layer.1.mlp.fc1.bias", "onnx::Reshape_1", "onnx::MatMul_4", "backbone.embeddings.cls_token"],
)
def test_onnx_with_a_missing_tensor(tmp_path, name):
    path = write_onnx(tmp_path / "a.onnx", random_state(TINY.shapes()), drop=(name,))
    with pytest.raises(UsageError, match=r"is missing|0 initializers"):
        convert(path)


def test_onnx_with_a_node_twice(tmp_path):
    twice = helper.make_node("Reshape", ["a", "b"], ["c"], name="/backbone/embeddings/Reshape_1")
    path = write_onnx(tmp_path / "a.onnx", random_state(TINY.shapes()), extra=[twice])
    with pytest.raises(UsageError, match="occurs twice"):
        convert(path)


def test_onnx_with_another_dtype(tmp_path):
    state = random_state(TINY.shapes())
    state["norm.bias"] = torch.from_numpy(np.zeros(8))
    with pytest.raises(UsageError, match="float64, expected float32"):
        convert(write_onnx(tmp_path / "a.onnx", state))


def test_onnx_with_register_tokens(tmp_path):
    """Refused: without them it would pass for the plain variant."""
    state = random_state(TINY.shapes())
    path = write_onnx(tmp_path / "a.onnx", state, more={"backbone.embeddings.register_tokens": torch.zeros(1, 4, 8)})
    with pytest.raises(UsageError, match=r"a\.onnx: the graph has register tokens \(backbone\.emb.*reg4_pretrain\.pth"):
        convert(path)


@pytest.mark.parametrize("patches", [16 * 16, 37 * 37 * 2, 0])
def test_onnx_with_a_position_embedding_of_another_grid(tmp_path, patches):
    state = random_state(TINY.shapes())
    state["pos_embed"] = torch.zeros(1, 1 + patches, 8)
    said = rf"Reshape_1 has the shape \(1, {patches}, 8\), expected 1369 x 8: .* 518 x 518"
    with pytest.raises(UsageError, match=said):
        convert(write_onnx(tmp_path / "a.onnx", state))


def test_onnx_with_tensors_that_do_not_fit_together(tmp_path):
    state = random_state(TINY.shapes())
    path = write_onnx(tmp_path / "a.onnx", state, more={"onnx::MatMul_2": torch.zeros(9, 9)})
    with pytest.raises(UsageError, match=r"a\.onnx is no export of a Dinov2Model, or damaged: "):
        convert(path)


def make_wheel(folder, state):
    """A wheel that holds the ONNX file, and its registry entry."""
    path = folder / "fake_focus-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(write_onnx(folder / "vit.onnx", state), MEMBER)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return path, WeightFile(
        "dinov2-t", "backbone", "MIT", "a test", 1, wheel=WheelMember("fake-focus", "1.0", MEMBER), sha256=sha256
    )


def test_wheel(tmp_path, monkeypatch):
    state = random_state(TINY.shapes())
    path, file = make_wheel(tmp_path, state)
    monkeypatch.setitem(REGISTRY, "dinov2-t", file)
    converted = convert(path, "dinov2-t")
    assert_same(converted.tensors, state)
    assert converted.metadata["source_sha256"] == file.sha256


def test_wheel_with_a_wrong_hash(tmp_path):
    path, file = make_wheel(tmp_path, random_state(TINY.shapes()))
    with pytest.raises(SegicError, match="wrong sha256: expected 90a0b02e.*, found " + file.sha256):
        convert(path)
    with pytest.raises(UsageError, match="segic-l-80k does not come in a wheel"):
        convert(path, "segic-l-80k")
