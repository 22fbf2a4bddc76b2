"""A model computes in its own precision, whatever its caller computes in."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

import torch

P = ParamSpec("P")
R = TypeVar("R")


class _OnDevice(Protocol):
    @property
    def device(self) -> torch.device: ...


M = TypeVar("M", bound=_OnDevice)


def in_own_precision(method: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
    """A method without gradients, and without autocast where the caller has it on: what a model was measured in is what
    it says of itself (`precision`).
    """

    @wraps(method)
    def call(self: M, *arguments: P.args, **named: P.kwargs) -> R:
        kind = self.device.type
        with torch.no_grad():
            if not torch.is_autocast_enabled(kind):
                return method(self, *arguments, **named)
            with torch.autocast(kind, enabled=False):
                return method(self, *arguments, **named)

    return cast("Callable[Concatenate[M, P], R]", call)
