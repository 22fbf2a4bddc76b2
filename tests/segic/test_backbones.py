"""DINOv2: any size, frozen, and the same numbers as the model library's."""

from __future__ import annotations

import zlib

import pytest
import torch
import torch.nn.functional as F

from segic.backbones import build_backbone, width_of
from segic.backbones.base import IMAGENET_MEAN, IMAGENET_STD, normalise
from segic.backbones.dinov2 import CONFIGS, KEPT, DinoV2, DinoV2Config, halved, resample_positions
from segic.errors import UsageError
from segic.weights.tensors import save_tensors

TINY = DinoV2Config("tiny", width=32, depth=3, heads=2)
KINDS = {
    "plain": TINY,
    "registers": DinoV2Config("tiny-reg", 32, 3, 2, registers=4),
    "swiglu": DinoV2Config("tiny-g", 32, 3, 2, swiglu=True),
}


def build(config=TINY, layers=()) -> DinoV2:
    """Random weights, those that start as zero or one too; the same whichever blocks there are."""
    backbone = DinoV2(config, layers)
    for name, parameter in backbone.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return backbone


def picture(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(14, 14), (14, 70), (28, 42), (518, 14)])
def test_any_size_that_the_patches_allow(kind, size):
    features = build(KINDS[kind])(picture(2, 3, *size))
    assert features.shape == (2, 32, size[0] // 14, size[1] // 14)
    assert features.dtype == torch.float32
    assert features.isfinite().all()


def test_layers_are_concatenated_in_the_order_asked_for():
    pixels = picture(1, 3, 28, 42)
    backbone = build(layers=(3, 1))
    assert backbone.width == 64
    features = backbone(pixels)
    assert torch.equal(features[:, :32], build()(pixels))
    assert torch.equal(features[:, 32:], build(layers=(1,))(pixels))


def test_blocks_after_the_last_layer_are_not_built(registered, tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_tensors(build().state_dict(), path, {})
    backbone, pixels = build_backbone("tiny", (1, 2), path), picture(1, 3, 28, 42)
    assert len(backbone.blocks) == 2
    assert torch.equal(backbone(pixels), build(layers=(1, 2))(pixels))


def test_pictures_of_a_batch_do_not_mix():
    pixels = picture(3, 3, 28, 42)
    backbone = build()
    together = backbone(pixels)
    for i in range(3):
        torch.testing.assert_close(backbone(pixels[i : i + 1]), together[i : i + 1], atol=1e-5, rtol=1e-5)


def test_padding_is_zero_after_normalisation():
    """Whatever the pixels hold there; and it is not the same as a black picture."""
    pixels = picture(1, 3, 28, 42)
    backbone = build()
    features = backbone(pixels, (20, 30))
    other = pixels.clone()
    other[..., 20:, :] = 7
    other[..., 30:] = 9
    assert torch.equal(backbone(other, (20, 30)), features)
    assert not torch.equal(backbone(other), features)
    assert torch.equal(backbone(pixels, (28, 42)), backbone(pixels))


def test_normalise():
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    pixels = picture(1, 3, 4, 5)
    out = normalise(pixels, mean, std, (3, 2), torch.bfloat16)
    assert out.dtype == torch.bfloat16
    expected = (pixels / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    torch.testing.assert_close(out[..., :3, :2].float(), expected[..., :3, :2], atol=0.02, rtol=0)
    assert not out[..., 3:, :].any()
    assert not out[..., 2:].any()


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (2, 3), (1, 4)], ids=str)
def test_halved_is_the_mean_of_two_by_two(size):
    picture = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(3))
    expected = F.avg_pool2d(picture, 2) if min(size) > 1 else picture[:, :, :0, : size[1] // 2]
    torch.testing.assert_close(halved(picture), expected)


def test_frozen():
    backbone = build()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert backbone.train() is backbone
    assert not any(module.training for module in backbone.modules())
    features = backbone(picture(1, 3, 14, 14).float().requires_grad_())
    assert not features.requires_grad


def test_not_saved_with_the_decoder(dense_model):
    names = set(dense_model.decoder.state_dict())
    assert not names & set(dense_model.backbone.state_dict())
    assert not any("backbone" in name for name in names)


def test_positions_follow_the_dtype_and_the_weights():
    """Positions are kept per size; a converted model must not use those of the old precision."""
    backbone = build()
    pixels = picture(1, 3, 28, 42)
    exact = backbone(pixels)
    low = backbone.to(torch.bfloat16)(pixels)
    assert low.dtype == torch.bfloat16
    assert (low.float() - exact).square().mean() < 0.01 * exact.var()


def test_positions_of_a_few_sizes_are_kept():
    backbone = build()
    first = backbone(picture(1, 3, 28, 42))
    for side in range(1, 2 * KEPT):
        backbone(picture(1, 3, 14 * side, 14))
    assert len(backbone._positions) == KEPT
    assert torch.equal(backbone(picture(1, 3, 28, 42)), first)


def test_position_resampling_rule():
    """By the factor (n + 0.1) / 37, bicubic, no antialiasing: the official code's, and about 10 % from others.

    The factor, not the size, places the samples; the size it comes to is n all the same.
    """
    grid = torch.randn(1, 8, 37, 37, generator=torch.Generator().manual_seed(0))
    found = resample_positions(grid, 34, 60, offset=True)
    assert found.shape == (1, 8, 34, 60)
    expected = F.interpolate(
        grid, scale_factor=(34.1 / 37, 60.1 / 37), mode="bicubic", recompute_scale_factor=False, antialias=False
    )
    assert torch.equal(found, expected)
    by_size = F.interpolate(grid, size=(34, 60), mode="bicubic")
    assert (found - by_size).abs().mean() > 0.01
    registers = resample_positions(grid, 34, 60, offset=False)
    assert torch.equal(registers, F.interpolate(grid, size=(34, 60), mode="bicubic", antialias=True))
    assert resample_positions(grid, 37, 37, offset=True) is grid


@pytest.mark.parametrize("sides", [range(1, 72), range(72, 145)], ids=["small", "large"])
def test_position_resampling_comes_to_every_size(sides):
    grid = torch.zeros(1, 1, 37, 37)
    for n in sides:
        assert resample_positions(grid, n, 1, offset=True).shape[-2:] == (n, 1)


OUTSIDE = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "register_tokens": "embeddings.register_tokens",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
INSIDE = {"ls1.gamma": "layer_scale1.lambda1", "ls2.gamma": "layer_scale2.lambda1"}
# The library's names changed with its version 5. Of several names, each takes its share of the tensor.
FROM_5 = {
    "attn.qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attn.proj": ("attention.o_proj",),
    "mlp.w12": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.w3": ("mlp.down_proj",),
}
BEFORE_5 = {
    "attn.qkv": tuple(f"attention.attention.{name}" for name in ("query", "key", "value")),
    "attn.proj": ("attention.output.dense",),
    "mlp.w12": ("mlp.weights_in",),
    "mlp.w3": ("mlp.weights_out",),
}


def into_transformers(backbone: DinoV2, version: int) -> dict[str, torch.Tensor]:
    """The weights under the names that transformers gives them."""
    several = FROM_5 if version >= 5 else BEFORE_5
    out = {}
    for key, value in backbone.state_dict().items():
        if not key.startswith("blocks."):
            name, _, last = key.rpartition(".")
            out[OUTSIDE[key] if key in OUTSIDE else f"{OUTSIDE[name]}.{last}"] = value
            continue
        _, number, rest = key.split(".", 2)
        name, last = rest.rsplit(".", 1)
        names = [f"{new}.{last}" for new in several.get(name, ())] or [INSIDE.get(rest, rest)]
        for new, part in zip(names, value.chunk(len(names)), strict=True):
            out[f"encoder.layer.{number}.{new}"] = part
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_same_as_transformers(kind):
    """At the position embedding's own 37 x 37 patches, where nothing is resampled."""
    transformers = pytest.importorskip("transformers")
    config = KINDS[kind]
    name = "Dinov2WithRegisters" if config.registers else "Dinov2"
    if not hasattr(transformers, name + "Model"):
        pytest.skip(f"this version of transformers has no {name}")
    options = {"num_register_tokens": config.registers} if config.registers else {}
    theirs = getattr(transformers, name + "Model")(
        getattr(transformers, name + "Config")(
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            mlp_ratio=4,
            image_size=518,
            patch_size=14,
            use_swiglu_ffn=config.swiglu,
            **options,
        )
    ).eval()
    ours = build(config)
    version = int(transformers.__version__.split(".")[0])
    missing, unexpected = theirs.load_state_dict(into_transformers(ours, version), strict=False)
    assert missing == ["embeddings.mask_token"]
    assert not unexpected
    pixels = picture(1, 3, 518, 518)
    with torch.no_grad():
        hidden = theirs((pixels - ours.mean) / ours.std).last_hidden_state[:, 1 + config.registers :]
    torch.testing.assert_close(ours(pixels).flatten(2).transpose(1, 2), hidden, atol=2e-4, rtol=1e-4)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr("segic.backbones.dinov2.CONFIGS", {**CONFIGS, "tiny": TINY})


def test_built_from_a_file(registered, tmp_path):
    path = tmp_path / "tiny.safetensors"
    source = build(layers=(1, 3))
    # The official files hold a token for masked training, which is not used.
    save_tensors({**source.state_dict(), "mask_token": torch.zeros(1, 32)}, path, {})
    backbone = build_backbone("tiny", (1, 3), path)
    pixels = picture(1, 3, 28, 42)
    assert torch.equal(backbone(pixels), source(pixels))
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(tensor.is_meta for tensor in [*backbone.parameters(), *backbone.buffers()])
    moved = backbone.to(device=torch.device("cpu"), dtype=torch.bfloat16)
    assert moved(pixels).dtype == torch.bfloat16


def test_a_file_of_something_else(registered, tmp_path):
    path = tmp_path / "other.safetensors"
    save_tensors({"cls_token": torch.zeros(1, 1, 32)}, path, {})
    with pytest.raises(UsageError, match="does not hold the weights of tiny"):
        build_backbone("tiny", (), path)


def test_widths():
    assert width_of("dinov2-s") == 384
    assert width_of("dinov2-g-reg") == 1536


@pytest.mark.parametrize("call", [width_of, lambda name: build_backbone(name, (), None)])
def test_unknown_name(call):
    with pytest.raises(UsageError, match=r"no backbone is named 'resnet'; there are dinov2-s"):
        call("resnet")


@pytest.mark.parametrize("name", CONFIGS)
def test_layout_is_the_official_one(name):
    """The tensors that the weights' converter checks for are those that the module has."""
    from segic.weights.dinov2_layout import LAYOUTS

    with torch.device("meta"):
        own = {key: tuple(tensor.shape) for key, tensor in DinoV2(CONFIGS[name]).state_dict().items()}
    official = dict(LAYOUTS[name].shapes())
    official.pop("mask_token", None)
    assert own == official


@pytest.mark.parametrize("layers", [(0,), (1, 4), (-1,)])
def test_layers_that_there_are_not(layers):
    with pytest.raises(UsageError, match=r"layers \[.*\]: tiny has the layers 1 to 3; give some of these"):
        DinoV2(TINY, layers)
