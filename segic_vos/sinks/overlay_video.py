"""The clip with the masks drawn on it, as a video."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segic.errors import SegicError
from segic.files import make_folder
from segic_vos.frames import Frame, FrameResult

from .drawing import draw_overlay
from .encoding import encoding

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

DEFAULT_RATE = Fraction(25)
_SECONDS_PER_KEY_FRAME = 2
_USUAL_CLOCKS = 360_000
_FINEST_RATE = 1_000_000  # FFmpeg has 32 bits for its two numbers
_FINEST_X264 = 2**24  # ticks a second; the MP4 header has 32 bits for them
_FINEST_MPEG4 = 65535
_BT709 = 1
_LIMITED_RANGE = 1


class OverlayWriter:
    """Writes an MP4 (H.264; MPEG-4 part 2 where FFmpeg comes without x264) that any player shows.

    Time stamps are the frames' own, moved so that the first is 0: exact for the usual clocks, else to 1.4 microseconds
    (MPEG-4 part 2 knows no finer clock than 1/65535 s). Frames without one follow at `rate` (frames a second, 25 by
    default). Odd sizes are made even, as the pixel format needs, by repeating the last row or column. Pixels that are
    not square are shown so: pixel_aspect is their width by their height.

    The file is fragmented while it grows: after a kill it can be played up to the last two seconds or so. `close`
    turns it into a regular MP4. Raises SegicError when the file cannot be written.
    """

    def __init__(
        self,
        path: Path | str,
        rate: Fraction | float | None = None,
        *,
        palette: bytes | None = None,
        pixel_aspect: Fraction = Fraction(1),
    ) -> None:
        self._path = path = Path(path)
        self._rate = Fraction(rate or DEFAULT_RATE).limit_denominator(_FINEST_RATE)
        self._palette = palette
        self._pixel_aspect = pixel_aspect
        self._output: tuple[OutputContainer, VideoStream] | None = None
        self._failed = False
        self._time_base = Fraction(1)
        self._origin: Fraction | None = None
        self._written = 0
        self._last_tick = -1
        make_folder(path.parent)

    def write(self, frame: Frame, result: FrameResult) -> None:
        import av

        drawn = _pad_to_even(draw_overlay(frame.pixels, result.labels, self._palette))
        height, width = drawn.shape[:2]
        with self._writing():
            if self._output is None:
                self._output = self._open(width, height)
            container, stream = self._output
            if (width, height) != (stream.width, stream.height):
                raise SegicError(
                    f"{self._path}: frame {frame.name} is {width}x{height}, the video {stream.width}x{stream.height}"
                )
            picture = av.VideoFrame.from_ndarray(drawn, format="rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", threads=1
            )
            picture.pts = self._tick(frame)
            picture.time_base = self._time_base
            container.mux(stream.encode(picture))
        self._written += 1

    def close(self) -> None:
        """Finish the file. Without a frame there is none, and none is left that shows no frame: where the disk was full
        before the first fragment, that is, within the first seconds.
        """
        if self._output is None:
            return
        (container, stream), self._output = self._output, None
        if self._failed:
            # The failure was told when it happened; the fragments written before it can be played.
            with suppress(SegicError), self._writing():
                container.close()
            self._remove_unplayable()
            return
        try:
            with self._writing():
                try:
                    container.mux(stream.encode(None))
                finally:
                    container.close()
        except SegicError:
            self._remove_unplayable()
            raise

    def _remove_unplayable(self) -> None:
        import av

        try:
            with av.open(f"file:{self._path}") as container:
                next(container.decode(video=0))
        except (av.FFmpegError, IndexError, StopIteration):
            with suppress(OSError):
                self._path.unlink()

    def _open(self, width: int, height: int) -> "tuple[OutputContainer, VideoStream]":
        import av

        x264 = "libx264" in av.codecs_available
        self._time_base = _time_base(self._rate, _FINEST_X264 if x264 else _FINEST_MPEG4)
        container = av.open(
            f"file:{self._path}",
            "w",
            format="mp4",
            # Written through at once, so that a killed run leaves what its fragments hold.
            options={"movflags": "+hybrid_fragmented", "flush_packets": "1"},
        )
        stream = container.add_stream("libx264" if x264 else "mpeg4", rate=self._rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if self._pixel_aspect != 1:
            stream.codec_context.sample_aspect_ratio = self._pixel_aspect
        # No B-frames: fragments cannot undo the shift of all time stamps that their reordering brings.
        stream.options = {"preset": "veryfast", "crf": "20", "bf": "0"} if x264 else {"qscale": "3"}
        stream.time_base = stream.codec_context.time_base = self._time_base
        stream.gop_size = max(1, round(self._rate * _SECONDS_PER_KEY_FRAME))
        # Untagged, players guess the colours' matrix by the picture's size.
        stream.colorspace = stream.color_primaries = stream.color_trc = _BT709
        stream.color_range = _LIMITED_RANGE
        return container, stream

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Errors of the file system and of FFmpeg as SegicError, and the file no longer written to after one."""
        try:
            with encoding(self._path):
                yield
        except SegicError:
            self._failed = True
            raise

    def _tick(self, frame: Frame) -> int:
        """The frame's time stamp in units of the time base, later than the one before."""
        time = frame.time if frame.time is not None else self._written / self._rate
        if self._origin is None:
            self._origin = time
        tick = max(round((time - self._origin) / self._time_base), self._last_tick + 1)
        self._last_tick = tick
        return tick


def _time_base(rate: Fraction, finest: int) -> Fraction:
    """A clock of at most `finest` ticks a second on which the frames' times fall exactly, as far as there is one.

    1/360000 s is a whole number of ticks of the clocks in use (90 kHz, milliseconds, Apple's 600, the broadcast rates
    of n/1001); other rates join in where that stays below `finest`. A mean of varying times gives rates that do not.
    """
    common = lcm(_USUAL_CLOCKS, rate.numerator)
    if common <= finest:
        return Fraction(1, common)
    if finest >= _USUAL_CLOCKS:
        return Fraction(1, _USUAL_CLOCKS)
    return Fraction(1, finest - finest % rate.numerator or finest)


def _pad_to_even(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return pixels
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
