"""Tokens that are mixed with those around them: beyond the paper, an option of a preset.

The transformer's image tokens never look at each other, so what is found of an entity in one token says nothing of the
tokens around it: a shirt that is surely somebody's leaves the trousers below it to be anybody's. The mixer lets
neighbouring tokens exchange what they know, each with the picture's features and the entity's own evidence, before the
transformer.
"""

import torch
from torch import Tensor, nn

from segic.decoder.layers import ChannelNorm, gelu, trained_in_float32

DILATIONS = (1, 2, 1)  # of the blocks' 7 x 7 windows: together they see 12 tokens to every side


class MixerBlock(nn.Module):
    """A depthwise window and two layers a token, added to what came in: (N, C, h, w) -> (N, C, h, w)."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.window = nn.Conv2d(channels, channels, 7, padding=3 * dilation, dilation=dilation, groups=channels)
        self.norm = ChannelNorm(channels)
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.narrow = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # Channels side by side: a depthwise window then takes CPUs a third of the time, its gradient as well.
        seen = x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x
        mixed = gelu(self.widen(self.norm(trained_in_float32(self.window, seen))))
        out: Tensor = x + self.narrow(mixed)
        return out


class TokenMixer(nn.Module):
    """The decoder's image (N, width, h, w) -> the same, corrected. What it adds starts as zero."""

    def __init__(self, width: int, channels: int):
        super().__init__()
        self.enter = nn.Conv2d(width, channels, 1)
        self.blocks = nn.Sequential(*(MixerBlock(channels, dilation) for dilation in DILATIONS))
        self.leave = nn.Conv2d(channels, width, 1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = image + self.leave(self.blocks(self.enter(image)))
        return out
