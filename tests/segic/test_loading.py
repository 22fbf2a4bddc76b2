"""From a name to a model, with files of a tiny one."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import segic
from segic.backbones import dinov2
from segic.backbones.dinov2 import DinoV2, DinoV2Config
from segic.errors import SegicError, UsageError
from segic.loading import build_decoder, load_decoder
from segic.presets import PRESETS, Preset
from segic.weights import REGISTRY, load_tensors, save_tensors
from segic.weights.dinov2_layout import LAYOUTS, DinoV2Layout
from segic.weights.registry import WeightFile


@pytest.fixture
def tiny(tmp_path, monkeypatch, dense_config):
    """The registered model "segic-t" and its backbone "tiny"; the arguments of `load_model` that name their files."""
    monkeypatch.setenv("SEGIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(dinov2.CONFIGS, "tiny", DinoV2Config("tiny", width=32, depth=2, heads=2))
    monkeypatch.setitem(LAYOUTS, "tiny", DinoV2Layout("tiny", width=32, depth=2, hidden=128))
    for name, kind in (("tiny", "backbone"), ("segic-t", "decoder")):
        monkeypatch.setitem(REGISTRY, name, WeightFile(name, kind, "MIT", "a test", 1, url="http://127.0.0.1:9/x.pth"))
    monkeypatch.setitem(PRESETS, "segic-t", Preset("segic-t", dense_config, "a test"))
    torch.manual_seed(0)
    backbone = DinoV2(dinov2.CONFIGS["tiny"], dense_config.layers)
    save_tensors(backbone.state_dict(), tmp_path / "backbone.safetensors", {})
    save_decoder(tmp_path / "decoder.safetensors", dense_config, json.dumps(dense_config.as_dict()))
    return {
        "name": "segic-t",
        "weights": tmp_path / "decoder.safetensors",
        "backbone_weights": tmp_path / "backbone.safetensors",
        "device": "cpu",
    }


def save_decoder(path, config, said):
    torch.manual_seed(1)
    tensors = {key: value.half() for key, value in build_decoder(config).state_dict().items()}
    save_tensors(tensors, path, {} if said is None else {"config": said})


def test_a_model_from_its_files(tiny):
    model = segic.load_model(**tiny, dtype="float32")
    assert (model.name, model.config.size, str(model.device), model.dtype) == ("segic-t", 112, "cpu", torch.float32)
    assert model.files == {"decoder": tiny["weights"], "backbone": tiny["backbone_weights"]}
    assert not any(p.requires_grad for p in [*model.decoder.parameters(), *model.backbone.parameters()])
    mask = np.zeros((90, 160), bool)
    mask[20:50, 30:90] = True
    image = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    found = model.segment(image, [segic.Example(image, mask)])
    assert found.masks.shape == (1, 90, 160)
    assert found.ids == (1,)
    assert np.isfinite(found.logits).all()


def test_paths_may_be_text_and_size_is_the_users(tiny):
    given = {**tiny, "weights": str(tiny["weights"]), "backbone_weights": str(tiny["backbone_weights"])}
    assert segic.load_model(**given, size=140).config.size == 140


@pytest.mark.parametrize(
    ("dtype", "instructions", "backbone", "decoder"),
    [
        ("float32", {"avx512_bf16"}, "float32", "float32"),
        ("float32", set(), "float32", "float32"),
        ("auto", {"avx512_bf16"}, "bfloat16", "bfloat16"),
        ("auto", {"amx_tile"}, "bfloat16", "bfloat16"),
        ("auto", set(), "float32", "float32"),
        ("bfloat16", set(), "bfloat16", "float32"),
        pytest.param("int8", set(), "float32", "float32", marks=pytest.mark.bytes),
        pytest.param("int8", {"avx512_bf16"}, "bfloat16", "bfloat16", marks=pytest.mark.bytes),
    ],
)
def test_precision_is_what_was_asked_for(tiny, monkeypatch, dtype, instructions, backbone, decoder):
    """The decoder shares the backbone's bfloat16 only on CPUs that multiply it; positions are float32 in every one."""
    monkeypatch.setattr("segic.devices.cpu_has", instructions.__contains__)
    model = segic.load_model(**tiny, dtype=dtype)
    assert {p.dtype for p in model.backbone.parameters()} == {getattr(torch, backbone)}
    assert {p.dtype for p in model.decoder.parameters()} == {getattr(torch, decoder)}
    if dtype != "auto":
        assert model.precision == getattr(torch, dtype)
    assert model.decoder.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.dtype == torch.float32


@pytest.mark.bytes
def test_bytes_unasked_only_where_they_were_measured(tiny, monkeypatch):
    monkeypatch.setattr("segic.devices.cpu_has", lambda _feature: False)
    monkeypatch.setattr("segic.devices.cpu_multiplies_bytes", lambda: True)
    assert segic.load_model(**tiny).precision == torch.float32
    monkeypatch.setattr("segic.loading.MEASURED_IN_INT8", {"tiny"})
    model = segic.load_model(**tiny)
    assert (model.precision, model.backbone.dtype, model.dtype) == (torch.int8, torch.float32, torch.float32)


def test_a_decoder_in_bfloat16_finds_the_same(tiny):
    model = segic.load_model(**tiny, dtype="float32")
    low = segic.load_model(**tiny, dtype="float32")
    low.decoder.to(torch.bfloat16)
    generator = np.random.default_rng(0)
    mask = np.zeros((90, 160), bool)
    mask[20:50, 30:90] = True
    image = generator.integers(0, 256, (90, 160, 3), np.uint8)
    found = [m.segment(image, [segic.Example(image, mask)]) for m in (model, low)]
    assert found[1].logits.dtype == np.float32
    union = found[0].masks | found[1].masks
    assert union.any()
    assert (found[0].masks & found[1].masks).sum() > 0.97 * union.sum()


def test_the_configuration_is_the_files_own(tiny, released_config, dense_config):
    _, config = load_decoder(tiny["weights"], released_config)
    assert config == dense_config
    save_decoder(tiny["weights"], dense_config, None)
    _, config = load_decoder(tiny["weights"], dense_config)
    assert config == dense_config


@pytest.mark.parametrize("said", ["{", "[]", '{"invented": 1}', '{"matching": 3}', '{"backbone": "no-such"}'])
def test_a_configuration_of_another_version(tiny, said, dense_config):
    save_decoder(tiny["weights"], dense_config, said)
    with pytest.raises(UsageError, match=r"decoder\.safetensors: its configuration"):
        segic.load_model(**tiny)


def test_squares_are_of_whole_patches(tiny, tmp_path, dense_config):
    square = replace(dense_config, canvas="square")
    save_decoder(tmp_path / "square.safetensors", square, json.dumps(square.as_dict()))
    given = {**tiny, "weights": tmp_path / "square.safetensors"}
    assert segic.load_model(**given, size=126).config.size == 126
    with pytest.raises(UsageError, match=r"size 150: segic-t sees squares of .* 14 pixels; give 140 or 154"):
        segic.load_model(**given, size=150)
    with pytest.raises(UsageError, match="give 140 or 154"):  # before a backbone is looked for
        segic.load_model(**{**given, "backbone_weights": tmp_path / "missing.pth"}, size=150)


@pytest.mark.parametrize("size", [1, 111, 2017, -5])
def test_a_size_that_makes_no_sense(tiny, size):
    with pytest.raises(UsageError, match=f"size {size}: expected 112 to 2016"):
        segic.load_model(**tiny, size=size)


@pytest.mark.parametrize("size", ["476", 476.0])
def test_a_size_that_is_no_whole_number(tiny, size):
    with pytest.raises(UsageError, match=f"size {size!r} is a {type(size).__name__}; expected a whole number"):
        segic.load_model(**tiny, size=size)


def test_another_size_of_a_model_is_looked_at_as_well(tiny):
    model = segic.load_model(**tiny)
    with pytest.raises(UsageError, match="size 10: expected 112 to 2016"):
        model.at_size(10)


def test_files_of_something_else(tiny):
    with pytest.raises(UsageError, match="does not hold a decoder"):
        segic.load_model(**{**tiny, "weights": tiny["backbone_weights"]})
    with pytest.raises(UsageError, match=r"decoder\.safetensors: .*not those of tiny"):
        segic.load_model(**{**tiny, "backbone_weights": tiny["weights"]})


def test_a_preset_without_published_weights(tiny, monkeypatch):
    monkeypatch.delitem(REGISTRY, "segic-t")
    assert segic.load_model(**tiny).name == "segic-t"
    with pytest.raises(UsageError, match=r"segic-t \(a test\) comes without weights.*--weights"):
        segic.load_model(**{**tiny, "weights": None})
    with pytest.raises(UsageError, match=r"no\.pth does not exist"):
        segic.load_model(**{**tiny, "weights": "no.pth"})


def test_what_is_not_there_is_named(tiny, tmp_path):
    with pytest.raises(UsageError, match=r"none\.safetensors does not exist"):
        segic.load_model(**{**tiny, "weights": tmp_path / "none.safetensors"})
    with pytest.raises(SegicError, match="tiny is not in the cache"):
        segic.load_model(**{**tiny, "backbone_weights": None}, fetch=False)
    with pytest.raises(UsageError, match="no model is named 'segic-x'"):
        segic.load_model("segic-x")


def test_decoders_are_kept_small_and_run_in_float32(tiny, dense_config):
    """The file holds half precision; nothing of the decoder is left without its numbers."""
    decoder, _ = load_decoder(tiny["weights"], dense_config)
    state = decoder.state_dict()
    assert all(tensor.dtype == torch.float32 and not tensor.is_meta for tensor in state.values())
    stored = load_tensors(tiny["weights"])
    assert all(torch.equal(state[key], stored[key].float()) for key in state)


@pytest.mark.parametrize(("layers", "width"), [((), 32), ((2,), 32), ((1, 2), 64)])
def test_decoder_fits_its_backbone(tiny, dense_config, layers, width):
    decoder = build_decoder(replace(dense_config, layers=layers))
    assert decoder.neck[0].in_channels == decoder.inst_proj.in_features == width


def test_importing_segic_costs_nothing():
    import subprocess
    import sys

    code = "import segic, sys; print(sorted({'torch', 'numpy', 'av', 'cv2', 'onnx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
