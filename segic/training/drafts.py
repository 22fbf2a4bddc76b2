"""What every kind of scene makes first: three clean frames and their labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Draft:
    """Frames (3, S, S, 3) and labels (3, S, S), uint8, in the order A, B, C, before light and the camera's defects."""

    frames: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    has_recent: bool
