"""Ids of entities: which of them there may be."""

import numpy as np
from numpy.typing import NDArray

from segic.errors import UsageError

LARGEST = np.iinfo(np.int32).max


def as_ids(labels: NDArray[np.integer] | NDArray[np.bool_], what: str = "the mask") -> NDArray[np.int32]:
    """A copy of an array of ids of any integer type, or of bool, which gives the id 1.

    what: the array's name in the error. Raises UsageError for ids below 0 (background) or above 2**31 - 1, which would
    come out as others.
    """
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) <= LARGEST:
        raise UsageError(
            f"{what} holds the values {labels.min()} to {labels.max()}; ids are 0 (background) to {LARGEST}: number "
            "the entities anew"
        )
    return labels.astype(np.int32)
