"""Sharpening by the picture itself: beyond the paper, an option of a preset.

The backbone's features have one vector for 14 x 14 pixels. This branch looks at the picture at twice the logits'
resolution and corrects each entity's logits near edges. All that it is told about the entity are its logits, what the
mask decoder knows there, and the last frame's mask, where the model carries masks.
"""

from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segic.decoder.layers import ChannelNorm, Gelu, beside
from segic.decoder.places import Place, cut, ends, widened

REACH = 3.0  # logits further below 0 never rise above it by the branch: in five clips none further than 1 did
SEEN = 4  # pixels around one that decide what the branch makes of it
LARGEST = 8  # pixels: sides of windows that are worth a convolution
STEP = 64  # pixels: sides of the parts are multiples of it, as a CPU prepares its products anew for every size


class DetailBranch(nn.Module):
    """Two small networks: `stem` runs once a frame, the rest once an entity.

    channels: width of both. context: channels of what is known of an entity beside its logits. The refinement starts as
    zero, so an untrained branch changes nothing.
    """

    def __init__(self, channels: int, context: int):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels, 5, stride=2, padding=2),
            ChannelNorm(channels),
            Gelu(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.enter = nn.Conv2d(1 + context, channels, 3, padding=1)
        self.mix = nn.Sequential(
            Gelu(),
            nn.Conv2d(channels, channels, 3, padding=2, dilation=2),
            Gelu(),
            nn.Conv2d(channels, channels, 3, padding=1),
            Gelu(),
        )
        self.leave = nn.Conv2d(channels, 1, 1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def frame(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, 3, H, W) float canvas pixels in 0..255 -> (B, channels, 4h, 4w) for a token grid (h, w), in the branch's
        own precision.
        """
        size = (8 * grid[0], 8 * grid[1])
        small = shrink(pixels, size) if pixels.shape[-2:] != size else pixels
        scaled = ((small - 116.0) / 57.0).to(self.leave.weight.dtype)
        out: Tensor = self.stem(scaled.contiguous(memory_format=torch.channels_last))
        return out

    def forward(self, logits: Tensor, upscaled: Tensor, frame: Tensor, carried: Tensor | None = None) -> Tensor:
        """logits (N, 1, 4h, 4w) float32, upscaled (N, C, 4h, 4w), frame (N or 1, channels, 4h, 4w), carried
        (N, 1, 4h, 4w) where masks are carried -> refined logits, float32.
        """
        squashed = (logits / 5).tanh().to(upscaled.dtype)
        # Channels side by side: on CPUs these thin convolutions are then up to twice as fast. Not in training: there
        # torch 2.13 leaves the gradient of a dilated bfloat16 convolution's weight unset, which may be anything.
        layout = torch.contiguous_format if torch.is_grad_enabled() else torch.channels_last
        known = [squashed, upscaled] if carried is None else [squashed, upscaled, carried]
        x = beside(known, layout)
        mixed = self.mix((self.enter(x) + frame).contiguous(memory_format=layout))
        out: Tensor = logits + self.leave(mixed)
        return out

    def in_boxes(self, logits: Tensor, upscaled: Tensor, frame: Tensor, carried: Tensor | None = None) -> Tensor:
        """As the call, but for each entity only in the box of what may be its own; elsewhere its logits stay as they
        are, far below 0. For CPUs: there small pictures, all of one size, cost less than a large one.
        """
        out = logits.clone()
        mine = logits[:, 0] > -REACH
        own = zip(ends(mine.any(2)), ends(mine.any(1)), strict=True)
        boxes = {number: Place(rows, columns) for number, (rows, columns) in enumerate(own) if rows and columns}
        if not boxes:
            return out
        rows = max(_steps(box.rows) for box in boxes.values())
        columns = max(_steps(box.columns) for box in boxes.values())
        seen = widened(list(boxes.values()), rows, columns, (logits.shape[2], logits.shape[3]))
        known = [logits, upscaled, frame] if carried is None else [logits, upscaled, frame, carried]
        refined = self(*(cut(x, seen, whose=list(boxes)) for x in known))
        for one, part, (number, box) in zip(refined, seen, boxes.items(), strict=True):
            y, x = box.rows.start - part.rows.start, box.columns.start - part.columns.start
            box.of(out[number]).copy_(one[:, y : y + len(box.rows), x : x + len(box.columns)])
        return out


def shrink(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) float -> (B, C, *size): each pixel the mean of those that it covers any part of, as
    `F.interpolate(mode="area")`.

    On CPUs, where both sides change by one ratio such as 7 to 4, as a convolution of 7 x 7 pixels that gives 4 x 4: it
    takes a quarter of the time.
    """
    height, width = pictures.shape[-2:]
    parts = gcd(height, size[0])
    before, after = height // parts, size[0] // parts
    if pictures.device.type != "cpu" or before > LARGEST or after * width != before * size[1]:
        return F.interpolate(pictures, size, mode="area")
    unit = torch.eye(before, dtype=torch.float32, device=pictures.device)
    line = F.interpolate(unit[None], after, mode="area")[0]  # (before, after): what each adds to each
    kernels = torch.einsum("ya,xb->abyx", line, line).flatten(0, 1)[:, None].to(pictures.dtype)
    found = F.conv2d(pictures.flatten(0, 1)[:, None], kernels, stride=before)
    return F.pixel_shuffle(found, after).view(*pictures.shape[:2], *size)


def _steps(part: range) -> int:
    """How many are seen from a part, in whole steps."""
    return -(-(len(part) + 2 * SEEN) // STEP) * STEP
