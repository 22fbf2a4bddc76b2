"""Nearest-neighbour matching of points by the cosine of a backbone's features."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .spair71k import Match

if TYPE_CHECKING:
    from segic.model import SEGIC, Encoded


def feature_matching(model: "SEGIC") -> Match:
    """Each source point's feature (bilinear) is compared with those of all target tokens; the best one's centre is the
    match. Pictures go through the model's own canvas.
    """
    import torch
    import torch.nn.functional as F

    from segic.images import to_batch

    def encode(pixels: NDArray[np.uint8]) -> "Encoded":
        return model.encode(to_batch(pixels))[0]

    def match(source: NDArray[np.uint8], target: NDArray[np.uint8], points: NDArray[np.float64]) -> NDArray[np.float64]:
        one, two = encode(source), encode(target)
        # Pixels of the picture to -1..1 of the padded canvas, where the features lie.
        scale = np.array([one.canvas.picture[1] / one.canvas.frame[1], one.canvas.picture[0] / one.canvas.frame[0]])
        size = np.array([one.canvas.padded[1], one.canvas.padded[0]])
        where = torch.from_numpy(2 * (points + 0.5) * scale / size - 1).to(one.features)
        wanted = F.grid_sample(
            one.features, where[None, None], mode="bilinear", padding_mode="border", align_corners=False
        )[0, :, 0]
        rows, columns = two.grid
        similarity = F.normalize(wanted, dim=0).T @ F.normalize(two.features[0].flatten(1), dim=0)
        # Tokens whose centre lies on the padding are no candidates.
        step = two.canvas.padded[0] / rows, two.canvas.padded[1] / columns
        y, x = (torch.arange(n) + 0.5 for n in two.grid)
        inside = (
            (y * step[0] < two.canvas.picture[0])[:, None] & (x * step[1] < two.canvas.picture[1])[None]
        ).flatten()
        best = similarity.masked_fill(~inside.to(similarity.device), -2).argmax(1).cpu().numpy()
        centre = np.stack([(best % columns + 0.5) * step[1], (best // columns + 0.5) * step[0]], axis=1)
        back = np.array([two.canvas.frame[1] / two.canvas.picture[1], two.canvas.frame[0] / two.canvas.picture[0]])
        found: NDArray[np.float64] = centre * back - 0.5
        return found

    return match
