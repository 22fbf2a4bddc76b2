"""Tell a video file that was cut off from one whose header merely states a wrong number of frames.

A cut at the edge of a packet looks to the demuxer like a regular end. Frame counts and durations in headers are often
wrong, so they prove nothing; bytes that the file's own structure names and that are not there do.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_SEGMENT = b"\x18\x53\x80\x67"  # Matroska's outermost element
_TS_PACKETS = (188, 192, 204)  # bytes; the longer ones have a time stamp, or what mends errors, beside


def missing_data(container: "InputContainer", stream: "VideoStream", path: Path) -> str | None:
    """What shows that `path` was cut off, in words, or None where nothing does. Call it after the last packet."""
    size = path.stat().st_size
    formats = container.format.name.split(",")
    if "matroska" in formats:
        expected = _matroska_size(path)
    elif "mpegts" in formats:
        return "its last transport packet is incomplete" if all(size % each for each in _TS_PACKETS) else None
    else:
        entries = stream.index_entries
        expected = entries[len(entries) - 1].pos + entries[len(entries) - 1].size if len(entries) else None
    if expected is None or expected <= size:
        return None
    return f"its index names data up to byte {expected}, the file ends at byte {size}"


def _matroska_size(path: Path) -> int | None:
    """The file size that the Segment element states, None where it is open-ended (a live recording)."""
    with path.open("rb") as file:
        head = file.read(4096)
    at = head.find(_SEGMENT)
    if at < 0 or at + 5 > len(head) or head[at + 4] == 0:
        return None
    # An EBML size: the position of the first set bit gives its length in bytes, all other bits one means "unknown".
    length = 9 - head[at + 4].bit_length()
    value = int.from_bytes(head[at + 4 : at + 4 + length], "big") & ((1 << 7 * length) - 1)
    if value == (1 << 7 * length) - 1:
        return None
    return at + 4 + length + value
