"""Index masks of the published datasets: reading with plain errors, writing with a palette."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segic.errors import UsageError
from segic.files import writing
from segic_vos.palette import complete_palette

_INDEX_MODES = {"1", "L", "P", "LA", "PA", "I", "I;16", "I;16B", "I;16L"}


Labels = NDArray[np.uint8] | NDArray[np.uint16]


def read_labels(path: Path) -> Labels:
    """(H, W) ids of an index mask: a palette or grey PNG of 8 or 16 bits; of grey with alpha, the first channel.

    Raises UsageError, naming the file, where there is none, it cannot be read, or it is a colour picture.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in _INDEX_MODES:
                raise UsageError(
                    f"{path} is not an index mask but a picture of mode {image.mode}; expected a palette or grey PNG "
                    "whose pixel values are object ids"
                )
            values = np.asarray(image)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file; a mask was expected there") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a mask: {error}") from None
    if values.ndim == 3:
        values = np.ascontiguousarray(values[..., 0])
    return values.astype(np.uint8) if values.dtype.itemsize == 1 else values.astype(np.uint16)


def read_palette(path: Path) -> bytes | None:
    """The 768 bytes of a palette PNG's palette, None for a mask without one."""
    with Image.open(path) as image:
        palette = image.getpalette("RGB") if image.mode == "P" else None
    return complete_palette(bytes(palette)) if palette else None


def read_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB. Raises UsageError, naming the file."""
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))  # a copy, since Pillow's own memory is read-only
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file; a picture was expected there") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a picture: {error}") from None


def write_labels(path: Path, labels: NDArray[np.integer], palette: bytes | None = None) -> None:
    """Write (H, W) ids as an 8-bit palette PNG, or as a 16-bit grey one where an id is above 255.

    Raises SegicError where it cannot be written.
    """
    if labels.max(initial=0) > 255:
        image = Image.fromarray(labels.astype(np.uint16))
    else:
        image = Image.fromarray(labels.astype(np.uint8))
        image.putpalette(complete_palette(palette))
    with writing(path):
        image.save(path)


def ids_in(labels: NDArray[np.integer]) -> tuple[int, ...]:
    """The values above 0, ascending."""
    if labels.dtype == np.uint8:  # several times faster than sorting or counting 64-bit numbers
        counts = cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel()
    else:
        counts = np.bincount(labels.ravel())
    return tuple(int(value) for value in np.flatnonzero(counts) if value)
