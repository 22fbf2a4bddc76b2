"""Functions of tensors that a GPU runs without being told each of their kernels anew: CUDA graphs.

Launching a kernel takes the host several microseconds, which is longer than most kernels of a small model run. A
recorded function is told once; afterwards its arguments are copied to where the recording reads them, and one launch
replays it all.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from segic.remembered import kept_results

R = TypeVar("R")

KEPT = 4  # recordings, one for each form of the arguments; each keeps its memory on the GPU
# Held while something is recorded. torch's memory is then not to be tidied up, nor may two threads record at once.
RECORDING = threading.RLock()


class Recorded(Generic[R]):
    """`function`, recorded when it is called for the second time with arguments of a form: the shapes of their tensors
    and all else in them.

    Arguments and result are made of tensors of one GPU, frozen dataclasses, tuples, and plain values that can be
    hashed. The function must wait for the GPU nowhere and must not write to its arguments. Of the result, what is an
    argument's tensor is that of this call; all other tensors are the caller's to keep. For one thread at a time. What a
    GPU or its memory does not let be recorded is run as it is.

    urgent: its kernels go before those of other streams.
    """

    def __init__(self, function: Callable[..., R], *, urgent: bool = False) -> None:
        self._function = function
        self._urgent = urgent
        # None: called once. False: cannot be recorded.
        self._recordings: OrderedDict[Hashable, _Recording[R] | bool | None] = OrderedDict()

    def __call__(self, *arguments: Any) -> R:
        tensors: list[Tensor] = []
        key = form(arguments, tensors)
        if key not in self._recordings:
            while len(self._recordings) >= KEPT:
                self._recordings.popitem(last=False)
            self._recordings[key] = None
            return self._function(*arguments)
        self._recordings.move_to_end(key)
        recording = self._recordings[key]
        with torch.cuda.device(tensors[0].device):  # whose streams are then meant, of several GPUs
            if recording is None:
                try:
                    with RECORDING:
                        made = _Recording(self._function, arguments, tensors, -1 if self._urgent else 0)
                except RuntimeError:
                    recording = self._recordings[key] = False
                else:
                    self._recordings[key] = made
                    return made.first(tensors)
            return recording.play(tensors) if isinstance(recording, _Recording) else self._function(*arguments)

    def forget(self) -> None:
        """Gives back the memory of all recordings."""
        self._recordings.clear()


class _Recording(Generic[R]):
    def __init__(
        self, function: Callable[..., R], arguments: tuple[Any, ...], tensors: list[Tensor], priority: int
    ) -> None:
        self._inputs = [tensor.clone() for tensor in tensors]
        self._last: list[Tensor | None] = [None] * len(tensors)
        self._graph = torch.cuda.CUDAGraph()
        own = filled(arguments, iter(self._inputs))
        here, beside = torch.cuda.current_stream(), torch.cuda.Stream(priority=priority)
        beside.wait_stream(here)
        try:
            with torch.cuda.stream(beside), kept_results() as self._read:
                # Libraries set themselves up for the stream; the result is as good as any.
                self._first: R | None = function(*own)
                # Other threads go on with work of their own meanwhile.
                self._graph.capture_begin(capture_error_mode="thread_local")
                try:
                    self._result = function(*own)
                finally:
                    self._graph.capture_end()
        finally:
            here.wait_stream(beside)
        self._outputs = tensors_of(self._result)
        number_of = {id(tensor): number for number, tensor in enumerate(self._inputs)}
        self._passed = [number_of.get(id(tensor)) for tensor in self._outputs]

    def first(self, tensors: list[Tensor]) -> R:
        """The result for the arguments that were recorded, once. `tensors`: theirs."""
        result, self._first = self._first, None
        made = tensors_of(result)
        for tensor in made:
            tensor.record_stream(torch.cuda.current_stream())
        return self._with(result, tensors, made)

    def play(self, tensors: list[Tensor]) -> R:
        """`tensors`: of arguments of the recorded form."""
        triples = zip(self._inputs, tensors, self._last, strict=True)
        _copy((own, new) for own, new, last in triples if new is not last)
        self._last = list(tensors)
        self._graph.replay()
        copies = [t if n is not None else torch.empty_like(t) for t, n in zip(self._outputs, self._passed, strict=True)]
        _copy((c, t) for c, t in zip(copies, self._outputs, strict=True) if c is not t)
        return self._with(self._result, tensors, copies)

    def _with(self, result: R | None, tensors: list[Tensor], made: list[Tensor]) -> R:
        """`result` with the tensors `made` in the places of its own, but for those that are arguments'."""
        kept = (own if n is None else tensors[n] for own, n in zip(made, self._passed, strict=True))
        out: R = filled(result, kept)
        return out


def free_cached(device: torch.device) -> None:
    """Give back what the device's allocator keeps. Call it outside of the `except` block: the error holds tensors."""
    if device.type == "cuda":
        with RECORDING:
            torch.cuda.empty_cache()


def _copy(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Every second tensor to the first: those of one type at once."""
    by_type: dict[torch.dtype, list[tuple[Tensor, Tensor]]] = {}
    for into, of in pairs:
        by_type.setdefault(of.dtype, []).append((into, of))
    for alike in by_type.values():
        torch._foreach_copy_([into for into, _ in alike], [of for _, of in alike])


def form(value: Any, tensors: list[Tensor]) -> Hashable:
    """What is left of `value` without its tensors' numbers: two of the same form can replace each other. All tensors in
    it are appended to `tensors`, in the order of the dataclasses' fields and of the tuples' parts.
    """
    if isinstance(value, Tensor):
        tensors.append(value)
        return (value.dtype, value.shape, value.device)
    if isinstance(value, tuple):
        return tuple([form(part, tensors) for part in value])
    kind: Any = type(value)
    if names := _fields(kind):
        return (kind, *[form(getattr(value, name), tensors) for name in names])
    hashable: Hashable = value
    return hashable


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors in `value`, in the order of `form`."""
    tensors: list[Tensor] = []
    form(value, tensors)
    return tensors


def filled(value: Any, tensors: Iterator[Tensor]) -> Any:
    """`value` with other tensors in the places of its own, in the order of `form`."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, tuple):
        return tuple([filled(part, tensors) for part in value])
    kind: Any = type(value)
    if names := _fields(kind):
        return kind(**{name: filled(getattr(value, name), tensors) for name in names})
    return value


@lru_cache(maxsize=64)
def _fields(kind: type) -> tuple[str, ...]:
    """Of a dataclass; nothing for other types."""
    return tuple(f.name for f in fields(kind)) if is_dataclass(kind) else ()
