"""Where a model runs, and in which precision its backbone; what is known of the machine."""

import ctypes
import gc
import os
import platform
import re
import sys
from pathlib import Path

import torch

from segic.byte_products import MISSING, largest_weight
from segic.errors import UsageError
from segic.recorded import free_cached

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PRODUCTS = {**DTYPES, "int8": torch.int8}


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """auto: CUDA, else MPS, else the CPU. Also "cuda:1". UsageError for a device that this machine lacks."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    name = str(name)
    kind, _, number = name.partition(":")
    if kind not in DEVICES or (":" in name and not (kind == "cuda" and number.isdecimal())):
        raise UsageError(f"device {name!r}: expected one of {', '.join(DEVICES)}, or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {name!r}: this installation of torch sees no CUDA device; try --device cpu")
    if number and int(number) >= torch.cuda.device_count():
        raise UsageError(f"device {name!r}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"device {name!r}: this machine has no MPS device; try --device cpu")
    return torch.device(name)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """auto: bfloat16 where the device multiplies it in hardware; else float16 on GPUs, float32 on CPUs."""
    if name != "auto":
        if name not in DTYPES:
            raise UsageError(f"dtype {name!r}: expected one of auto, {', '.join(DTYPES)}")
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if cpu_multiplies_bfloat16() else torch.float32


def choose_products(name: str, device: torch.device, *, int8: bool) -> torch.dtype:
    """What a frozen backbone multiplies: as `choose_dtype`, or int8, which auto takes on CPUs that multiply it faster.
    int8: whether auto may take it. UsageError for what there is not.
    """
    if name not in ("auto", *PRODUCTS):
        raise UsageError(f"dtype {name!r}: expected one of auto, {', '.join(PRODUCTS)}")
    if name == "int8" and device.type != "cpu":
        raise UsageError(f"dtype 'int8': it is for CPUs, and the device is {device}; give auto, or --device cpu")
    if name == "int8" and largest_weight() is None:
        raise UsageError(MISSING)
    if name != "auto":
        return PRODUCTS[name]
    return torch.int8 if int8 and device.type == "cpu" and cpu_multiplies_bytes() else choose_dtype(name, device)


def beside_products(products: torch.dtype, device: torch.device) -> torch.dtype:
    """The precision of all else where a backbone multiplies these: their own, or beside int8 what auto chooses."""
    return choose_dtype("auto", device) if products == torch.int8 else products


def cpu_multiplies_bytes() -> bool:
    """Faster than all else, with what it takes to make bytes of numbers: not measured where AMX multiplies bfloat16."""
    if cpu_has("amx_tile") or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return False
    return largest_weight() is not None


def cpu_multiplies_bfloat16() -> bool:
    """In hardware."""
    return cpu_has("avx512_bf16") or cpu_has("amx_tile")


def cpu_has(feature: str) -> bool:
    """Whether this CPU has the instructions "avx512_bf16" or "amx_tile", to torch's knowledge.

    torch has no public name for this yet, and early versions of torch 2 have none at all.
    """
    supported = getattr(torch.cpu, f"_is_{feature}_supported", None)
    return bool(supported is not None and supported())


def processor_name() -> str:
    """The CPU's name as the system has it, "" where it does not say."""
    try:
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    match = re.search(r"^model name\s*:\s*(.+)$", facts, re.MULTILINE)
    return match[1].strip() if match else platform.processor()


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_host_memory() -> int | None:
    """Bytes: the largest that this process has been, None where the system does not say."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def release_freed_memory(device: torch.device) -> None:
    """Returns to the system what is freed and what allocators keep for later: of the C library's, glibc's alone can be
    asked.
    """
    gc.collect()
    free_cached(device)
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
