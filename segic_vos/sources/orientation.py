"""Turn decoded pictures the way the container says they are to be looked at."""

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av import VideoFrame


@dataclass(frozen=True)
class Orientation:
    """A quarter turn or a mirror image: first rows and columns change places, then the axes are reversed."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def of(cls, frame: "VideoFrame") -> "Orientation":
        """What the frame's display matrix asks for; angles other than quarter turns go to the nearest one.

        The matrix (ISO/IEC 14496-12, 6.2.2) maps a pixel (x, y) to x' = a x + c y, y' = b x + d y, up to a shift. It is
        read whole because `frame.rotation` does not tell a mirrored clip from a turned one.
        """
        try:
            matrix = frame.side_data.get("DISPLAYMATRIX")
        except ValueError:  # PyAV has no name for something else that lies beside the frame, such as EXIF data
            return cls.turned(frame.rotation)
        if matrix is None:
            return cls()
        a, b, _, c, d = np.frombuffer(cast("bytes", matrix), np.int32)[:5].tolist()
        if abs(b) > abs(a):
            return cls(transpose=True, flip_x=c < 0, flip_y=b < 0)
        return cls(flip_x=a < 0, flip_y=d < 0)

    @classmethod
    def turned(cls, degrees: float) -> "Orientation":
        """Counterclockwise, to the nearest quarter."""
        quarters = round(degrees / 90) % 4
        return cls(transpose=quarters % 2 == 1, flip_x=quarters >= 2, flip_y=quarters in (1, 2))

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """`pixels` (H, W, 3) upright; the array itself where nothing is to be done."""
        # OpenCV's transpose and flip are several times faster than a copy of NumPy's strided view.
        turned = cv2.transpose(pixels) if self.transpose else pixels
        if self.flip_x or self.flip_y:
            turned = cv2.flip(turned, -1 if self.flip_x and self.flip_y else int(self.flip_x))
        return np.asarray(turned, np.uint8)

    def pixel_aspect(self, stored: Fraction) -> Fraction:
        """The width of a pixel by its height after `apply`, of that `stored` for the picture as it lies."""
        return 1 / stored if self.transpose else stored


class RgbConverter:
    """Decoded frames to upright RGB arrays.

    The display matrix is read from the first frame, and again when a frame states another rotation, not from every one:
    PyAV ties a frame and its side data together in a cycle, which keeps the picture's memory until Python next looks
    for such cycles, some hundred frames later.
    """

    def __init__(self) -> None:
        self._rotation: int | None = None
        self._orientation = Orientation()

    def convert(self, frame: "VideoFrame") -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        if frame.rotation != self._rotation:
            self._rotation = frame.rotation
            self._orientation = Orientation.of(frame)
        # One thread: the conversion is memory-bound, and the other cores have work of their own.
        return self._orientation.apply(np.asarray(frame.to_ndarray(format="rgb24", threads=1), np.uint8))
