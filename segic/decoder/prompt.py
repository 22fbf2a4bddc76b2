"""From in-context instructions to the decoder's space: M and P of eq. 6."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segic.decoder.layers import ChannelNorm, FourierPositions, Gelu


def pixel_mask_encoder(width: int) -> nn.Sequential:
    """The paper's M: a propagated mask at the canvas's size, 14 pixels a token -> (N, width, h, w)."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 7, stride=7),
        ChannelNorm(4),
        Gelu(),
        nn.Conv2d(4, 16, 2, stride=2),
        ChannelNorm(16),
        Gelu(),
        nn.Conv2d(16, width, 1),
    )


def token_mask_encoder(width: int, channels: int) -> nn.Sequential:
    """M for dense matching, whose maps have one value a token: (N, channels, h, w) -> (N, width, h, w)."""
    return nn.Sequential(
        nn.Conv2d(channels, 64, 3, padding=1),
        ChannelNorm(64),
        Gelu(),
        nn.Conv2d(64, width, 3, padding=1),
    )


class PromptEncoder(nn.Module):
    """Points (P^p) and propagated masks (M) to tokens and feature maps of the decoder's width.

    point_embeddings: 0 another entity's point, 1 the entity's own, 2 and 3 box corners, which the released files hold
    and SEGIC never uses.
    """

    def __init__(self, width: int, mask_encoder: nn.Sequential):
        super().__init__()
        self.pe_layer = FourierPositions(width)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, width) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, width)
        self.mask_downscaling = mask_encoder
        self.no_mask_embed = nn.Embedding(1, width)

    def points(self, xy: Tensor, own: Tensor) -> Tensor:
        """xy (..., 2) float32 in 0..1 of the canvas, own (...) bool -> (..., width)."""
        negative, positive = (self.point_embeddings.get_parameter(f"{i}.weight")[0] for i in (0, 1))
        label = torch.where(own[..., None], positive, negative)
        return self.pe_layer.encode(xy).to(label.dtype) + label

    def padding_point(self) -> Tensor:
        """(width,): stands at the end of every list of points."""
        return self.not_a_point_embed.weight[0]

    def masks(self, propagated: Tensor | None, shape: Sequence[int]) -> Tensor:
        """Propagated masks (N, P, H, W) -> (N, width, h, w); without any, the embedding that says so in `shape`."""
        if propagated is None:
            return self.no_mask_embed.weight.view(1, -1, 1, 1).expand(shape)
        out: Tensor = self.mask_downscaling(propagated)
        return out if out.shape[-2:] == shape[-2:] else F.interpolate(out, shape[-2:], mode="bilinear")
