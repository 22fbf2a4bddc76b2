"""Frames from any iterable: a camera, another library's decoder, a list."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from segic.errors import UsageError
from segic_vos.frames import Frame, SourceInfo

from .sizing import SizeChange, fit_size
from .video import frame_name


class IteratorSource:
    """Wraps an iterable of (H, W, 3) uint8 RGB arrays; frames are named by number.

    With `rate` (frames a second) frame i has the time i / rate. The first array is taken at once, to learn its size:
    UsageError where there is none. An array of another type or size is a UsageError that names the frame. An iterator
    (as opposed to a list) can be gone through once; a second time is a UsageError. Frames are copies: decoders write
    into the same array again, while some frames wait for their turn.
    """

    names: None = None

    def __init__(
        self,
        frames: Iterable[NDArray[np.uint8]],
        *,
        rate: Fraction | None = None,
        on_size_change: SizeChange = "error",
    ) -> None:
        self._frames = frames
        self._on_size_change = on_size_change
        reader = iter(frames)
        self._only_once = reader is frames
        try:
            first = next(reader)
        except StopIteration:
            raise UsageError("the iterable of frames is empty") from None
        _require_picture(first, 0)
        first = first.copy()
        self._pending: Iterator[NDArray[np.uint8]] | None = chain([first], reader)
        self._info = SourceInfo(None, (first.shape[0], first.shape[1]), rate, None)

    @property
    def info(self) -> SourceInfo:
        return self._info

    def __iter__(self) -> Iterator[Frame]:
        arrays, self._pending = self._pending, None
        if arrays is None:
            if self._only_once:
                raise UsageError("this source wraps an iterator, which can be gone through only once")
            arrays = iter(self._frames)
        for index, pixels in enumerate(arrays):
            _require_picture(pixels, index)
            name = frame_name(index)
            time = index / self._info.rate if self._info.rate else None
            fitting = fit_size(pixels, self._info.size, self._on_size_change, f"frame {name}")
            yield Frame(index, name, fitting.copy(), time)


def _require_picture(pixels: NDArray[np.uint8], index: int) -> None:
    if not isinstance(pixels, np.ndarray):
        raise UsageError(f"frame {index}: expected a NumPy array, got {type(pixels).__name__}")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise UsageError(f"frame {index}: expected uint8 of shape (H, W, 3), got {pixels.dtype} {pixels.shape}")
