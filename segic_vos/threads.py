"""Work beside the main thread, in order and bounded: `Ahead` makes items, `Behind` takes results.

Torch, PyAV, OpenCV and zlib release Python's lock, so plain threads overlap. Every wait has a time-out in a loop: that
keeps Ctrl-C alive on every platform and lets a stage notice that it should stop.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from segic_vos.frames import Frame, FrameResult, Sink

T = TypeVar("T")

_POLL = 0.1  # seconds between looks at the stop sign
_PATIENCE = 10.0  # seconds given to a thread to end; a source that hangs (a camera) must not hang the program


class _End:
    """After the last item."""


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class Ahead(Generic[T]):
    """Iterate `items` in a thread of its own, at most `depth` items ahead.

    An error of `items` is raised here after the items before it. `close` stops the thread; items not taken are dropped.
    """

    def __init__(self, items: Iterable[T], depth: int, name: str) -> None:
        self._items = items
        self._ready: queue.Queue[T | _End | _Failure] = queue.Queue(maxsize=max(1, depth))
        self._stop = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        while not self._over:
            try:
                item = self._ready.get(timeout=_POLL)
            except queue.Empty:
                self._over = self._stop.is_set()  # by another thread than the one that iterates
                continue
            return self._unwrapped(item)
        raise StopIteration

    def _unwrapped(self, item: T | _End | _Failure) -> T:
        if isinstance(item, _End):
            self._over = True
            raise StopIteration
        if isinstance(item, _Failure):
            self._over = True
            raise item.error
        return item

    def close(self) -> None:
        """Stop the thread and wait for it. May be called twice."""
        self._over = True
        self._stop.set()
        deadline = time.monotonic() + _PATIENCE
        while self._thread.is_alive() and time.monotonic() < deadline:
            while not self._ready.empty():
                self._ready.get_nowait()
            self._thread.join(_POLL)

    def _run(self) -> None:
        last: _End | _Failure = _End()
        try:
            iterator = iter(self._items)
            for item in iterator:
                if not self._put(item):
                    break
            if isinstance(iterator, Generator):
                iterator.close()  # in this thread, which also ran it
        except BaseException as error:
            last = _Failure(error)
        self._put(last)

    def _put(self, item: T | _End | _Failure) -> bool:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=_POLL)
            except queue.Full:
                continue
            return True
        return False


class Behind:
    """Write results to `sink` in a thread of its own, at most `depth` results behind.

    An error of the sink is raised by the next `put` or by `close`; what was written before stays.
    """

    def __init__(self, sink: Sink, depth: int, on_busy: Callable[[float], None] = lambda _: None) -> None:
        self._sink = sink
        self._on_busy = on_busy
        self._waiting: queue.Queue[tuple[Frame, FrameResult] | _End] = queue.Queue(maxsize=max(1, depth))
        self._error: BaseException | None = None
        self._told = False
        self._thread = threading.Thread(target=self._run, name=f"write-{type(sink).__name__}", daemon=True)
        self._thread.start()

    def put(self, frame: Frame, result: FrameResult) -> None:
        """Hand over one result. Raises: what the sink raised on an earlier one."""
        self._put((frame, result))
        self._tell()

    def close(self) -> None:
        """Write what waits, close the sink. Raises: what the sink raised and no `put` has told yet."""
        self._put(_End())
        while self._thread.is_alive():
            self._thread.join(_POLL)
        if not self._told:
            self._tell()

    def _tell(self) -> None:
        if self._error is not None:
            self._told = True
            raise self._error

    def _put(self, item: tuple[Frame, FrameResult] | _End) -> None:
        while self._thread.is_alive():
            try:
                return self._waiting.put(item, timeout=_POLL)
            except queue.Full:
                continue
        return None

    def _run(self) -> None:
        # After an error the queue is still emptied, so that nobody waits for room in it.
        while not isinstance(item := _get(self._waiting), _End):
            if self._error is None:
                self._guarded(self._sink.write, *item)
        self._guarded(self._sink.close)

    def _guarded(self, action: Callable[..., None], *arguments: object) -> None:
        start = time.perf_counter()
        try:
            action(*arguments)
        except BaseException as error:
            self._error = self._error or error
        self._on_busy(time.perf_counter() - start)


def _get(items: queue.Queue[T]) -> T:
    while True:
        try:
            return items.get(timeout=_POLL)
        except queue.Empty:
            continue
