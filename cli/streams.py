"""The program's standard streams: results must arrive, or the user is told; messages are dispensable."""

from __future__ import annotations

import errno
import io
import os
import sys
import time
from pathlib import Path
from typing import IO, Any

from .lazy import Failure

_PAUSE = 0.01  # seconds


def settle_streams() -> None:
    """Replace standard output by one whose failure is one line and status 1, and standard error by one that may fail.

    A stream that the caller has closed becomes the null device: otherwise the next file that is opened would get its
    number, and with it whatever a library writes there.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, _null_device(number))
        elif hasattr(stream, "buffer"):  # else not a standard stream, but what a Python user has put there
            setattr(sys, name, _over(stream, _Results if name == "stdout" else _Messages))


class _Watched(io.RawIOBase):
    """Passes bytes on unbuffered, so that what could not be written is not tried again when the program ends."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream  # kept, since it closes what is below it when it goes
        self._below = getattr(stream.buffer, "raw", stream.buffer)
        self.name = getattr(stream, "name", "")

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return bool(self._below.isatty())

    def fileno(self) -> int:
        return int(self._below.fileno())

    def write(self, data: Any) -> int:
        """All of `data`; returns its size."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left:
                written = self._below.write(left)
                if written is None:  # a pipe that does not block is full
                    time.sleep(_PAUSE)
                left = left[written or 0 :]
        except OSError as error:
            self._fail(error)
        return size

    def _fail(self, error: OSError) -> None:
        raise NotImplementedError


class _Messages(_Watched):
    """A full disk behind the log is no reason to lose hours of work."""

    def _fail(self, error: OSError) -> None:
        pass


class _Results(_Watched):
    def _fail(self, error: OSError) -> None:
        if error.errno == errno.EPIPE:  # `| head` has read enough; click ends the program silently
            raise error
        raise Failure(f"standard output: {error.strerror or error}", 1) from error


def _over(stream: Any, kind: type[_Watched]) -> IO[str]:
    return io.TextIOWrapper(kind(stream), encoding=stream.encoding, errors=stream.errors, write_through=True)


def _null_device(number: int) -> IO[str]:
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, os.O_WRONLY)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        os.set_inheritable(number, True)  # for the programs that this one starts
    return Path(os.devnull).open("w", encoding="utf-8")
