"""A whole measurement of speed: every combination of the values asked for, on one clip or on clips made for it."""

import os
import platform
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from segic.devices import processor_name
from segic.model import SEGIC
from segic_vos.memory import default_batch

from .models import model_settings
from .published import published_model
from .result import versions
from .speed import Note, Subject, measure_cell
from .speed_clip import SpeedClip, given_clip, made_clip
from .speed_result import Cell, CellResult, SpeedReport

Loader = Callable[[int | None, str], SEGIC]


@dataclass(frozen=True)
class SpeedPlan:
    """What to measure.

    sizes: of the model, None for its own. batches: None for that of `segic vos run`. objects: on a given clip None for
    all of its first mask. video, masks: the clip, None for one made of `objects` moving objects with pictures of
    `frame` (height, width) pixels. frames: how many of them at most. published: run the published procedure too, in
    turns, at the model's own size. tokens: of a foveated frame, from which segic's size follows; None for whole frames.
    """

    sizes: tuple[int | None, ...] = (None,)
    objects: tuple[int | None, ...] = (2,)
    dtypes: tuple[str, ...] = ("auto",)
    batches: tuple[int | None, ...] = (None,)
    video: Path | None = None
    masks: Path | str | None = None
    frame: tuple[int, int] = (480, 854)
    frames: int = 24
    repeat: int = 3
    published: bool = False
    tokens: int | None = None
    overlay: bool = False

    @property
    def count(self) -> int:
        """How many cells."""
        return len(self.sizes) * len(self.objects) * len(self.dtypes) * len(self.batches)


def measure_speed(
    plan: SpeedPlan,
    load: Loader,
    *,
    progress: Callable[[str], None] = lambda _: None,
    note: Note = lambda _: None,
) -> SpeedReport:
    """Measure every cell of `plan`. load: makes the model from (size, dtype); one at a time is kept.

    progress: called with a few words after every cell. Raises UsageError for what the plan asks for and cannot be had.
    """
    results: list[CellResult] = []
    notes: list[str] = []
    described: dict[str, Any] = {}

    def remember(text: str) -> None:
        notes.append(text)
        note(text)

    with tempfile.TemporaryDirectory(prefix="segic-speed-clip-") as name:
        clips = {objects: _clip(plan, objects, Path(name)) for objects in plan.objects}
        frame = next(iter(clips.values())).size
        for size in plan.sizes:
            twin: Subject | None = None
            for dtype in plan.dtypes:
                model = load(size, dtype)
                described = described or model_settings(model)
                device = model.device
                subject = Subject.of(model, frame)
                if plan.published and twin is None:
                    twin = Subject.of(published_model(model, frame), frame)
                for clip in clips.values():
                    fitted, seen, usual = subject, size, default_batch(device)
                    if plan.tokens is not None:
                        fitted, usual = subject.fitted(clip.first.labels, plan.tokens), 1
                        seen = fitted.model.config.size
                    for batch in plan.batches:
                        cell = Cell(len(clip.first.ids), seen, dtype, batch or usual)
                        results.append(
                            measure_cell(
                                fitted, clip, cell, repeat=plan.repeat, twin=twin, overlay=plan.overlay, note=remember
                            )
                        )
                        progress(f"{cell.objects} objects, {dtype}, batch {cell.batch}")
                del model, subject, fitted
    settings = {
        **asdict(plan),
        **described,
        "video": plan.video and str(plan.video),
        "masks": plan.masks and str(plan.masks),
    }
    return SpeedReport(tuple(results), settings, versions(), machine(device), tuple(notes))


def _clip(plan: SpeedPlan, objects: int | None, folder: Path) -> SpeedClip:
    if plan.video is not None and plan.masks is not None:
        return given_clip(plan.video, plan.masks, frames=plan.frames, objects=objects)
    return made_clip(folder, objects=objects or 2, frames=plan.frames, size=plan.frame)


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on; no name of the machine itself."""
    found: dict[str, Any] = {
        "device": str(device),
        "processor": processor_name() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type == "cuda":
        found |= {"accelerator": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return found
