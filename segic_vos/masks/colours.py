"""Masks painted in colours instead of ids."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segic.errors import UsageError
from segic_vos.palette import complete_palette

from .opacity import by_shape, opaque

MAX_COLOURS = 32
MOST_COLOURS = 254  # 255 would be undecided


def ids_from_colours(
    rgba: NDArray[np.uint8], path: Path, known: dict[int, int]
) -> tuple[NDArray[np.uint8], bytes | None, tuple[str, ...]]:
    """Turn a colour picture (H, W, 4) into ids (H, W) uint8, a palette and a note.

    Black and transparent pixels (`opaque`) are background; each other colour is an id, in the order in which the
    colours appear, row by row. known: the ids of colours (0xRRGGBB) in masks that belong with this one; new colours are
    added to it. A picture without any colour in it is read as the grey mask that it is. Raises UsageError for more than
    32 colours, and for more than 254 in all masks.
    """
    red, green, blue, alpha = np.moveaxis(rgba.astype(np.int32), -1, 0)
    whole = np.where(alpha > 0, red << 16 | green << 8 | blue, 0)
    seen, notes = opaque(alpha, whole)
    packed = np.where(seen, whole, 0)
    if shape := by_shape(seen, packed):
        return shape[0], None, notes + shape[1]
    if bool(((packed >> 8 & 255 == packed & 255) & (packed >> 16 == packed & 255)).all()):
        return (packed & 255).astype(np.uint8), None, notes
    colours, first_seen, inverse = np.unique(packed, return_index=True, return_inverse=True)
    if len(colours) > MAX_COLOURS:
        raise UsageError(
            f"{path}: a picture with {len(colours)} colours, too many for a mask (up to {MAX_COLOURS} colours are read "
            "as one object each). Expected: an index mask, a palette or grey PNG whose values are the objects' ids. "
            "Anti-aliased edges or JPEG compression make such colours: export the mask without smoothing, as PNG"
            + ("" if bool(seen.all()) else ". If the transparency is the mask, export that alone, as a grey picture")
        )
    shown = [int(colours[at]) for at in np.argsort(first_seen).tolist() if colours[at] != 0]
    for colour in shown:
        known.setdefault(colour, len(known) + 1)
    if len(known) > MOST_COLOURS:
        raise UsageError(f"{path}: the masks have more than {MOST_COLOURS} colours together; expected one an object")
    ids = np.array([known.get(colour, 0) for colour in colours.tolist()], np.uint8)
    rgb = b"".join(colour.to_bytes(3, "big") for colour in known)
    pairs = ", ".join(f"#{colour:06x} is {known[colour]}" for colour in shown)
    note = f"a colour picture; black is background, each colour an object: {pairs}"
    return ids[inverse].reshape(packed.shape), complete_palette(b"\0\0\0" + rgb), (note, *notes)
