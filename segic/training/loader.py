"""Samples made ahead of the steps that need them, by threads, in order."""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from segic.training.feeds import Drawn, Feed


class Loader:
    """Iterates over (step, samples) from `start` on. Decoding, augmentation and reading release Python's lock, so that
    threads suffice. What is drawn does not depend on their number: every sample has a random state of its own.

    indices: those of the global batch that belong to this process. ahead: steps that are made ahead.
    waited: seconds that the steps have waited for data so far.
    """

    def __init__(self, feed: Feed, indices: Sequence[int], start: int, stop: int, *, workers: int, ahead: int = 4):
        self.waited = 0.0
        self._feed = feed
        self._indices = indices
        self._next, self._stop = start, stop
        self._pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="data")
        self._queue: deque[tuple[int, list[Future[Drawn]]]] = deque()
        for _ in range(max(1, ahead)):
            self._submit()

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> tuple[int, list[Drawn]]:
        if not self._queue:
            raise StopIteration
        step, futures = self._queue.popleft()
        start = time.perf_counter()
        drawn = [future.result() for future in futures]
        self.waited += time.perf_counter() - start
        self._submit()
        return step, drawn

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self) -> None:
        if self._next < self._stop:
            futures = [self._pool.submit(self._feed.draw, self._next, index) for index in self._indices]
            self._queue.append((self._next, futures))
            self._next += 1
