"""Matrix products of bytes on CPUs, by the functions that torch's quantised models are compiled to."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from segic.parts import AT_ONCE

MISSING = "dtype 'int8': this version of torch has no products of bytes for this CPU; give auto"


def packed(weight: Tensor) -> Tensor:
    """(out, in) int8, in the order in which `multiplied` reads it."""
    found: Tensor = torch.ops.onednn.qlinear_prepack(weight, [AT_ONCE, weight.shape[1]])
    return found


def multiplied(
    given: Tensor,
    step: float,
    zero: int,
    weight: Tensor,
    steps: Tensor,
    bias: Tensor | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    gelu: bool = False,
) -> Tensor:
    """step * (given - zero) @ (steps * weight)^T + bias, and GELU of it: sums of integers, brought to `dtype` at last.

    given: (..., in) uint8. weight: (out, in) int8 as `packed` has it. steps, bias: (out,) float32. dtype: float32 or,
    fast only where the CPU multiplies it, bfloat16. Without gradients.
    """
    zeros = torch.zeros(len(steps), dtype=torch.int64, device=weight.device)
    after = "gelu" if gelu else "none"
    known: tuple[Any, ...] = (weight, steps, zeros, bias, 1.0, 0, dtype, after, [], "none")
    found: Tensor = torch.ops.onednn.qlinear_pointwise(given, step, zero, *known)
    return found


@lru_cache
def largest_weight() -> int | None:
    """127 where sums are exact; 64 on CPUs that add two products of bytes in 16 bits, which more would not fit into
    (those without VNNI); None where torch has no such product. Found by trying.
    """
    for largest in (127, 64):
        try:
            weight = packed(torch.full((AT_ONCE, AT_ONCE), largest, dtype=torch.int8, device="cpu"))
            given = torch.full((AT_ONCE, AT_ONCE), 255, dtype=torch.uint8, device="cpu")
            found = multiplied(given, 1.0, 0, weight, torch.ones(AT_ONCE, dtype=torch.float32, device="cpu"))
        except (AttributeError, RuntimeError, TypeError):  # as torch says that there is none, or of another form
            return None
        if bool((found == 255 * largest * AT_ONCE).all()):
            return largest
    return None
