"""From a path to a source of frames."""

from pathlib import Path
from typing import Literal

from segic.errors import UsageError

from .decord_video import DecordVideo
from .folder import FrameFolder
from .selection import Selection
from .sizing import SizeChange
from .video import VideoFile

Decoder = Literal["pyav", "decord"]


def open_source(
    path: Path | str,
    *,
    decoder: Decoder = "pyav",
    start: int = 0,
    end: int | None = None,
    every: int = 1,
    on_size_change: SizeChange = "error",
    without: Path | None = None,
) -> VideoFile | DecordVideo | FrameFolder:
    """The frames of a video file or of a folder of pictures.

    start, end, every: which frames, counted in the source from 0; `end` is left out. on_size_change: what to do with a
    frame that has another size than the first one, "error" or "resize". without: a file of the folder that is none of
    its frames. The result's `names` are the names of all frames where they are known beforehand (folders), else None
    (videos: numbers).

    Raises UsageError for a request that cannot be carried out, see `VideoFile` and `FrameFolder`.
    """
    if decoder not in ("pyav", "decord"):
        raise UsageError(f"decoder={decoder!r}: expected 'pyav' or 'decord'")
    if on_size_change not in ("error", "resize"):
        raise UsageError(f"on_size_change={on_size_change!r}: expected 'error' or 'resize'")
    path = Path(path)
    selection = Selection(start, end, every)
    if path.is_dir():
        return FrameFolder(path, selection, on_size_change, without)
    if decoder == "decord":
        return DecordVideo(path, selection)
    return VideoFile(path, selection, on_size_change)
