"""Ctrl-C while a run trains: between two steps at once, within one after it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch

from segic.signals import ENDING
from segic.training.distributed import Processes


class TrainingStopped(KeyboardInterrupt):
    """A run that ended before its last step since it was asked to. checkpoint: of its last whole step, None where
    there was none yet.
    """

    def __init__(self, step: int, checkpoint: Path | None) -> None:
        super().__init__(f"stopped after step {step}: {checkpoint}" if checkpoint else "stopped before the first step")
        self.checkpoint = checkpoint


class Interrupts:
    """Within `with`, holds back what would be a KeyboardInterrupt while a step is under way, when weights and optimizer
    are half old and half new. A second one is not held back.

    Takes the signals that the program answers by a KeyboardInterrupt: Ctrl-C, and of `ENDING` those made the same.
    Several processes must end after the same step, or some would wait for the others: there it is held back between
    steps too, and one that is asked ends all.

    safe: whether the run may end here and be saved. tell: called once for what is held back.
    """

    def __init__(self, processes: Processes, device: torch.device, tell: Callable[[], None] = lambda: None) -> None:
        self._processes, self._device, self._tell = processes, device, tell
        self._alone = processes.count == 1
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}
        self.safe = self._alone

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():  # others get no signals
            for number in (signal.SIGINT, *ENDING):
                if signal.getsignal(number) is signal.default_int_handler:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def step(self) -> Iterator[None]:
        """One step. Raises KeyboardInterrupt after it where this process or another has been asked to end."""
        self.safe = False  # and so it stays where the step fails
        yield
        self.safe = self._alone
        if self._processes.any(self._asked, self._device):
            self.safe = True
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.safe or self._asked:
            signal.default_int_handler(number, frame)
        self._asked = True
        self._tell()
