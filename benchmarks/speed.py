"""Speed: `segic vos run`'s pipeline measured by stage, and beside the published procedure in the same process.

Machines are shared, so single times mean little: runs are repeated, both procedures take turns, what is compared is the
ratio within each turn, and the process's CPU time, which others disturb least, stands beside the clock's.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from segic.files import make_folder
from segic.model import SEGIC
from segic_vos.fovea import fitting_size, usual_scales
from segic_vos.pipeline import Stopped, run_pipeline
from segic_vos.prompts import video_meta
from segic_vos.quality import foveated_sizes
from segic_vos.records import RecordWriter
from segic_vos.session import VideoSession
from segic_vos.sinks import MaskWriter, OverlayWriter
from segic_vos.timings import Timings

from .masks import read_labels
from .metrics import score_sequence, summarise
from .published import run_published
from .speed_backbone import backbone_alone
from .speed_clip import SpeedClip
from .speed_limits import Limits, backbone_operations, measure_limits
from .speed_memory import peak_memory
from .speed_result import PUBLISHED_SIDE, SEGIC_SIDE, STAGES, Cell, CellResult, Comparison, Procedure, Sample, Spread

WARM_UP = 3  # frames that both procedures run before anything is measured

Note = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """A model to measure. dtype: of its backbone's products. operations: of its backbone for one frame. foveated:
    frames are seen at its size only around the objects.
    """

    model: SEGIC
    dtype: torch.dtype
    operations: int
    foveated: bool = False

    @classmethod
    def of(cls, model: SEGIC, frame: tuple[int, int]) -> "Subject":
        """For frames of (height, width) pixels. The backbone runs once for it: nobody else knows how many they are."""
        return cls(model, model.precision, backbone_operations(model, frame))

    def fitted(self, labels: NDArray[np.int32], tokens: int) -> "Subject":
        """The same model at the size at which frames with masks such as `labels` take at most so many tokens."""
        model = self.model.at_size(fitting_size(self.model, labels, foveated_sizes(tokens), tokens))
        seen = model.layout(usual_scales(model, labels))
        return Subject(model, self.dtype, backbone_operations(model, (labels.shape[0], labels.shape[1]), seen), True)


def measure_cell(
    subject: Subject,
    clip: SpeedClip,
    cell: Cell,
    *,
    repeat: int,
    twin: Subject | None = None,
    overlay: bool = False,
    note: Note = lambda _: None,
) -> CellResult:
    """Run one cell `repeat` times, in turns with the published procedure where its model is given.

    twin: of `published_model(subject.model, clip.size)`. overlay: write the overlay video beside the masks, in both
    procedures. note: told when memory runs out and batches get smaller.
    """
    meta = video_meta(subject.model)
    start = next(clip.frames(1)).index

    def run_segic(folder: Path, count: int) -> Timings:
        return backbone_alone(subject.model, lambda model: follow(model, folder, count))

    def follow(model: SEGIC, folder: Path, count: int) -> Timings:
        session = VideoSession(model, meta=meta, foveated=subject.foveated)
        try:
            return run_pipeline(
                clip.frames(count),
                model,
                session,
                _sinks(folder, clip, overlay),
                annotation_of=lambda frame: clip.first if frame.index == start else None,
                batch=cell.batch,
                foveated=subject.foveated,
                note=note,
            )
        except Stopped as stopped:
            raise (stopped.__cause__ or stopped) from None

    def run_other(folder: Path, count: int) -> Timings:
        assert twin is not None
        return run_published(twin.model, clip.frames(count), clip.first, _sinks(folder, clip, overlay), meta=meta)

    runs = {SEGIC_SIDE: run_segic}
    subjects = {SEGIC_SIDE: subject}
    if twin is not None:
        runs[PUBLISHED_SIDE], subjects[PUBLISHED_SIDE] = run_other, twin
    samples: dict[str, list[Sample]] = {side: [] for side in runs}
    limits: dict[str, list[Limits]] = {side: [] for side in runs}
    with tempfile.TemporaryDirectory(prefix="segic-speed-") as name:
        root = Path(name)
        for side, run in runs.items():
            run(root / f"{side}-warm", min(WARM_UP, clip.count))
        for turn in range(repeat):
            for side in list(runs) if turn % 2 == 0 else list(runs)[::-1]:  # who goes first takes turns as well
                samples[side].append(_sample(partial(runs[side], root / side, clip.count), subject.model.device))
                limits[side].append(measure_limits(subject.model.device, subjects[side].dtype))
        scores = {side: _score(clip, root / side) for side in runs}
        iou = _agreement(clip, root / SEGIC_SIDE, root / PUBLISHED_SIDE) if twin is not None else 1.0

    def procedure(side: str, of: Subject) -> Procedure:
        return Procedure(
            name=side,
            dtype=str(of.dtype).removeprefix("torch."),
            canvas=of.model.canvas(clip.size).padded,
            operations=of.operations,
            samples=tuple(samples[side]),
            limits=tuple(limits[side]),
            scores=scores[side],
        )

    own = procedure(SEGIC_SIDE, subject)
    other = None if twin is None else procedure(PUBLISHED_SIDE, twin)
    comparison = None if other is None else _compare(own, other, iou)
    return CellResult(cell, clip.name, clip.count, clip.size, own, other, comparison)


def _sinks(folder: Path, clip: SpeedClip, overlay: bool) -> list[RecordWriter | OverlayWriter]:
    make_folder(folder)
    sinks: list[RecordWriter | OverlayWriter] = [
        RecordWriter(folder / "frames.jsonl", MaskWriter(folder / "masks", clip.first.palette))
    ]
    if overlay:
        sinks.append(OverlayWriter(folder / "overlay.mp4", palette=clip.first.palette))
    return sinks


def _sample(run: Callable[[], Timings], device: torch.device) -> Sample:
    with peak_memory(device) as peak:
        cpu = time.process_time()
        timings = run()
        cpu = time.process_time() - cpu
    return Sample(timings, cpu, peak)


def _written(clip: SpeedClip, folder: Path) -> Iterator[NDArray[np.integer]]:
    for name in clip.names:
        yield read_labels(folder / "masks" / f"{name}.png")


def _score(clip: SpeedClip, folder: Path) -> float | None:
    """J&F of the written masks, None where the truth is not known or the clip has too few frames for it."""
    if clip.truth is None or clip.count < 3:
        return None
    return summarise({clip.name: score_sequence(clip.truth(), _written(clip, folder), clip.first.ids)}).mean


def _agreement(clip: SpeedClip, one: Path, other: Path) -> float:
    values = []
    for index, (a, b) in enumerate(zip(_written(clip, one), _written(clip, other), strict=True)):
        for key in clip.first.ids if index else ():
            union = np.count_nonzero((a == key) | (b == key))
            values.append(np.count_nonzero((a == key) & (b == key)) / union if union else 1.0)
    return float(np.mean(values)) if values else 1.0


def _compare(own: Procedure, other: Procedure, iou: float) -> Comparison:
    pairs = list(zip(own.samples, other.samples, strict=True))

    def ratio(of: Callable[[Sample], float]) -> Spread:
        return Spread.of([of(b) / max(of(a), 1e-9) for a, b in pairs])

    stages = {name: ratio(attrgetter(f"timings.{name}")) for name in STAGES}
    return Comparison(ratio(lambda s: s.timings.wall), ratio(lambda s: s.cpu), stages, iou)
