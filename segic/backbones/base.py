"""The one protocol that every frozen vision foundation model serves (paper section 3.1, table 3)."""

from typing import Protocol

import torch
from torch import Tensor

from segic.backbones.fovea import Fovea

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class Backbone(Protocol):
    """Images in, dense features out. Frozen: no gradient, always in evaluation mode.

    name:      as in the presets, "dinov2-s".
    stride:    pixels of the input per feature, in both directions; inputs are multiples of it.
    width:     C, channels of the features.
    dtype:     the precision that it runs in and that its features have.
    precision: of its products, which decides speed: as dtype, or int8.
    """

    name: str
    stride: int
    width: int

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def precision(self) -> torch.dtype: ...

    def __call__(self, pixels: Tensor, valid: tuple[int, int] | None = None, fovea: Fovea | None = None) -> Tensor:
        """The features f of eq. 1.

        pixels: (B, 3, H, W) uint8 or floating point, RGB in 0..255; H and W are multiples of `stride`.
        valid:  (height, width) of the top-left part that holds the picture, the rest being padding; None for all of it.
                Padding is zero after normalisation, whatever `pixels` holds there.
        fovea:  which of the (H / stride, W / stride) features are computed at full resolution; of the others four or
                sixteen share one. None for all.
        Returns (B, C, H / stride, W / stride) in the backbone's dtype.
        """
        ...

    def to(self, *, device: torch.device, dtype: torch.dtype) -> "Backbone": ...


def normalise(pixels: Tensor, mean: Tensor, std: Tensor, valid: tuple[int, int] | None, dtype: torch.dtype) -> Tensor:
    """(pixels - mean) / std in float32, then zero outside `valid`, then `dtype`. Shapes as `Backbone.__call__`."""
    out = (pixels.float() - mean).div_(std)
    if valid is not None:
        out[..., valid[0] :, :] = 0
        out[..., valid[1] :] = 0
    return out.to(dtype)
