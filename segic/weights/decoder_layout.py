"""The 148 tensors of a released SEGIC decoder (a flat state dict; no backbone, no text encoder)."""

from __future__ import annotations

from segic.weights.dinov2_layout import Shape

WIDTH = 256  # channels of the decoder
INNER = 128  # inner width of the attentions between tokens and image
MLP = 2048
MASK_TOKENS = 4
TEXT = 768  # width of the CLIP ViT-L/14 text feature
SIGNATURE = "mask_decoder.iou_token.weight"  # a tensor that every SEGIC decoder has and no backbone


def released_shapes(backbone_width: int = 1024) -> dict[str, Shape]:
    """Name to shape of every tensor of a released decoder on a backbone of `backbone_width` channels."""
    shapes: dict[str, Shape] = {
        "neck.0.weight": (WIDTH, backbone_width, 1, 1),
        "neck.2.weight": (WIDTH, WIDTH, 3, 3),
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": (2, WIDTH // 2),
        "prompt_encoder.not_a_point_embed.weight": (1, WIDTH),
        "prompt_encoder.no_mask_embed.weight": (1, WIDTH),
        "mask_decoder.iou_token.weight": (1, WIDTH),
        "mask_decoder.mask_tokens.weight": (MASK_TOKENS, WIDTH),
        "inst_type_embed.weight": (2, WIDTH),
    }
    for i in range(4):
        shapes[f"prompt_encoder.point_embeddings.{i}.weight"] = (1, WIDTH)
    for name in ("neck.1", "neck.3"):
        _norm(shapes, name, WIDTH)

    mask = "prompt_encoder.mask_downscaling."
    _layer(shapes, mask + "0", (4, 1, 7, 7))
    _norm(shapes, mask + "1", 4)
    _layer(shapes, mask + "3", (16, 4, 2, 2))
    _norm(shapes, mask + "4", 16)
    _layer(shapes, mask + "6", (WIDTH, 16, 1, 1))

    transformer = "mask_decoder.transformer."
    for i in range(2):
        layer = f"{transformer}layers.{i}."
        _attention(shapes, layer + "self_attn", WIDTH)
        _attention(shapes, layer + "cross_attn_token_to_image", INNER)
        _attention(shapes, layer + "cross_attn_image_to_token", INNER)
        _layer(shapes, layer + "mlp.lin1", (MLP, WIDTH))
        _layer(shapes, layer + "mlp.lin2", (WIDTH, MLP))
        for n in range(1, 5):
            _norm(shapes, f"{layer}norm{n}", WIDTH)
    _attention(shapes, transformer + "final_attn_token_to_image", INNER)
    _norm(shapes, transformer + "norm_final_attn", WIDTH)

    upscaling = "mask_decoder.output_upscaling."  # transposed convolutions: (in, out, kernel, kernel)
    shapes |= {upscaling + "0.weight": (WIDTH, 64, 2, 2), upscaling + "0.bias": (64,)}
    _norm(shapes, upscaling + "1", 64)
    shapes |= {upscaling + "3.weight": (64, 32, 2, 2), upscaling + "3.bias": (32,)}
    heads = {f"mask_decoder.output_hypernetworks_mlps.{i}": 32 for i in range(MASK_TOKENS)}
    heads["mask_decoder.iou_prediction_head"] = MASK_TOKENS
    for name, out in heads.items():
        for i, width in enumerate((WIDTH, WIDTH, out)):
            _layer(shapes, f"{name}.layers.{i}", (width, WIDTH))

    _layer(shapes, "prompt_proj", (WIDTH, TEXT))
    _layer(shapes, "inst_proj", (WIDTH, backbone_width))
    return shapes


def _layer(shapes: dict[str, Shape], name: str, weight: Shape) -> None:
    shapes[name + ".weight"] = weight
    shapes[name + ".bias"] = weight[:1]


def _norm(shapes: dict[str, Shape], name: str, width: int) -> None:
    shapes[name + ".weight"] = shapes[name + ".bias"] = (width,)


def _attention(shapes: dict[str, Shape], name: str, inner: int) -> None:
    for part in ("q_proj", "k_proj", "v_proj"):
        _layer(shapes, f"{name}.{part}", (inner, WIDTH))
    _layer(shapes, f"{name}.out_proj", (WIDTH, inner))
