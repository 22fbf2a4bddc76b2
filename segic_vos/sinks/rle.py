"""Masks as COCO run-length encodings in one JSON file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from segic.errors import UsageError
from segic.files import make_folder, write_all, writing
from segic_vos.frames import Frame, FrameResult

_START, _END = b"[", b"\n]\n"


def encoder() -> Callable[..., Any]:
    """What encodes masks. Raises UsageError without pycocotools."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UsageError("COCO RLE output needs pycocotools: pip install 'segic[coco]'") from error
    encode: Callable[..., Any] = mask.encode
    return encode


class RleWriter:
    """Writes a JSON list with one entry per frame and object visible in it:

    `{"frame": 12, "name": "00012", "id": 1, "score": 0.93, "segmentation": {"size": [H, W], "counts": "..."}}`, counts
    compressed as pycocotools does it; `score` is null where there is none. Entries are streamed to the file, which is
    valid JSON after every frame, one that does not fit included. Raises UsageError without pycocotools, SegicError when
    the file cannot be written.
    """

    def __init__(self, path: Path | str) -> None:
        self._encode = encoder()
        self._path = path = Path(path)
        make_folder(path.parent)
        with writing(path):
            # Unbuffered: a frame's entries are one write, so that nothing is left over to fail at `close`.
            self._file: BinaryIO = path.open("wb", buffering=0)
            self._end = self._file.write(_START)
            self._put(b"")

    def write(self, frame: Frame, result: FrameResult) -> None:
        visible = [number for number in result.ids if bool((result.labels == number).any())]
        if not visible:
            return
        layers = np.asfortranarray(result.labels[..., None] == np.array(visible, np.int32), np.uint8)
        lines = []
        for number, rle in zip(visible, self._encode(layers), strict=True):
            score = result.scores.get(number)
            entry = {
                "frame": frame.index,
                "name": frame.name,
                "id": number,
                "score": None if score is None else round(float(score), 4),
                "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")},
            }
            lines.append(json.dumps(entry))
        before = ",\n" if self._end > len(_START) else "\n"
        with writing(self._path):
            self._put((before + ",\n".join(lines)).encode())

    def close(self) -> None:
        with writing(self._path):
            self._file.close()

    def _put(self, entries: bytes) -> None:
        """Put `entries` in place of the closing bracket, and a new one after them; all of it or nothing."""
        self._file.seek(self._end)
        try:
            write_all(self._file, entries + _END)
        except OSError:
            self._file.seek(self._end)
            self._file.write(_END)  # where one was: it needs no room
            self._file.truncate()
            raise
        self._end += len(entries)
