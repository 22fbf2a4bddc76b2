"""The metric in which tokens are compared: beyond the paper, an option of a preset.

Cosines over all of DINOv2's features are ruled by what changes from token to token inside any one thing: where it is,
what light falls on it, how its parts differ. Whitened by the covariance inside things, as it is in training pictures,
features are compared by what tells one thing from another; it is Fisher's discriminant (1936) as a metric. Directions
that vary least after that are left out, so the comparisons are cheaper as well. `segic.training.whitening` finds it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segic.parts import by_parts


class Metric(nn.Module):
    """Features (B, C, h, w) -> tokens (B, h * w, D) of length 1, whose products are cosines in the metric. chosen: (T,)
    int64 positions, of those alone: (B, T, D). precision: of the tokens.

    middle: (C,) and root: (C, D), for features of length 1; not trained. Until they are set, root is a random
    projection, which keeps cosines about as they are.
    """

    middle: Tensor
    root: Tensor

    def __init__(self, features: int, width: int):
        super().__init__()
        self.register_buffer("middle", nn.init.zeros_(torch.empty(features)))
        self.register_buffer("root", nn.init.normal_(torch.empty(features, width)))

    def forward(self, features: Tensor, chosen: Tensor | None = None, precision: torch.dtype = torch.float32) -> Tensor:
        return by_parts(lambda part: self._measured(part).to(precision), features.flatten(-2).mT, chosen)

    def _measured(self, tokens: Tensor) -> Tensor:
        centred = F.normalize(tokens.float(), dim=-1) - self.middle.float()
        return F.normalize((centred.to(self.root.dtype) @ self.root).float(), dim=-1)
