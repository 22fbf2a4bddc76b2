"""Refuse pictures that would turn into dozens of objects that nobody drew."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segic.errors import UsageError

MANY_IDS = 64
MOSTLY = 3  # times as many pixels undecided as with ids: then hardly anything is given
BACKGROUND = 0.1  # of the picture
FEW_IDS = 4  # fewer ids than this are believed whatever their shape


def refuse_suspicious(values: NDArray[np.integer], ids: tuple[int, ...], *, eight_bit: bool, path: Path) -> None:
    """Raise UsageError for a mask (H, W) that is unlikely to be one.

    Two signs: more than 64 ids in an 8-bit mask (it is a photograph or a soft mask; true masks with that many objects
    come in 16 bits), or most ids without a single 2x2 block of their own, as the in-between values of a smoothed edge.
    """
    if len(ids) < FEW_IDS:
        return
    if eight_bit and len(ids) > MANY_IDS:
        found = f"{len(ids)} different values"
    else:
        solid = _solid_ids(values)
        thin = sum(1 for value in ids if value not in solid)
        if thin < FEW_IDS or 2 * thin <= len(ids):
            return
        found = f"{len(ids)} different values, {thin} of them nowhere wider than a pixel"
    raise UsageError(
        f"{path}: does not look like an index mask: it holds {found}. Smoothed (anti-aliased) edges, scaling or JPEG "
        "compression are the likely cause. Expected: one value per object, the same all over it. If these are the ids "
        "that you mean, say so: --many-ids, or allow_many=True in Python"
    )


def refuse_mostly_void(values: NDArray[np.integer], void: int, path: Path) -> None:
    """Raise UsageError for a mask (H, W) with `void` beside ids that hardly cover anything: a binary mask that JPEG
    compression or smoothing left with other values, or one whose rim is marked. Where there is no background to speak
    of, all but the objects is undecided on purpose.
    """
    undecided, background = int((values == void).sum()), int((values == 0).sum())
    decided = values.size - undecided - background
    if undecided > MOSTLY * decided and background > BACKGROUND * values.size:
        raise UsageError(
            f"{path}: {void} beside other ids means undecided, which would be {undecided} pixels here, and {decided} "
            f"pixels are all that other ids have. If {void} is the object, write it as the only value beside 0 (JPEG "
            "compression and smoothed edges make others); if this is what you mean, say so: --many-ids, or "
            "allow_many=True in Python"
        )


def _solid_ids(values: NDArray[np.integer]) -> frozenset[int]:
    """The values that fill at least one 2x2 block."""
    rows = values[:-1] == values[1:]
    blocks = rows[:, :-1] & rows[:, 1:] & (values[:-1, :-1] == values[:-1, 1:])
    return frozenset(np.unique(values[:-1, :-1][blocks]).tolist())
