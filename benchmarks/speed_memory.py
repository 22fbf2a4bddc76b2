"""Peak memory of a piece of work, on the host and on the device."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from segic.devices import release_freed_memory

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # what the kernel takes as "start the high-water mark anew"


@dataclass
class Peak:
    """Bytes; None where the system does not say. host: the process's largest resident size. host_before: when the work
    began, models and libraries included. device, device_before: the same of the allocator's sum, CUDA only.
    """

    host: int | None = None
    host_before: int | None = None
    device: int | None = None
    device_before: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Measure the block; the yielded `Peak` is filled in when it ends. The host's share needs Linux."""
    peak = Peak()
    release_freed_memory(device)  # it would hide what this run takes itself
    resettable = _reset_host_peak()
    if resettable:
        peak.host_before = _status("VmRSS")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        peak.device_before = torch.cuda.memory_reserved(device)
    try:
        yield peak
    finally:
        if resettable:
            peak.host = _status("VmHWM")
        if device.type == "cuda":
            # Not what is allocated: nobody else can use what recordings keep.
            peak.device = torch.cuda.max_memory_reserved(device)


def _reset_host_peak() -> bool:
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _status(field: str) -> int | None:
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return None
