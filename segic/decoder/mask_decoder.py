"""The query-based mask decoder D (eq. 5 and 7, algorithm 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segic.decoder.layers import ChannelNorm, Gelu, Mlp, as_map
from segic.decoder.transformer import TwoWayTransformer
from segic.decoder.view import Beyond

MASK_TOKENS = 4  # of which only the first is used; the released files hold all four


class MaskDecoder(nn.Module):
    """Object query and instruction tokens against the image: one mask and one score an entity."""

    def __init__(self, width: int = 256):
        super().__init__()
        self.transformer = TwoWayTransformer(width)
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(MASK_TOKENS, width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, stride=2),
            ChannelNorm(width // 4),
            Gelu(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2),
            Gelu(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(Mlp(width, width, width // 8) for _ in range(MASK_TOKENS))
        self.iou_prediction_head = Mlp(width, 256, MASK_TOKENS)

    def forward(
        self, image: Tensor, image_pe: Tensor, tokens: Tensor, beyond: Beyond | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """image f' (N, C, h, w), image_pe (1 or N, C, h, w), tokens (N, T, C) -> logits (N, 1, 4h, 4w), scores (N,),
        and the upscaled image features (N, C / 8, 4h, 4w) that the mask was read from. beyond: what the image is a
        part of, which the tokens see as well.
        """
        n, _, h, w = image.shape
        queries = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(n, -1, -1)
        flat, position, counts = image.flatten(2).mT, image_pe.flatten(2).mT, None
        if beyond is not None:
            flat = torch.cat([flat, beyond.around.image], dim=1)
            position = torch.cat([position, beyond.around.position.expand(n, -1, -1)], dim=1)
            counts = F.pad(beyond.counts, (h * w, 0)).to(flat.dtype)
        out, flat = self.transformer(flat, position, torch.cat([queries, tokens], dim=1), counts)
        upscaled = self.output_upscaling(as_map(flat[:, : h * w], h, w))
        kernel = self.output_hypernetworks_mlps[0](out[:, 1])
        # Token by token, as they lie in memory: einsum would copy them first, which takes longer than the products.
        logits = torch.bmm(upscaled.flatten(2).mT, kernel[..., None]).view(n, 1, 4 * h, 4 * w)
        scores = self.iou_prediction_head(out[:, 0])[:, 0]
        return logits, scores, upscaled
