"""Functions of tensors that a GPU runs without being told each of their kernels anew: CUDA graphs.

Launching a kernel takes the host several microseconds, which is longer than most kernels of a small model run. A
recorded function is told once; afterwards its arguments are copied to where the recording reads them, and one launch
replays it all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

R = TypeVar("R")

KEPT = 4  # recordings, one for each form of the arguments; each keeps its memory on the GPU


class Recorded(Generic[R]):
    """`function`, recorded for each form of its arguments: the shapes of their tensors and all else in them.

    Arguments and result are made of tensors, frozen dataclasses, tuples, and plain values that can be hashed. The
    function must wait for the GPU nowhere and must not write to its arguments. Of the result, what is an argument's
    tensor is that of this call; all other tensors are the caller's to keep. For one thread at a time. What a GPU or its
    memory does not let be recorded is run as it is.

    urgent: its kernels go before those of other streams.
    """

    def __init__(self, function: Callable[..., R], *, urgent: bool = False) -> None:
        self._function = function
        self._urgent = urgent
        self._recordings: OrderedDict[Hashable, _Recording[R] | None] = OrderedDict()

    def __call__(self, *arguments: Any) -> R:
        key = form(arguments)
        if key not in self._recordings:
            while len(self._recordings) >= KEPT:
                self._recordings.popitem(last=False)
            self._recordings[key] = self._record(arguments)
        self._recordings.move_to_end(key)
        recording = self._recordings[key]
        return self._function(*arguments) if recording is None else recording.play(arguments)

    def _record(self, arguments: tuple[Any, ...]) -> _Recording[R] | None:
        # An error of the function's own comes here, where it can be told from one of the recording.
        self._function(*arguments)
        try:
            return _Recording(self._function, arguments, -1 if self._urgent else 0)
        except RuntimeError:
            return None


class _Recording(Generic[R]):
    def __init__(self, function: Callable[..., R], arguments: tuple[Any, ...], priority: int) -> None:
        self._inputs = [tensor.clone() for tensor in tensors_of(arguments)]
        self._given: list[Tensor] = []
        self._graph = torch.cuda.CUDAGraph()
        own = filled(arguments, iter(self._inputs))
        here, beside = torch.cuda.current_stream(), torch.cuda.Stream(priority=priority)
        beside.wait_stream(here)
        with torch.cuda.stream(beside):
            function(*own)  # libraries set themselves up for the stream
        here.wait_stream(beside)
        # Other threads go on with work of their own meanwhile.
        with torch.cuda.graph(self._graph, stream=beside, capture_error_mode="thread_local"):
            self._result = function(*own)

    def play(self, arguments: tuple[Any, ...]) -> R:
        given = list(tensors_of(arguments))
        pairs = [
            (own, new)
            for number, (own, new) in enumerate(zip(self._inputs, given, strict=True))
            if not self._given or self._given[number] is not new
        ]
        if pairs:
            torch._foreach_copy_([own for own, _ in pairs], [new for _, new in pairs])
        self._given = given
        self._graph.replay()
        number_of = {id(own): number for number, own in enumerate(self._inputs)}
        results = (
            given[number_of[id(tensor)]] if id(tensor) in number_of else tensor.clone()
            for tensor in tensors_of(self._result)
        )
        return filled(self._result, results)


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors in tensors, dataclasses and tuples, in the order of their fields."""
    if isinstance(value, Tensor):
        yield value
    else:
        for part in _parts(value):
            yield from tensors_of(part)


def form(value: Any) -> Hashable:
    """What is left of `value` without its tensors' numbers: two of the same form can replace each other."""
    if isinstance(value, Tensor):
        return (value.dtype, value.shape, value.device)
    if isinstance(value, tuple) or _is_record(value):
        return (type(value), tuple(form(part) for part in _parts(value)))
    hashable: Hashable = value
    return hashable


def filled(value: Any, tensors: Iterator[Tensor]) -> Any:
    """`value` with other tensors in the places of its own, in the order of `tensors_of`."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, tuple):
        return tuple(filled(part, tensors) for part in value)
    if _is_record(value):
        return replace(value, **{f.name: filled(getattr(value, f.name), tensors) for f in fields(value)})
    return value


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, tuple):
        return value
    return [getattr(value, f.name) for f in fields(value)] if _is_record(value) else ()


def _is_record(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)
