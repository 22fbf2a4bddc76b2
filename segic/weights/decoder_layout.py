"""The 148 tensors of a released SEGIC decoder (a flat state dict; no backbone, no text encoder)."""

from __future__ import annotations

from segic.config import ModelConfig
from segic.decoder import Decoder
from segic.skeleton import without_numbers
from segic.weights.dinov2_layout import Shape

SIGNATURE = "mask_decoder.iou_token.weight"  # a tensor that every SEGIC decoder has and no backbone


def released_shapes(backbone_width: int = 1024) -> dict[str, Shape]:
    """Name to shape of every tensor of a released decoder on a backbone of `backbone_width` channels.

    They are those of the default configuration, whose module has the released names.
    """
    with without_numbers():
        decoder = Decoder(ModelConfig(), backbone_width, backbone_width)
    return {name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()}
