"""FFmpeg's errors while a video is written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segic.files import writing


@contextmanager
def encoding(path: Path) -> Iterator[None]:
    """As `segic.files.writing`, for FFmpeg's errors as well."""
    import av

    with writing(path):
        try:
            yield
        except av.FFmpegError as error:
            raise OSError(error.errno, error.strerror) from error
