"""Mean, recall and decay of one object's per-frame scores, as `db_statistics` of davis2017-evaluation."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BINS = 4


@dataclass(frozen=True)
class Statistics:
    """mean: over frames. recall: share of frames above 0.5. decay: mean of the first quarter less that of the last."""

    mean: float
    recall: float
    decay: float


def statistics(scores: NDArray[np.float64]) -> Statistics:
    """Statistics of (T,) scores, one a frame. NaN frames are left out of the means, and count as "not above 0.5".

    Neighbouring quarters share a frame, as in the toolkit. (The toolkit keeps their limits in 8 bits, which would
    wrap beyond 256 frames; no DAVIS sequence is that long, and here they do not wrap.)
    """
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"scores must be a non-empty vector, one number a frame; got shape {scores.shape}")
    limits = (np.round(np.linspace(1, scores.size, _BINS + 1) + 1e-10) - 1).astype(np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)  # a quarter of NaN alone has the mean NaN
        first = np.nanmean(scores[limits[0] : limits[1] + 1])
        last = np.nanmean(scores[limits[-2] : limits[-1] + 1])
        return Statistics(float(np.nanmean(scores)), float(np.mean(scores > 0.5)), float(first - last))
