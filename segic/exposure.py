"""Dark pictures, brightened before anything looks at them: a backbone knows things by daylight best.

A clip that fades out and in again, or whose camera adapts, shows the same things at ever other brightness; what is
taken for an object while it can hardly be told apart would be handed on.
"""

import torch.nn.functional as F
from torch import Tensor

STEP = 4  # pixels: one of so many to each side is looked at, and so many of those together
SHARE = 0.02  # of a picture: its bright parts
MOST = 8.0  # times as bright; what is darker still is noise


def brightened(pixels: Tensor, least: float) -> Tensor:
    """(B, 3, H, W) float32, 0..255 -> the same, each picture times what makes its bright parts as bright as `least`;
    as it is where they are, and up to 255. What counts are the brightest spots of some 16 x 16 pixels that are SHARE of
    the picture: a lamp in the night makes no day. `least` of 0 leaves all as it is.
    """
    if not least:
        return pixels
    seen = pixels[:, :, ::STEP, ::STEP].mean(1, keepdim=True)
    spots = F.avg_pool2d(seen, (min(STEP, seen.shape[2]), min(STEP, seen.shape[3]))).flatten(1)
    bright = spots.topk(max(1, round(SHARE * spots.shape[1])), dim=1).values[:, -1]
    gain = (least / bright.clamp(min=least / MOST)).clamp(min=1)
    if pixels.device.type == "cpu" and bool((gain == 1).all()):  # a GPU would have to be waited for
        return pixels
    return (pixels * gain[:, None, None, None]).clamp_(max=255)
