"""Linear layers whose products are of bytes, for CPUs that multiply these faster than floating point."""

from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from segic.backbones.frozen_linear import FrozenLinear
from segic.byte_products import MISSING, largest_weight, multiplied, packed
from segic.errors import UsageError

LEVELS = 254  # of the 255 steps of a byte: where zero lies is rounded up, which may move the largest by a step
ROUNDS = 1.5 * 2**23  # float32 numbers from 2^23 to 2^24 are whole
LEAST = 1e-30  # step, of tensors of nothing but zeros


class Int8Linear(nn.Module):
    """A frozen linear layer x -> x W^T + b, and the norm before it, if any, from bytes: x in steps of (max - min) / 254
    of a picture's tokens that are given together, each row of W in steps of its own. The result has the precision of
    what is given: (T, in), or (B, T, in) of as many pictures, which know nothing of each other.

    layer: unpacked and copied. norm: what comes before it, whose weight and bias become part of W and b, since channels
    of about the same size lose least in common steps; `plain_norm` is to take its place. UsageError where there are no
    products of bytes.
    """

    def __init__(self, layer: "FrozenLinear | Int8Linear", norm: nn.LayerNorm | None = None):
        super().__init__()
        assert isinstance(layer, FrozenLinear)
        largest = largest_weight()
        if largest is None:
            raise UsageError(MISSING)
        self.gelu = layer.gelu
        layer.unpack()
        weight, bias = layer.weight.detach().float(), layer.bias.detach().float()
        if norm is not None:
            bias = bias + weight @ norm.bias.detach().float()
            weight = weight * norm.weight.detach().float()
        # Plain attributes: to whatever precision the modules around are brought, these stay as they are.
        self._bias = bias
        self._steps = (weight.abs().amax(1) / largest).clamp(min=LEAST)
        self._packed = packed((weight / self._steps[:, None]).round().to(torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 3 and len(x) > 1:
            return torch.cat([self(picture) for picture in x.split(1)])
        ends = torch.aminmax(x)
        low, high = min(float(ends.min), 0.0), max(float(ends.max), 0.0)
        step = max((high - low) / LEVELS, LEAST)
        zero = ceil(-low / step)
        given = in_steps(x, step, zero)
        return multiplied(given, step, zero, self._packed, self._steps, self._bias, dtype=x.dtype, gelu=self.gelu)

    def __getstate__(self) -> dict[str, Any]:
        # By value, as in `FrozenLinear`.
        return {**self.__dict__, "_packed": self._packed.to_dense().T.contiguous().numpy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._packed = packed(torch.tensor(self._packed, device="cpu"))


def in_steps(x: Tensor, step: float, zero: int) -> Tensor:
    """x / step + zero as uint8, rounded, of numbers for which that is between 0 and 255."""
    # Float32 numbers of this size have no bits for what follows the point, so that the sum is rounded, and its last
    # byte is what is meant. A CPU takes twice as long for torch's own way from floats to bytes.
    shift = torch.tensor([ROUNDS + zero], dtype=torch.float32, device=x.device)
    return torch.add(shift, x, alpha=1 / step).view(torch.int32).to(torch.uint8)


def plain_norm(norm: nn.LayerNorm) -> nn.LayerNorm:
    """The norm without its weight and bias."""
    return nn.LayerNorm(norm.normalized_shape, eps=norm.eps, elementwise_affine=False)
