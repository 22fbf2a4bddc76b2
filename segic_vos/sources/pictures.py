"""Read one picture file as RGB."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segic.errors import SegicError, UsageError


def read_rgb(path: Path | str) -> NDArray[np.uint8]:
    """The picture as (H, W, 3) uint8 RGB, turned as its EXIF orientation says.

    Grey and palette pictures become RGB, transparency is dropped, 16-bit pictures keep their upper 8 bits. Raises
    UsageError for a missing file or a folder, SegicError for one that cannot be read.
    """
    from PIL import Image, ImageOps

    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path}: a folder, expected a picture file")
    if not path.exists():
        raise UsageError(f"{path}: no such file")
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode == "F":
                raise UsageError(f"{path}: a picture of floating point numbers; expected 8 or 16 bits a channel")
            if image.mode.startswith("I"):
                # Image.convert would clip at 255 instead of scaling.
                grey = (np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.array(image.convert("RGB"))
    # Pillow's decoders raise what they meet in a broken file: OSError, SyntaxError, ValueError, struct.error ...
    except SegicError:
        raise
    except Exception as error:
        raise SegicError(f"{path}: cannot be read as a picture: {error}") from error
