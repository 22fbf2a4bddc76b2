"""Results that are kept for the next call, and for recordings that go on reading them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class _Keeping(threading.local):
    results: list[Any] | None = None


_keeping = _Keeping()


def handed_out(result: R) -> R:
    """The same, kept as long as what this thread records meanwhile (`kept_results`)."""
    if _keeping.results is not None:
        _keeping.results.append(result)
    return result


def remembered(maxsize: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """As `functools.lru_cache`, for functions that make tensors. What is handed out within `kept_results` of the same
    thread is kept beyond the cache: a CUDA graph reads tensors where they were, and holds none of them.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        cached = lru_cache(maxsize)(function)

        @wraps(function)
        def call(*arguments: P.args, **named: P.kwargs) -> R:
            return handed_out(cached(*arguments, **named))  # type: ignore[arg-type]

        return call

    return decorate


@contextmanager
def kept_results() -> Iterator[list[Any]]:
    """Everything that remembered functions hand out to this thread meanwhile."""
    before, _keeping.results = _keeping.results, []
    try:
        yield _keeping.results
    finally:
        _keeping.results = before
