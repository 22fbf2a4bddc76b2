"""F, the boundary measure of DAVIS: how well two outlines match within a tolerance.

The definitions are those of the official davis2017-evaluation (`f_measure`, `_seg2bmap`), awkward conventions included.
"""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

TOLERANCE = 0.008  # of the image diagonal


def boundary_radius(height: int, width: int) -> int:
    """Tolerance in whole pixels for an image of this size: 0.008 of its diagonal, rounded up (8 at 480x854)."""
    return int(np.ceil(TOLERANCE * np.linalg.norm((height, width))))


def boundary_pixels(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Outline of an (H, W) mask, (H, W) bool: the pixels that differ from their east, south or south-east neighbour.

    In the last row only the east neighbour counts, in the last column only the south one, and the last pixel of all is
    never outline; so a mask that fills the image has none.
    """
    edge = np.zeros_like(mask)
    here = mask[:-1, :-1]
    edge[:-1, :-1] = (here ^ mask[:-1, 1:]) | (here ^ mask[1:, :-1]) | (here ^ mask[1:, 1:])
    edge[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    edge[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return edge


@lru_cache(maxsize=64)
def _disk(radius: int) -> NDArray[np.uint8]:
    """(2r+1, 2r+1) structuring element: all offsets at a distance of at most `radius`."""
    offset = np.arange(-radius, radius + 1)
    disk: NDArray[np.uint8] = (offset[:, None] ** 2 + offset[None, :] ** 2 <= radius**2).astype(np.uint8)
    disk.setflags(write=False)  # it is shared by the cache
    return disk


def boundary_measure(truth: NDArray[np.bool_], prediction: NDArray[np.bool_], radius: int) -> float:
    """F = 2PR / (P + R) of the outlines of two (H, W) masks, 0..1, with matches at most `radius` pixels apart.

    No outline in either: 1. An outline in one of them alone: 0.
    """
    truth_edge, edge = boundary_pixels(truth), boundary_pixels(prediction)
    n_truth, n_edge = int(np.count_nonzero(truth_edge)), int(np.count_nonzero(edge))
    if n_truth == 0 or n_edge == 0:
        # The toolkit's (P, R) is (1, 0), (0, 1) or (1, 1) here.
        return float(n_truth == n_edge)
    disk = _disk(radius)
    near_edge = cv2.dilate(edge.view(np.uint8), disk).view(np.bool_)
    near_truth = cv2.dilate(truth_edge.view(np.uint8), disk).view(np.bool_)
    precision = int(np.count_nonzero(edge & near_truth)) / n_edge
    recall = int(np.count_nonzero(truth_edge & near_edge)) / n_truth
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)
