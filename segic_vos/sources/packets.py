"""Decode a video stream to its end, or to where it is broken, without losing the good frames before that."""

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
    """Decoding cannot go on. The message says why; every frame before was yielded."""


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
    - Nor could those that the decoder still holds at a break, of which others that were to be shown before are lost.

    Raises BrokenStreamError after the last good frame when the stream does not end where it should.
    """
    import av

    started = False  # a packet was decoded, though its frame may still be held back
    skipped: str | None = None
    broken: str | None = None
    last: Packet[VideoStream] | None = None
    shown: VideoFrame | None = None
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
                    shown = picture.frame
                    yield picture
            last = packet
    except av.FFmpegError as error:
        broken = _refusal(error)
    cut = missing_data(container, stream, path)
    if last is not None and last.is_corrupt:
        broken = "the last packet is incomplete: the file is cut off"
    elif cut:
        broken = broken or f"the file is cut off: {cut}"
    held: list[VideoFrame] = []
    try:
        if last is not None and not (last.is_corrupt or (cut and container.format.name in UNMARKED)):
            held += decoded(last)
        held += stream.decode(None)  # those that wait for others to be shown first
    except av.FFmpegError as error:
        broken = broken or _refusal(error)
    for picture in _judge(held, incomplete):
        if broken is not None and shown is not None and _is_gap(shown, picture.frame, stream):
            break
        shown = picture.frame
        yield picture
    if broken is None and not started:
        broken = skipped
    if broken is not None:
        raise BrokenStreamError(broken)


def _is_gap(shown: "VideoFrame", following: "VideoFrame", stream: "VideoStream") -> bool:
    """Whether a frame's time stamp leaves room for another between it and the one shown before."""
    if shown.pts is None or following.pts is None:
        return False
    usual = shown.duration
    if not usual and stream.average_rate and stream.time_base:
        usual = round(1 / (stream.average_rate * stream.time_base))
    return bool(usual) and following.pts - shown.pts > 1.5 * usual


def _judge(frames: Iterable["VideoFrame"], incomplete: set[int | None]) -> Iterator[Picture]:
    for frame in frames:
        damaged = frame.is_corrupt or (frame.pts is not None and frame.pts in incomplete)
        incomplete.discard(frame.pts)
        yield Picture(frame, damaged)


def _refusal(error: "FFmpegError") -> str:
    return f"the decoder refused the data ({error.strerror})"
