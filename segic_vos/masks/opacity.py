"""What is to be seen in a mask with an alpha channel."""

import numpy as np
from numpy.typing import NDArray

from segic_vos.wording import counted


def opaque(alpha: NDArray[np.integer], values: NDArray[np.integer]) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """(H, W) bool: where a picture with this alpha, and 0 for black, is at least half as opaque as where it is most so
    without being black; and a note if it is less so anywhere without being clear. The rim that a soft brush leaves is
    no object's.
    """
    most = int(alpha[values > 0].max(initial=0)) or int(alpha.max(initial=0))
    seen = (alpha > 0) & (2 * alpha.astype(np.int32) >= most)
    faint = int(np.count_nonzero(alpha)) - int(np.count_nonzero(seen))
    if not faint:
        return seen, ()
    are = "is" if faint == 1 else "are"
    return seen, (f"{counted(faint, 'pixel')} less than half as opaque as the rest {are} background",)


def by_shape(seen: NDArray[np.bool_], values: NDArray[np.integer]) -> tuple[NDArray[np.uint8], tuple[str, ...]] | None:
    """The mask (H, W), 0 and 255, of a black shape on a clear ground, and a note; None where the values, 0 for black,
    tell more, or the whole picture is seen.
    """
    if values.any() or not seen.any() or seen.all():
        return None
    return np.where(seen, 255, 0).astype(np.uint8), ("all black: what is opaque is the object",)
