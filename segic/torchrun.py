"""What torchrun tells the processes that it starts, by their environment."""

import os
from collections.abc import Mapping, Sequence

from segic.errors import UsageError


def ranks(names: Sequence[str], environment: Mapping[str, str] = os.environ) -> tuple[int, ...] | None:
    """The numbers that `environment` has by these names, RANK and WORLD_SIZE among them; None where no torchrun started
    this process: without WORLD_SIZE, or with that of one process alone.

    Raises UsageError where one lacks or is no number: with a guess in its place, every process might do the same part.
    """
    if environment.get("WORLD_SIZE", "1") == "1" and "RANK" not in environment:  # a container's, of one process
        return None
    said = {name: environment.get(name, "") for name in names}
    if not all(value.isdecimal() for value in said.values()) or int(said["RANK"]) >= int(said["WORLD_SIZE"]):
        values = " ".join(f"{name}={value}" for name, value in said.items())
        raise UsageError(f"the environment has {values}: expected the numbers that torchrun sets, or none of them")
    return tuple(int(value) for value in said.values())
