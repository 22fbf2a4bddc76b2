"""Results that a GPU is still working on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from segic_vos.frames import FrameResult

Array = NDArray[Any]
# Bytes: for larger tensors the host waits. Labels of 4K fit, many soft masks do not: torch gives no pinned memory back.
PINNED = 2**25


class Pending:
    """One frame's result, that is asked for now and read later: meanwhile a GPU can be given the next frame."""

    def __init__(self, fetched: Fetched | None, finish: Callable[[Sequence[Array | None]], FrameResult]) -> None:
        """finish: from the arrays of `fetched`, in its order, none where it is None, to the result."""
        self._fetched = fetched
        self._finish = finish

    @classmethod
    def known(cls, result: FrameResult) -> Pending:
        """A result that is there."""
        return cls(None, lambda _: result)

    @property
    def ready(self) -> bool:
        """Whether `result` has nothing to wait for."""
        return self._fetched is None or self._fetched.ready

    def result(self) -> FrameResult:
        """Waits for it."""
        return self._finish([] if self._fetched is None else self._fetched.arrays())


class Fetched:
    """Tensors of one device on their way to the host's memory, in the order of the device's work; None stays None."""

    def __init__(self, *tensors: Tensor | None) -> None:
        self._here = [None if tensor is None else _sent(tensor) for tensor in tensors]
        gpu = next((t.device for t in tensors if t is not None and t.device.type == "cuda"), None)
        self._arrived = None if gpu is None else torch.cuda.current_stream(gpu).record_event()

    @property
    def ready(self) -> bool:
        """Whether all are there."""
        return self._arrived is None or bool(self._arrived.query())

    def arrays(self) -> list[Array | None]:
        """Waits for them. On a CPU they are the tensors' own memory."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return [None if tensor is None else tensor.numpy() for tensor in self._here]


def _sent(tensor: Tensor) -> Tensor:
    if tensor.device.type != "cuda" or tensor.nbytes > PINNED:
        return tensor.cpu()
    # Memory that the GPU writes to by itself; torch takes it back when nobody needs the array any more.
    here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return here.copy_(tensor, non_blocking=True)
