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

    Raises BrokenStreamError after the last good frame when the stream does not end where it should.
    """
    import av

    started = False  # a packet was decoded, though its frame may still be held back
    skipped: str | None = None
    broken: str | None = None
    held: Packet[VideoStream] | None = None
    incomplete: set[int | None] = set()  # time stamps of packets that lack data; decoders do not always notice
    try:
        for packet in container.demux(stream):
            if packet.size == 0:  # the demuxer's sign for the end; empty packets within a stream have no frame either
                continue
            ready, held = ([held, packet], None) if held is not None else ([packet], None)
            if packet.is_corrupt:
                held = ready.pop()
                incomplete.add(packet.pts)
            for whole in ready:
                try:
                    decoded = stream.decode(whole)
                except av.FFmpegError as error:
                    if started:
                        raise
                    skipped = _refusal(error)
                    continue
                started = True
                yield from _judge(decoded, incomplete)
    except av.FFmpegError as error:
        broken = _refusal(error)
    if held is not None:
        broken = "the last packet is incomplete: the file is cut off"
    # The decoder still holds frames: those that wait for others to be shown first.
    try:
        yield from _judge(stream.decode(None), incomplete)
    except av.FFmpegError as error:
        broken = broken or _refusal(error)
    if broken is None:
        cut = missing_data(container, stream, path)
        broken = f"the file is cut off: {cut}" if cut else None
    if broken is None and not started:
        broken = skipped
    if broken is not None:
        raise BrokenStreamError(broken)


def _judge(frames: Iterable["VideoFrame"], incomplete: set[int | None]) -> Iterator[Picture]:
    for frame in frames:
        damaged = frame.is_corrupt or (frame.pts is not None and frame.pts in incomplete)
        incomplete.discard(frame.pts)
        yield Picture(frame, damaged)


def _refusal(error: "FFmpegError") -> str:
    return f"the decoder refused the data ({error.strerror})"
