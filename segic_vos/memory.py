"""How many frames go through the backbone together within a given memory (`--max-memory`)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from segic.backbones import width_of
from segic.config import ModelConfig
from segic.devices import release_freed_memory
from segic.errors import UsageError
from segic.model import ENTITIES_AT_ONCE, ENTITIES_AT_ONCE_CPU
from segic.thinning import TOGETHER
from segic.weights.dinov2_layout import PATCH
from segic_vos.quality import SIZES
from segic_vos.summary import peak_memory_mb
from segic_vos.wording import counted

_BATCH = {"cuda": 8}  # by device, else _USUAL_BATCH; a small backbone does not keep a GPU at work with fewer
_USUAL_BATCH = 4
_LARGEST_BATCH = {"cuda": 16}  # more than the default brings nothing on a CPU

_SUFFIXES = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "KI": 1024, "MI": 1024**2, "GI": 1024**3}

# Measured on a CPU with segic-s (DINOv2-S, 384 channels) at 336, 476 and 672 px: peak resident memory of `encode` with
# 1 to 4 frames of 854x480 and 3840x2160, and of `VideoSession.step` with 1 to 16 objects; rounded up.
_MEASURED_WIDTH = 384
_BACKBONE = {2: 150, 4: 210}  # bytes a pixel of the canvas in a batch, by bytes of a number; as 4 beside int8
_QUEUED = 11  # bytes a byte of a decoded frame: three copies on their way, one stacked, one as floats
_STARTING = 150e6  # weights that are read at first use, and what libraries set up then
_OBJECT = 60  # bytes a pixel of the canvas and object decoded together
_OBJECT_FULL = 16  # bytes a pixel of the frame and object: logits at full size
# The same on an H100 (480p, 8 frames, segic-s at 476 and 672 px, DINOv2-L at 896 px), where work is recorded and keeps
# its memory: 360 bytes a pixel were allocated, and the allocator keeps some more.
_RECORDED, _RECORDED_OBJECT = 500, 150
_MATCHING = 20e6
_LOADED = 400  # MB with a loaded model, where the system does not say
_WRITERS = 130  # bytes a pixel of the frame: results on their way to the disk, the overlay's encoder


@dataclass(frozen=True)
class Workload:
    """What decides how much memory a clip takes. canvas, frame: (height, width). objects: followed together."""

    config: ModelConfig
    precision: torch.dtype
    canvas: tuple[int, int]
    frame: tuple[int, int]
    objects: int

    def bytes_a_frame(self, device: torch.device) -> float:
        """Of one more frame in the batch."""
        scale = width_of(self.config.backbone) / _MEASURED_WIDTH
        each = scale * _BACKBONE.get(self.precision.itemsize, _BACKBONE[4])
        if device.type == "cuda":
            each = max(each, _RECORDED)
        backbone = self.canvas[0] * self.canvas[1] * each
        raw = 3 * self.frame[0] * self.frame[1]
        return backbone + raw * (_QUEUED if device.type == "cpu" else 5)  # decoded frames wait on the host

    def fixed_bytes(self, device: torch.device) -> float:
        """Beside the batch, and beyond what a loaded model holds."""
        canvas, frame = self.canvas[0] * self.canvas[1], self.frame[0] * self.frame[1]
        each = _RECORDED_OBJECT if device.type == "cuda" else _OBJECT
        together = ENTITIES_AT_ONCE_CPU if device.type == "cpu" else ENTITIES_AT_ONCE
        objects = each * canvas * min(self.objects, together) + _OBJECT_FULL * frame * self.objects
        if device.type != "cpu":
            return objects + _MATCHING
        tokens = min(canvas / PATCH**2, TOGETHER) if self.config.matching is not None else 0
        return objects + _MATCHING + tokens**2 + _STARTING + _WRITERS * frame  # pairs of an example's background


def choose_batch(work: Workload, device: torch.device, limit: int, held: float | None = None) -> int:
    """The largest batch that is expected to fit into `limit` bytes: of a CUDA device, else of this process.
    held: bytes of it before its first clip; None: what it holds now.

    Raises UsageError where a single frame is expected not to fit.
    """
    used, room = used_memory(device) if held is None else held, float(limit)
    if device.type == "cuda":
        room = min(room, torch.cuda.memory_reserved(device) + torch.cuda.mem_get_info(device)[0])
    first = used + work.fixed_bytes(device) + work.bytes_a_frame(device)
    if first > room:
        height, width = work.frame
        objects = counted(work.objects, "object")
        smaller = work.config.size > min(SIZES)
        advice = "Allow more, or lower --size or --quality" if smaller else "Allow more, or give a smaller --size"
        free = f"; only {show_bytes(room)} are free" if room < limit else ""
        raise UsageError(
            f"--max-memory {show_bytes(limit)}: even one frame at a time is expected to need {show_bytes(first)}, "
            f"{show_bytes(used)} of them for the model, the rest for {objects} in {width}x{height} frames at "
            f"{work.config.size} px{free}. {advice}"
        )
    more = int((room - first) // work.bytes_a_frame(device))
    return min(1 + more, _LARGEST_BATCH.get(device.type, _USUAL_BATCH))


def default_batch(device: torch.device) -> int:
    """How many frames go through the backbone together where nobody limits that."""
    return _BATCH.get(device.type, _USUAL_BATCH)


def parse_bytes(text: str) -> int:
    """Bytes of "2G", "800M", "1.5GiB" or a plain number. K, M and G are powers of 1000, Ki, Mi and Gi of 1024.

    Raises UsageError for anything else.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([kmg]?i?)b?\s*", text, re.IGNORECASE)
    if match is None or match[2].upper() not in _SUFFIXES:
        raise UsageError(f"--max-memory {text!r}: expected bytes, for instance 800M, 2G, 1.5GiB or 2000000000")
    value = int(float(match[1]) * _SUFFIXES[match[2].upper()])
    if value < 1:
        raise UsageError(f"--max-memory {text!r}: expected more than nothing")
    return value


def show_bytes(value: float) -> str:
    """For people: "1.9 GB", "640 MB", "12 kB"."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:.{1 if unit == 1e9 else 0}f} {name}"
    return f"{value:.0f} bytes"


def used_memory(device: torch.device) -> float:
    """Bytes that this process holds now, on the host or on the GPU, without what earlier clips have left behind."""
    release_freed_memory(device)
    if device.type == "cuda":
        return float(torch.cuda.memory_reserved(device))
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:  # not Linux: the peak so far, which is that of loading the model
        return (peak_memory_mb()["host"] or _LOADED) * 1e6
    return float(pages * os.sysconf("SC_PAGE_SIZE"))
