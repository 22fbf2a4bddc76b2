"""What the machine could do: a matrix product, a copy; and how many operations a backbone needs."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from segic import byte_products
from segic.backbones.fovea import Fovea
from segic.model import SEGIC

SECONDS = 0.2  # for each measurement
_SIDE = {"cpu": 1024}  # of the matrices; large enough to be at the limit, small enough to be quick
_SIDE_OF_OTHERS = 8192
_COPIED = {"cpu": 2**26}  # bytes
_COPIED_BY_OTHERS = 2**28


@dataclass(frozen=True)
class Limits:
    """Rates of one device. product: operations a second (a multiplication and an addition are two) of a matrix product.

    copy: bytes read and written a second within the device's memory. upload: bytes a second from pinned host memory to
    the device, None on a CPU.
    """

    product: float
    copy: float
    upload: float | None


def measure_limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """The best of several tries within `SECONDS` each: other programs on the machine can only make them slower."""
    side = _SIDE.get(device.type, _SIDE_OF_OTHERS)
    work = _product_of_bytes(side) if dtype == torch.int8 else _product(side, device, dtype)
    product = 2 * side**3 / _fastest(work, device)
    size = _COPIED.get(device.type, _COPIED_BY_OTHERS)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = 2 * size / _fastest(lambda: target.copy_(source), device)
    upload = None
    if device.type == "cuda":
        pinned = torch.zeros(size, dtype=torch.uint8, pin_memory=True)
        upload = size / _fastest(lambda: target.copy_(pinned, non_blocking=True), device)
    return Limits(product, copy, upload)


def _product(side: int, device: torch.device, dtype: torch.dtype) -> Callable[[], object]:
    a = torch.randn(side, side, device=device).to(dtype)
    out = torch.empty_like(a)
    return lambda: torch.mm(a, a, out=out)


def _product_of_bytes(side: int) -> Callable[[], object]:
    weight = byte_products.packed(torch.ones(side, side, dtype=torch.int8))
    given, steps = torch.ones(side, side, dtype=torch.uint8), torch.ones(side)
    return lambda: byte_products.multiplied(given, 1.0, 0, weight, steps)


def _fastest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the quickest run, after one to warm up."""
    work()
    synchronise(device)
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return min(times)


def synchronise(device: torch.device) -> None:
    """Wait for the device; on a CPU there is nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def backbone_operations(model: SEGIC, frame: tuple[int, int], fovea: Fovea | None = None) -> int:
    """Operations of the backbone for one frame of (height, width) pixels: its matrix products and convolutions, counted
    while it runs once. fovea: of a foveated frame.
    """
    canvas = model.canvas(frame)
    pixels = torch.zeros(1, 3, *canvas.padded, device=model.device)
    # The counter does not know every fused attention; spelled out it is two products.
    counter = FlopCounterMode(display=False, custom_mapping=_prepared_products())
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model.backbone(pixels, canvas.valid, fovea)
    return int(counter.get_total_flops())


def _prepared_products() -> dict[Any, Callable[..., int]]:
    """How the operations of products with prepared weights are counted, see `segic.backbones.frozen_linear` and
    `segic.byte_products`.
    """

    def packed(inputs: Sequence[int], weight: Sequence[int], *_: object, **_shape: object) -> int:
        return 2 * prod(inputs) * weight[0]

    def of_bytes(inputs: Sequence[int], _s: object, _z: object, weight: Sequence[int], *_: object, **_d: object) -> int:
        return 2 * prod(inputs) * weight[1]

    known: dict[Any, Callable[..., int]] = {}
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        known[torch.ops.mkldnn._linear_pointwise] = packed
    if hasattr(torch.ops.onednn, "qlinear_pointwise"):
        known[torch.ops.onednn.qlinear_pointwise] = of_bytes
    return known
