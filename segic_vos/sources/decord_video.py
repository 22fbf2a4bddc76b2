"""Frames of a video file through decord, for those who prefer it. PyAV is the default and handles more."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from segic.errors import SegicError, UsageError
from segic_vos.frames import Frame, SourceInfo

from .selection import Selection
from .video import frame_name, require_file


class DecordVideo:
    """Like `VideoFile`, with decord's limits: it trusts the container's frame count and resizes frames to the first's
    size. Raises UsageError when decord is not installed or cannot open the file, SegicError where decoding stops.
    """

    names: None = None

    def __init__(self, path: Path, selection: Selection) -> None:
        self._path = path
        self._selection = selection
        require_file(path)
        reader = self._open()
        selection.require_reached(len(reader), path)
        rate = Fraction(reader.get_avg_fps()).limit_denominator(1001)
        try:
            height, width = reader[0].shape[:2]
        except Exception as error:
            raise SegicError(f"{path}: decord cannot decode its first frame: {error}") from error
        self._info = SourceInfo(
            path=path,
            size=(height, width),
            rate=rate / selection.every if rate else None,
            expected_frames=selection.count(len(reader)),
        )

    @property
    def info(self) -> SourceInfo:
        return self._info

    def __iter__(self) -> Iterator[Frame]:
        reader = self._open()
        index = 0
        try:
            for index in range(len(reader)):
                if self._selection.is_past(index):
                    return
                if not self._selection.takes(index):
                    continue
                pixels = np.asarray(reader[index].asnumpy(), np.uint8)
                # decord gives float32 seconds; the millionth is well below their precision.
                time = Fraction(float(reader.get_frame_timestamp(index)[0])).limit_denominator(1_000_000)
                yield Frame(index, frame_name(index), pixels, time)
        except _decord_error() as error:
            raise SegicError(f"{self._path}: decord stopped before frame {frame_name(index)}: {error}") from error

    def _open(self) -> Any:
        try:
            from decord import VideoReader
        except ImportError as error:
            raise UsageError(
                "the decoder 'decord' is not installed: pip install 'segic[decord]', or use the decoder 'pyav'"
            ) from error
        try:
            return VideoReader(str(self._path))
        except Exception as error:  # decord raises its own error, RuntimeError or IndexError
            raise UsageError(f"{self._path}: decord cannot open it as a video: {error}") from error


def _decord_error() -> type[Exception]:
    from decord import DECORDError

    return DECORDError
