"""Masks as palette PNGs, one a frame."""

from pathlib import Path

import numpy as np
from PIL import Image

from segic.errors import UsageError
from segic.files import make_folder
from segic_vos.frames import Frame, FrameResult
from segic_vos.palette import complete_palette

from .png import write_png


class MaskWriter:
    """Writes `FOLDER/NAME.png`, whose values are the ids, to the pixel.

    folder: the masks' own folder, created where it is missing. palette: 768 bytes (256 x RGB), None for DAVIS's
    colours. From the frame on at which an id above 255 is followed, files are 16-bit grey, which has no palette.
    Raises UsageError for ids above 65535, SegicError when a file cannot be written.
    """

    def __init__(self, folder: Path | str, palette: bytes | None = None) -> None:
        self._folder = Path(folder)
        self._palette = complete_palette(palette)
        make_folder(self._folder)

    def write(self, frame: Frame, result: FrameResult) -> None:
        path = self._folder / f"{frame.name}.png"
        largest = max(int(result.labels.max(initial=0)), *result.ids, 0)
        if largest > 65535:
            raise UsageError(f"{path}: the id {largest} does not fit into a 16-bit PNG; ids up to 65535 are expected")
        if largest > 255:
            write_png(path, Image.fromarray(result.labels.astype(np.uint16)))
            return
        image = Image.fromarray(result.labels.astype(np.uint8))
        image.putpalette(self._palette)
        write_png(path, image)

    def close(self) -> None:
        """Nothing is left open."""
