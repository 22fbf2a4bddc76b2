"""Pictures as PNG files."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from segic.files import write_whole

if TYPE_CHECKING:
    from PIL.Image import Image


def write_png(path: Path, image: "Image") -> None:
    """Write a Pillow image as PNG, whole or not at all. Raises SegicError as `write_whole`."""
    buffer = BytesIO()
    # Level 1 is several times faster than the default, and label maps are small at any level.
    image.save(buffer, "PNG", compress_level=1)
    write_whole(path, buffer.getvalue())
