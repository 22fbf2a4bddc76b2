"""What a long command says while it works: a bar, notes, and how much of either."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from segic.signals import ENDING

from .lazy import set_verbosity

F = TypeVar("F", bound=Callable[..., Any])


def _remember(ctx: click.Context, _parameter: click.Parameter, value: int) -> int:
    if value:
        set_verbosity(ctx, value)
    return value


def verbosity_options(function: F) -> F:
    """Add -q and -v; the command gets `quiet` and `verbose` (a count)."""
    for option in (
        click.option(
            "-v", "--verbose", count=True, callback=_remember, help="Say more; -vv shows tracebacks of errors too."
        ),
        click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
    ):
        function = option(function)
    return function


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block a polite request to end is answered like Ctrl-C, but for SIGHUP where it is ignored, as nohup
    has it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    before = {
        number: handler
        for number, handler in before.items()
        if handler is not None and (handler is not signal.SIG_IGN or number == signal.SIGTERM)
    }
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Talker:
    """Writes to the terminal's error stream, so that standard output stays free for results.

    The bar appears only on a terminal, and neither bar nor notes with `quiet`.
    """

    def __init__(self, *, quiet: bool, verbose: int = 0, bars: bool = True) -> None:
        """bars: False where several processes write to one terminal."""
        self.quiet = quiet
        self.verbose = verbose
        self.bars = bars

    def line(self, text: str) -> None:
        """A fact that everybody wants to see."""
        if not self.quiet:
            self._write(text)

    def note(self, text: str) -> None:
        """Something the user may want to know; above the bar where there is one."""
        if not self.quiet:
            self._write(f"note: {text}")

    def detail(self, text: str) -> None:
        """Said with -v only."""
        if self.verbose and not self.quiet:
            self._write(text)

    def error(self, text: str) -> None:
        """Said always."""
        self._write(f"Error: {text}")

    @contextmanager
    def bar(self, total: int | None, title: str) -> Iterator[Callable[[], None]]:
        """A bar over `total` frames (None: unknown); call what it gives after each one."""
        from tqdm import tqdm

        hidden = self.quiet or not self.bars or not sys.stderr.isatty()
        with tqdm(
            total=total, desc=title, unit=" frames", disable=hidden, file=sys.stderr, dynamic_ncols=True
        ) as shown:

            def advance() -> None:
                # A container's frame count is a hint: the bar must not stop short of a longer truth.
                if shown.total is not None and shown.n >= shown.total:
                    shown.total = None
                shown.update()

            yield advance

    def bytes(self) -> ByteBars:
        """Bars for downloads and hashing; see `ByteBars`."""
        return ByteBars(quiet=self.quiet or not self.bars)

    def _write(self, text: str) -> None:
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)


class ByteBars:
    """A bar for each piece of work on weight files, as `segic.weights.Progress`; on a terminal only."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._hidden = quiet or not sys.stderr.isatty()
        self._bar: Any = None
        self._what = ""

    def __enter__(self) -> ByteBars:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, what: str, done: int, total: int) -> None:
        """See `segic.weights.Progress`."""
        if self._hidden:
            return
        from tqdm import tqdm

        if what != self._what:
            self.__exit__()
            self._what = what
            self._bar = tqdm(desc=what, total=total or None, unit="B", unit_scale=True, leave=False, file=sys.stderr)
        self._bar.update(done - self._bar.n)
