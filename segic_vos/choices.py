"""What a run works with, chosen by the user or by default, and why: one line before it, and part of its summary."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

import torch

from segic.devices import processor_name
from segic_vos.quality import SizeChoice
from segic_vos.wording import counted


@dataclass(frozen=True)
class Choices:
    """size: pixels; quality: its name, if it has one; size_by: what decided it. foveated: that size is only that of
    what is around the objects. device: as torch names it; device_name: as its maker does. threads: of torch, None on a
    GPU. precision: of the backbone. batch: frames that go through it together; batch_by: what decided that, "" by
    default.
    """

    model: str
    size: int
    quality: str | None
    size_by: str
    foveated: bool
    device: str
    device_name: str
    threads: int | None
    precision: str
    batch: int
    batch_by: str = ""

    @classmethod
    def of(
        cls,
        model: str,
        size: int,
        device: torch.device,
        precision: torch.dtype,
        *,
        chosen: SizeChoice | None = None,
        foveated: bool = False,
        batch: int,
        batch_by: str = "",
    ) -> Choices:
        """chosen: how the size came about, where that is known."""
        return cls(
            model=model,
            size=size,
            quality=chosen.quality if chosen else None,
            size_by=chosen.why if chosen else "",
            foveated=foveated,
            device=str(device),
            device_name=device_name(device),
            threads=torch.get_num_threads() if device.type == "cpu" else None,
            precision=str(precision).removeprefix("torch."),
            batch=batch,
            batch_by=batch_by,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        size = f"{self.quality}, {self.size} px" if self.quality else f"{self.size} px"
        if self.foveated:
            size += " around the objects"
        why = f" ({self.size_by})" if self.size_by else ""
        threads = "" if self.threads is None else f", {counted(self.threads, 'thread')}"
        batch = f", batch {self.batch}" + (f" ({self.batch_by})" if self.batch_by else "")
        if self.foveated:  # one by one
            batch = ""
        return f"{self.model}: {size}{why}; {self.device_name}{threads}, {self.precision}{batch}"


def device_name(device: torch.device) -> str:
    """The processor's or the GPU's own name, without its trade marks."""
    name = ""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        name = processor_name()
    return " ".join(re.sub(r"\((R|TM|C)\)|\bCPU\b.*|\bProcessor\b", "", name).split()) or device.type
