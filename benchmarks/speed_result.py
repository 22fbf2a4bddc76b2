"""What a measurement of speed found, and what follows from it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from segic_vos.timings import Timings

from .speed_limits import Limits
from .speed_memory import Peak

STAGES = ("decode", "backbone", "masks", "write")
SEGIC_SIDE, PUBLISHED_SIDE = "segic", "published"


@dataclass(frozen=True)
class Sample:
    """One run. cpu: seconds of CPU time of the whole process, all threads together."""

    timings: Timings
    cpu: float
    peak: Peak


@dataclass(frozen=True)
class Spread:
    """Several measurements: the median, the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Procedure:
    """What was measured of one procedure.

    dtype: of its backbone. canvas: (height, width) of the backbone's input. samples: in the order of the turns.
    operations: of its backbone for one frame. limits: measured after every turn. scores: J&F, 0..1, None where the true
    masks are not known.
    """

    name: str
    dtype: str
    canvas: tuple[int, int]
    operations: int
    samples: tuple[Sample, ...]
    limits: tuple[Limits, ...]
    scores: float | None

    @property
    def fps(self) -> Spread:
        """Frames a second, end to end."""
        return Spread.of([sample.timings.fps for sample in self.samples])

    def stage(self, name: str) -> Spread:
        """Seconds of work a frame of one of `STAGES`."""
        return Spread.of([getattr(s.timings, name) / s.timings.frames for s in self.samples])

    @property
    def wall(self) -> Spread:
        """Seconds a frame, end to end."""
        return Spread.of([s.timings.wall / s.timings.frames for s in self.samples])

    @property
    def cpu(self) -> Spread:
        """Seconds of CPU time a frame."""
        return Spread.of([s.cpu / s.timings.frames for s in self.samples])

    @property
    def product_limit(self) -> float:
        """Operations a second of the matrix product, the best that was measured beside these runs."""
        return max(limits.product for limits in self.limits)

    @property
    def backbone_share(self) -> float:
        """The backbone's rate as a share of `product_limit`, median run."""
        return self.operations / self.stage("backbone").median / self.product_limit

    @property
    def beside_backbone(self) -> float:
        """The share of the whole time in which the backbone does not work, median run."""
        return 1 - median([s.timings.backbone / s.timings.wall for s in self.samples])

    def peaks(self) -> Peak:
        """The largest of all runs."""

        def largest(name: str) -> int | None:
            return max((v for v in (getattr(s.peak, name) for s in self.samples) if v is not None), default=None)

        return Peak(*(largest(name) for name in ("host", "host_before", "device", "device_before")))


@dataclass(frozen=True)
class Comparison:
    """segic against the published procedure: seconds of the latter for one of the former, turn by turn.

    cpu: the same of CPU time. stages: the same by stage. iou: how well both procedures' masks agree, mean over objects
    and frames but the given one; objects that neither shows count as one.
    """

    wall: Spread
    cpu: Spread
    stages: dict[str, Spread]
    iou: float


@dataclass(frozen=True)
class Cell:
    """One combination of the settings. size: the model's, None for its own; of foveated frames what the first masks
    made of it.
    """

    objects: int
    size: int | None
    dtype: str
    batch: int


@dataclass(frozen=True)
class CellResult:
    """What was measured for one cell. published, comparison: None where only segic was run."""

    cell: Cell
    clip: str
    frames: int
    frame: tuple[int, int]
    segic: Procedure
    published: Procedure | None = None
    comparison: Comparison | None = None

    @property
    def procedures(self) -> tuple[Procedure, ...]:
        """One or two."""
        return (self.segic,) if self.published is None else (self.segic, self.published)


@dataclass(frozen=True)
class SpeedReport:
    """All cells, and what is needed to measure them again. machine: processor, threads, accelerator."""

    cells: tuple[CellResult, ...]
    settings: dict[str, Any]
    versions: dict[str, str]
    machine: dict[str, Any]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON: all samples, and what is derived from them."""
        cells = []
        for result in self.cells:
            plain = asdict(result)
            for procedure in result.procedures:
                side = SEGIC_SIDE if procedure is result.segic else PUBLISHED_SIDE
                plain[side] |= {
                    "fps": asdict(procedure.fps),
                    "seconds_a_frame": {
                        **{name: asdict(procedure.stage(name)) for name in STAGES},
                        "whole": asdict(procedure.wall),
                        "cpu": asdict(procedure.cpu),
                    },
                    "peak": asdict(procedure.peaks()),
                    "product_limit": procedure.product_limit,
                    "backbone_share_of_limit": procedure.backbone_share,
                    "time_beside_backbone": procedure.beside_backbone,
                }
            cells.append(plain)
        return {
            "cells": cells,
            "settings": self.settings,
            "versions": self.versions,
            "machine": self.machine,
            "notes": list(self.notes),
        }
