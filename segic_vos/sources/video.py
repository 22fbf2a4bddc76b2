"""Frames of a video file, decoded one at a time by FFmpeg through PyAV."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from segic.errors import SegicError, UsageError
from segic_vos.frames import Frame, SourceInfo

from .notices import SourceWarning
from .orientation import Orientation, RgbConverter
from .packets import BrokenStreamError, decode_frames
from .selection import Selection
from .sizing import SizeChange, fit_size

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

# FFmpeg takes any text file for a terminal recording ("tty") and would show it as a video.
_NOT_VIDEO = frozenset({"tty"})


def frame_name(index: int) -> str:
    """The name of frame `index` of a video: "00012"."""
    return f"{index:05d}"


class VideoFile:
    """A video file, any that FFmpeg reads, as an iterable of frames. It is opened anew for every iteration.

    Frames are numbered in the order in which they are shown, whatever the container says of their count or rate, after
    its edit list; `Frame.time` is the presentation time, exactly as stored. Pixels are RGB, 8 bit (deeper clips are
    reduced), upright; pixels that are not square stay so (`SourceInfo.pixel_aspect`). Memory holds a few frames at a
    time.

    A damaged frame between good ones is kept and a SourceWarning says so. A file that is cut off raises SegicError
    after its last good frame. Opening decodes the first frame: UsageError for a missing file, a folder, a file that is
    no video, or one without frames.
    """

    names: None = None  # frames are named by number

    def __init__(self, path: Path, selection: Selection, on_size_change: SizeChange = "error") -> None:
        self._path = path
        self._selection = selection
        self._on_size_change = on_size_change
        require_file(path)
        with self._open() as (container, stream):
            try:
                first = next(decode_frames(container, stream, path), None)
            except BrokenStreamError as broken:
                raise SegicError(f"{path}: no frame could be decoded: {broken}") from broken
            if first is None:
                raise UsageError(f"{path}: a video without frames")
            height, width = RgbConverter().convert(first.frame).shape[:2]
            rate = stream.average_rate or stream.guessed_rate
            self._info = SourceInfo(
                path=path,
                size=(height, width),
                rate=Fraction(rate) / selection.every if rate else None,
                expected_frames=_expected_frames(container, stream, selection),
                pixel_aspect=Orientation.of(first.frame).pixel_aspect(stream.sample_aspect_ratio or Fraction(1)),
            )

    @property
    def info(self) -> SourceInfo:
        """`rate` is that of the frames yielded: a 30 fps clip of which every 2nd frame is taken has 15."""
        return self._info

    def __iter__(self) -> Iterator[Frame]:
        converter = RgbConverter()
        first_damaged, damaged = "", 0
        index, time = 0, None
        try:
            with self._open() as (container, stream):
                for picture in decode_frames(container, stream, self._path):
                    if self._selection.is_past(index):
                        return
                    name = frame_name(index)
                    if picture.damaged:
                        first_damaged, damaged = first_damaged or name, damaged + 1
                    time = _time(picture.frame, stream)
                    if self._selection.takes(index):
                        pixels = fit_size(
                            converter.convert(picture.frame),
                            self._info.size,
                            self._on_size_change,
                            f"{self._path}: frame {name}",
                        )
                        yield Frame(index, name, pixels, time)
                    index += 1
                self._selection.require_reached(index, self._path)
        except BrokenStreamError as broken:
            at = "" if time is None else f" at {float(time):.3f} s"
            raise SegicError(
                f"{self._path}: stopped after frame {frame_name(index - 1)}{at}, {index} good frames: {broken}. "
                "Get a complete copy, or work with the frames that were decoded"
            ) from broken
        finally:
            if damaged:
                warnings.warn(
                    f"{self._path}: damaged frames, used as decoded; the first is {first_damaged}, {damaged} in all",
                    SourceWarning,
                    stacklevel=2,
                )

    @contextmanager
    def _open(self) -> "Iterator[tuple[InputContainer, VideoStream]]":
        import av
        from av.stream import Disposition

        try:
            # "file:" keeps a colon in the name from being read as a protocol; old cameras write metadata that is not
            # UTF-8, which is none of our business.
            container = av.open(f"file:{self._path}", metadata_errors="replace")
        except av.FFmpegError as error:
            raise UsageError(
                f"{self._path}: FFmpeg cannot open it as a video ({error.strerror}). If it should be one, it may be "
                "cut off: an MP4 without its end has lost its index"
            ) from error
        with container:
            streams = [] if container.format.name in _NOT_VIDEO else container.streams.video
            # Cover pictures of music files count as video streams too.
            moving = [stream for stream in streams if not stream.disposition & Disposition.attached_pic]
            if not moving:
                raise UsageError(f"{self._path}: not a video: FFmpeg finds no video stream in it")
            # Frame threading ends silently on cut-off files; slice threading reports them and adds no delay.
            moving[0].thread_type = "SLICE"
            yield container, moving[0]


def require_file(path: Path) -> None:
    """Raise UsageError unless `path` is a file that exists. Pipes are refused: files are read more than once."""
    refuse_address(path)
    if path.is_dir():
        raise UsageError(f"{path}: a folder, expected a video file")
    if not path.exists():
        raise UsageError(f"{path}: no such file")
    if not path.is_file():
        raise UsageError(
            f"{path}: a pipe or a device, expected a regular file, since it is read more than once; write the video "
            "to a file first"
        )


def refuse_address(path: Path) -> None:
    """Raise UsageError for what was written as https://host/clip.mp4; paths have one of the slashes left."""
    if not path.exists() and (address := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", str(path))):
        raise UsageError(
            f"{address[1]}://{address[2]}: an address, expected a path; download the video first, and give its file"
        )


def _time(picture: "VideoFrame", stream: "VideoStream") -> Fraction | None:
    # The stream's time base, since the frames that the decoder gives up at the end come without their own.
    if picture.pts is None or stream.time_base is None:
        return None
    return picture.pts * stream.time_base


def _expected_frames(container: "InputContainer", stream: "VideoStream", selection: Selection) -> int | None:
    """A guess from the headers, for progress only."""
    if stream.frames:
        return selection.count(stream.frames)
    rate = stream.average_rate
    if not rate:
        return None
    if stream.duration is not None and stream.time_base is not None:
        return selection.count(round(stream.duration * stream.time_base * rate))
    if container.duration is not None:
        return selection.count(round(Fraction(container.duration, 1_000_000) * rate))
    return None
