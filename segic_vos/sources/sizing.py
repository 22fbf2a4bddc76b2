"""One size for all the frames of a source."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segic.errors import UsageError

SizeChange = Literal["error", "resize"]


def fit_size(
    pixels: NDArray[np.uint8], size: tuple[int, int], on_size_change: SizeChange, frame: str
) -> NDArray[np.uint8]:
    """`pixels` (H, W, 3) at `size` (height, width), the size of the source's first frame.

    A frame of another size is resized with `on_size_change="resize"` and a UsageError that names `frame` with "error".
    """
    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels
    if on_size_change == "error":
        raise UsageError(
            f"{frame} is {width}x{height}, but the first frame is {size[1]}x{size[0]} (width x height): "
            "frames of one size are expected. --resize-frames (on_size_change='resize') brings them to the first's"
        )
    import cv2

    shrinks = height > size[0] or width > size[1]
    resized = cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)
