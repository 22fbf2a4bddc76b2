"""Small lists of numbers on a device."""

import torch
from torch import Tensor

from segic.remembered import remembered


@remembered(256)
def numbers(values: tuple[int, ...], device: torch.device) -> Tensor:
    """int64, remembered: a GPU would be waited for each time that it was sent them. Not to be written to."""
    return torch.tensor(values, dtype=torch.int64, device=device)
