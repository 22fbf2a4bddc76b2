"""Safetensors files: read memory-mapped, looked at without loading, written all or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from segic.errors import SegicError, UsageError
from segic.files import whole

if TYPE_CHECKING:
    from torch import Tensor

    from segic.weights.dinov2_layout import Shape


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU, memory-mapped: their bytes are read when they are used.

    Raises UsageError when the file does not exist or is not in that format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    require_file(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UsageError(f"{path} cannot be read as a safetensors file: {error}") from error


def read_header(path: Path) -> tuple[dict[str, Shape], dict[str, str]]:
    """(shape by tensor name, metadata) of a safetensors file, from its header alone. Errors as `load_tensors`."""
    from safetensors import SafetensorError, safe_open

    require_file(path)
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - not a dict
            return shapes, dict(file.metadata() or {})
    except SafetensorError as error:
        raise UsageError(f"{path} cannot be read as a safetensors file: {error}") from error


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str], look: Callable[[Path], None] | None = None
) -> None:
    """Write `tensors` to `path`, whose old content stays whole until the new one is complete on disk.

    The same tensors and metadata give the same bytes, so that the files' hashes can be compared between machines.
    look: called with the complete file under another name, just before it becomes `path`.
    Raises SegicError when it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            part.touch()
            mode = part.stat().st_mode  # as the user's umask has it: save_file makes private files
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, part, dict(metadata))
            part.chmod(mode)
            with part.open("rb+") as file:
                _sort_metadata(file)
                os.fsync(file.fileno())
            if look is not None:
                look(part)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error  # the rest of it names a file that is gone
        raise SegicError(f"{path} cannot be written: {reason}") from error


def _sort_metadata(file: BinaryIO) -> None:
    """Put a new file's metadata in the order of their names: `save_file` writes them in a random one."""
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    if len(content) <= length:  # else it was escaped another way: any order is valid
        file.seek(8)
        file.write(content.ljust(length))


def require_file(path: Path) -> None:
    """Raise UsageError unless `path` is a file that can be read."""
    if not path.is_file():
        what = "is a folder, expected a file" if path.is_dir() else "does not exist"
        raise UsageError(f"the weights file {path} {what}")
    if not os.access(path, os.R_OK):
        raise UsageError(f"the weights file {path} cannot be read: permission denied")
