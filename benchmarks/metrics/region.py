"""J, the region similarity of DAVIS: intersection over union."""

import numpy as np
from numpy.typing import NDArray


def region_similarity(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> float:
    """Intersection over union of two (H, W) masks, 0..1; 1 when both are empty.

    Pixels that must not count (void) are to be False in both masks.
    """
    union = int(np.count_nonzero(truth | prediction))
    if union == 0:
        return 1.0
    return int(np.count_nonzero(truth & prediction)) / union
