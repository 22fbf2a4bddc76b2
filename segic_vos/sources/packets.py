"""Decode a video stream to its end, or to where it is broken, without losing the good frames before that."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .completeness import missing_data

if TYPE_CHECKING:
    from av import FFmpegError, Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream


UNMARKED = frozenset({"mpegts"})  # whose demuxer does not tell that the last packet is incomplete


class BrokenStreamError(Exception):
    """Decoding cannot go on. The message says why; the frames before were yielded."""


@dataclass(frozen=True)
class Picture:
    """A decoded frame. damaged: its data were incomplete, so that parts of it may show something else."""

    frame: "VideoFrame"
    damaged: bool


def decode_frames(container: "InputContainer", stream: "VideoStream", path: Path) -> Iterator[Picture]:
    """The frames of `stream` in display order.

    - A packet that the demuxer could read only in part is decoded when others follow it (a damaged spot: the frame is
      kept, so that the numbering holds) and dropped when it is the last one (the file was cut off there).
    - Packets that do not decode are skipped before the first one that does, as players do: a recording may start
      between two key frames. One that does not decode later ends the stream: frames after it could not be numbered.
    - Nor could those that the decoder still holds at a break, of which others that were to be shown before may be lost;
      of files whose frame rate varies, good ones may be among them.

    Raises BrokenStreamError after the last frame of which that is certain when the stream does not end where it should.
    """
    import av

    started = False  # a packet was decoded, though its frame may still be held back
    skipped: str | None = None
    broken: str | None = None
    last: Packet[VideoStream] | None = None
    gaps = _Gaps(stream)
    incomplete: set[int | None] = set()  # time stamps of packets that lack data; decoders do not always notice

    def decoded(packet: "Packet[VideoStream]") -> "list[VideoFrame]":
        nonlocal started, skipped, last
        if packet.is_corrupt:
            incomplete.add(packet.pts)
        try:
            frames = stream.decode(packet)
        except av.FFmpegError as error:
            if started:
                last = None  # those that follow it are lost as well
                raise
            skipped = _refusal(error)
            return []
        started = True
        return frames

    try:
        for packet in container.demux(stream):
            if packet.size == 0:  # the demuxer's sign for the end; empty packets within a stream have no frame either
                continue
            if last is not None:
                for picture in _judge(decoded(last), incomplete):
                    gaps.show(picture.frame)
                    yield picture
            last = packet
    except av.FFmpegError as error:
        broken = _refusal(error)
    cut = missing_data(container, stream, path)
    if last is not None and last.is_corrupt:
        broken = "the last packet is incomplete: the file is cut off"
    elif cut:
        broken = broken or f"the file is cut off: {cut}"
    unfit = last is None or last.is_corrupt or (cut and container.format.name in UNMARKED)
    held: list[VideoFrame] = []
    for rest in [None] if unfit else [last, None]:  # None: those that wait for others to be shown first
        try:
            held += stream.decode(None) if rest is None else decoded(rest)
        except av.FFmpegError as error:
            broken = broken or _refusal(error)
    for picture in _judge(held, incomplete):
        if broken is not None and gaps.before(picture.frame):
            break
        gaps.show(picture.frame)
        yield picture
    if broken is None and not started:
        broken = skipped
    if broken is not None:
        raise BrokenStreamError(broken)


class _Gaps:
    """Tells, by time stamps, whether between the last frame shown and another there is room for a third."""

    def __init__(self, stream: "VideoStream") -> None:
        self._last: int | None = None
        self._least = math.inf  # of what was seen; the stream's own average says little, but is there
        rate, base = stream.average_rate, stream.time_base
        self._usual = float(1 / (rate * base)) if rate and base else math.inf

    def show(self, frame: "VideoFrame") -> None:
        """The next frame shown."""
        if frame.pts is not None and self._last is not None and frame.pts > self._last:
            self._least = min(self._least, frame.pts - self._last)
        self._last = frame.pts

    def before(self, frame: "VideoFrame") -> bool:
        """Whether it comes later than the next one would, after the shortest time that any frame has been shown for."""
        if frame.pts is None or self._last is None:
            return False
        return frame.pts - self._last > 1.5 * (self._least if self._least < math.inf else self._usual)


def _judge(frames: Iterable["VideoFrame"], incomplete: set[int | None]) -> Iterator[Picture]:
    for frame in frames:
        damaged = frame.is_corrupt or (frame.pts is not None and frame.pts in incomplete)
        incomplete.discard(frame.pts)
        yield Picture(frame, damaged)


def _refusal(error: "FFmpegError") -> str:
    return f"the decoder refused the data ({error.strerror})"
