"""The metric in which tokens are compared: beyond the paper, an option of a preset.

Cosines over all of DINOv2's features are ruled by what changes from token to token inside any one thing: where it is,
what light falls on it, how its parts differ. Whitened by the covariance inside things, as it is in training pictures,
features are compared by what tells one thing from another; it is Fisher's discriminant (1936) as a metric. Directions
that vary least after that are left out, so the comparisons are cheaper as well. `segic.training.whitening` finds it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AT_ONCE = 256  # tokens that are measured together on a CPU: more would not stay in its cache from step to step


class Metric(nn.Module):
    """Features (B, C, h, w) -> tokens (B, h * w, D) of length 1, whose products are cosines in the metric.

    middle: (C,) and root: (C, D), for features of length 1; not trained. Until they are set, root is a random
    projection, which keeps cosines about as they are.
    """

    middle: Tensor
    root: Tensor

    def __init__(self, features: int, width: int):
        super().__init__()
        self.register_buffer("middle", nn.init.zeros_(torch.empty(features)))
        self.register_buffer("root", nn.init.normal_(torch.empty(features, width)))

    def forward(self, features: Tensor) -> Tensor:
        tokens = features.flatten(-2).transpose(-1, -2)
        rows = AT_ONCE if tokens.device.type == "cpu" else tokens.shape[1]
        return torch.cat([self._measured(part) for part in tokens.split(rows, dim=1)], dim=1)

    def _measured(self, tokens: Tensor) -> Tensor:
        centred = F.normalize(tokens.float(), dim=-1) - self.middle.float()
        return F.normalize((centred.to(self.root.dtype) @ self.root).float(), dim=-1)
