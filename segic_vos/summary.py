"""What a run did, as `summary.json` says it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from segic.config import ModelConfig
from segic.devices import peak_host_memory
from segic.weights import file_sha256
from segic_vos.frames import SourceInfo
from segic_vos.records import ObjectSummary
from segic_vos.timings import Timings

Status = Literal["running", "complete", "failed", "interrupted"]


@dataclass(frozen=True)
class RunSummary:
    """One clip's run.

    frames: finished in all, `resumed` of them by an earlier run; `timings` is of this run alone. reason: why a run
    failed. choices: what the run worked with, see `segic_vos.choices`. Where nothing was left to do, `timings` and
    `choices` are those of the run that finished the clip. model, settings: everything needed to repeat it. outputs:
    what was written, by kind. first_frame: its look, see `segic_vos.resume.look_of`.
    """

    status: Status
    source: SourceInfo
    frames: int
    resumed: int
    objects: tuple[ObjectSummary, ...]
    timings: Timings
    model: Mapping[str, Any]
    choices: Mapping[str, Any]
    settings: Mapping[str, Any]
    outputs: Mapping[str, Path]
    notes: tuple[str, ...] = ()
    reason: str | None = None
    first_frame: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: plain values only."""
        height, width = self.source.size
        rate = self.source.rate
        return {
            "program": "segic",
            "status": self.status,
            "reason": self.reason,
            "video": {
                "path": None if self.source.path is None else str(self.source.path),
                "width": width,
                "height": height,
                "rate": None if rate is None else str(rate),
                "expected_frames": self.source.expected_frames,
                "first_frame": self.first_frame,
            },
            "frames": self.frames,
            "resumed_frames": self.resumed,
            "objects": [asdict(item) for item in self.objects],
            "timings_s": self.timings.as_dict(),
            "peak_memory_mb": peak_memory_mb(),
            "choices": dict(self.choices),
            "model": dict(self.model),
            "settings": dict(self.settings),
            "versions": versions(),
            "outputs": {kind: str(path) for kind, path in self.outputs.items()},
            "notes": list(self.notes),
        }


def describe_model(
    name: str, config: ModelConfig, device: torch.device, dtype: torch.dtype, weight_files: Mapping[str, Path]
) -> dict[str, Any]:
    """A model in plain values: names, size, configuration, where it runs, and the hashes of its weight files."""
    return {
        "name": name,
        "size": config.size,
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "weights": {part: {"file": path.name, "sha256": file_sha256(path)} for part, path in weight_files.items()},
        "config": json.loads(json.dumps(config.as_dict())),
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide what comes out."""
    import segic

    found = {"python": platform.python_version(), "platform": platform.platform(), "segic": segic.__version__}
    for name in ("torch", "numpy", "pillow", "av", "opencv-python-headless"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def _peak_device_memory() -> int:
    """In bytes, of the GPU that was used most: which one is the current one says nothing of that."""
    return max(torch.cuda.max_memory_reserved(index) for index in range(torch.cuda.device_count()))


def peak_memory_mb() -> dict[str, float | None]:
    """The largest this process has been, in MB: on the host, and on the GPU where there is one (None otherwise)."""
    host = peak_host_memory()
    used = torch.cuda.is_available() and torch.cuda.is_initialized()
    return {
        "host": None if host is None else round(host / 1e6, 1),
        "device": round(_peak_device_memory() / 1e6, 1) if used else None,
    }
