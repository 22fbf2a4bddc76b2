"""Small layers that the decoder's parts share."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segic.remembered import remembered


class Gelu(nn.Module):
    """F.gelu. Of (N, C, H, W) whose channels lie side by side, a CPU takes half the time if it sees them so."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.ndim != 4 or not x.is_contiguous(memory_format=torch.channels_last):
            return F.gelu(x)
        return F.gelu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def as_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """(N, height * width, C) -> (N, C, height, width) with channels side by side, for one entity as well: without the
    strides that say so, convolutions on CPUs put them one after the other first.
    """
    return tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2)


def beside(maps: Sequence[Tensor], layout: torch.memory_format) -> Tensor:
    """(N, C, H, W) maps -> the channels of all, in this layout. Written so at once where no gradient is asked for: what
    has one channel looks to torch as if it had another layout, and all would be laid out anew.
    """
    if torch.is_grad_enabled():
        return torch.cat(list(maps), dim=1).contiguous(memory_format=layout)
    (n, _, height, width), channels = maps[0].shape, sum(one.shape[1] for one in maps)
    out = torch.empty((n, channels, height, width), dtype=maps[0].dtype, device=maps[0].device, memory_format=layout)
    return torch.cat(list(maps), dim=1, out=out)


def block_means(values: Tensor, block: int) -> Tensor:
    """(N, C, h, w) -> the means of blocks of block x block; the last row and column of them may be of less."""
    return F.avg_pool2d(values, block, ceil_mode=True, count_include_pad=False)


VECTOR = 32  # bfloat16 numbers that a CPU normalises together: rows of other lengths take it twice as long


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (B, C, H, W), eps 1e-6. The result's channels lie side by side in memory."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        last, shape = x.permute(0, 2, 3, 1), self.weight.shape
        narrow = x.device.type == "cpu" and len(self.weight) % VECTOR
        if narrow and x.dtype == self.weight.dtype == torch.bfloat16:
            exact = F.layer_norm(last.float(), shape, self.weight.float(), self.bias.float(), 1e-6)
            return exact.bfloat16().permute(0, 3, 1, 2)
        return F.layer_norm(last, shape, self.weight, self.bias, 1e-6).permute(0, 3, 1, 2)


class Mlp(nn.Module):
    """Three linear layers with ReLU between: (..., inputs) -> (..., outputs)."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


class FourierPositions(nn.Module):
    """Random Fourier encoding of positions (Tancik et al. 2020; PE of eq. 2), float32 in a decoder of any precision.

    The angles are many turns, of which half precision would lose more than a hundredth.
    """

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", nn.init.normal_(torch.empty(2, width // 2)))

    def _apply(self, fn, recurse: bool = True) -> "FourierPositions":  # type: ignore[no-untyped-def]
        """Follows the other modules to their device, not into their dtype."""
        exact = self.positional_encoding_gaussian_matrix
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        moved = self.positional_encoding_gaussian_matrix
        if moved.dtype != exact.dtype:
            self.positional_encoding_gaussian_matrix = exact.to(moved.device)
        return self

    def encode(self, xy: Tensor) -> Tensor:
        """(..., 2) positions x, y in 0..1 of the canvas, float32 -> (..., width) float32."""
        return _encode(self.positional_encoding_gaussian_matrix, xy)

    def grid(self, height: int, width: int, block: int = 1) -> Tensor:
        """The encoding of every token's centre: (1, width, height, width_of_grid); of blocks of tokens their mean."""
        matrix = self.positional_encoding_gaussian_matrix
        if matrix.is_inference():  # nobody counts how often numbers were written to it
            return _new_grid(matrix, height, width, block)
        with torch.inference_mode(False):  # or training could not use what is remembered
            return _grid(matrix, matrix._version, height, width, block)


def _encode(matrix: Tensor, xy: Tensor) -> Tensor:
    x, y = (2 * xy - 1).unbind(-1)
    along_x, along_y = matrix
    angles = 2 * math.pi * (x[..., None] * along_x + y[..., None] * along_y)  # no product that autocast would lower
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@remembered(4)
def _grid(matrix: Tensor, _version: int, height: int, width: int, block: int) -> Tensor:
    """As `FourierPositions.grid`, remembered: all frames of a video ask for the same. _version: the matrix's, which
    changes when numbers are written to it.
    """
    return _new_grid(matrix, height, width, block)


def _new_grid(matrix: Tensor, height: int, width: int, block: int) -> Tensor:
    y = (torch.arange(height, device=matrix.device, dtype=matrix.dtype) + 0.5) / height
    x = (torch.arange(width, device=matrix.device, dtype=matrix.dtype) + 0.5) / width
    yy, xx = torch.meshgrid(y, x, indexing="ij")
    tokens = _encode(matrix, torch.stack([xx, yy], dim=-1)).permute(2, 0, 1)[None]
    return tokens if block == 1 else block_means(tokens, block)
