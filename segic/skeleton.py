"""Modules whose numbers are to come from a file, built without any."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def without_numbers() -> Iterator[None]:
    """Within it, modules are built on the meta device and are not initialised; `load_state_dict(..., assign=True)`
    gives them their numbers.

    Random numbers for a billion parameters take longer than reading the real ones. And on the meta device torch's
    initialisation goes through its reference implementations, which import its compiler: a second of start-up.
    """
    with torch.device("meta"), _NoInitialisation():
        yield


class _NoInitialisation(TorchFunctionMode):
    """Leaves out the functions of `torch.nn.init`, which fill the tensor that is their first argument."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)
