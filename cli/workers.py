"""Several processes that share the clips of one command: started by torchrun, or here, as many as GPUs or as asked."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from segic.errors import INTERRUPTED
from segic.torchrun import ranks

from .progress import stoppable

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")

_POLL = 0.2  # seconds between looks at the others
_MET = "segic_vos_met"  # key in torchrun's store: how many processes have come to where all meet
_DONE = "segic_vos_done"  # key in torchrun's store: how many processes are through


@dataclass(frozen=True)
class Share:
    """This process's part: `rank` of `world` in all, `local_rank` of `local_world` on this host. As torchrun counts."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Share:
        """What torchrun says, or `run_workers`; everything where neither started this process."""
        return cls(*(ranks(("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"), environment) or ()))

    @classmethod
    def on_host(cls, environment: Mapping[str, str] = os.environ) -> Share:
        """This process among those of its host, as far as LOCAL_RANK and LOCAL_WORLD_SIZE are set: launchers other than
        torchrun set none or the first alone.
        """
        said = (environment.get(name, "") for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
        rank, world = (int(value) if value.isdecimal() else least for value, least in zip(said, (0, 1), strict=True))
        return cls(rank, world, rank, world)

    def take(self, items: Sequence[T]) -> list[T]:
        """This process's items, in order."""
        return list(items[self.rank :: self.world])

    def device(self, wanted: str) -> str:
        """This process's own GPU where any would do; else as wanted."""
        count = 0 if self.world == 1 and self.local_rank == 0 else _gpus(wanted)
        return f"cuda:{self.local_rank % count}" if count else wanted

    def divide_cores(self) -> None:
        """Give torch this process's part of the cores; each process by itself would take all, or under torchrun one."""
        if self.local_world == 1:
            return
        import torch

        from segic.devices import usable_cores

        torch.set_num_threads(max(1, usable_cores() // self.local_world))

    @property
    def by_torchrun(self) -> bool:
        """Whether torchrun started this process beside others, not `run_workers`."""
        return self.world > 1 and "MASTER_ADDR" in os.environ

    def meet(self) -> None:
        """Wait until all of torchrun's processes have called this."""
        if self.by_torchrun:
            self._count_in(_MET, wait=True)

    def wait_for_others(self, failed: bool) -> None:
        """Called when this process is through. torchrun stops all processes when one fails, so that one ends last."""
        if self.by_torchrun:
            self._count_in(_DONE, wait=failed or self._serves())

    def _count_in(self, key: str, *, wait: bool) -> None:
        """Be counted under `key` of torchrun's store. wait: until all are."""
        store = _store()
        count = store.add(key, 1)
        while wait and count < self.world:
            time.sleep(_POLL)
            count = store.add(key, 0)

    def _serves(self) -> bool:
        """Whether the store lives in this process, so that it must outlive the others."""
        return self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


@cache
def _store() -> Store:
    """torchrun's store. Kept: it may live in this process, for all the others."""
    from torch.distributed.rendezvous import rendezvous

    store: Store = next(iter(rendezvous("env://")))[0]
    return store


def _gpus(wanted: str) -> int:
    """How many GPUs this host has where any would do; 0 where the user named a device."""
    if wanted not in ("auto", "cuda"):
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def processes_for(wanted: str, clips: int, jobs: int | None) -> int:
    """How many processes share so many clips: as many as asked for, else one for each GPU."""
    return min(clips, jobs or max(1, _gpus(wanted)))


def run_workers(count: int, command: Sequence[str]) -> int:
    """Run `command` in `count` processes, each with its `Share`; returns the largest exit status, that of
    Ctrl-C where it came.

    They write to this process's outputs. Ctrl-C, and what `stoppable` makes of other signals, is passed on to them, and
    they are waited for.
    """
    workers: list[subprocess.Popen[bytes]] = []
    stopped = False
    try:
        with stoppable():
            while (missing := len(workers) < count and not stopped) or any(each.poll() is None for each in workers):
                try:
                    if missing:
                        workers.append(_start(len(workers), count, command))
                    else:
                        time.sleep(_POLL)
                except KeyboardInterrupt:
                    stopped = True
                    _stop(workers)
    finally:
        _stop(workers)
    statuses = [worker.wait() for worker in workers]
    if stopped:
        return INTERRUPTED
    # A process that a signal ended has a negative status; the shell calls it 128 more than the signal.
    return max(status if status >= 0 else 128 - status for status in statuses)


def _start(rank: int, count: int, command: Sequence[str]) -> subprocess.Popen[bytes]:
    share = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    # Python files that lie where the command was given are none of the program's (from Python 3.11 on).
    environment = {**os.environ, **{name: str(value) for name, value in share.items()}, "PYTHONSAFEPATH": "1"}
    environment.pop("MASTER_ADDR", None)  # it says that torchrun started them, which would be waited for
    # In a session of its own, a worker hears of Ctrl-C once, from `run_workers`, not from the terminal as well.
    return subprocess.Popen(command, env=environment, start_new_session=True)


def _stop(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        with suppress(OSError):  # it has ended in the meantime
            worker.terminate()
