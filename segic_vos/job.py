"""What to do with one clip, and the clip opened for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segic_vos.frames import Annotation, Source
from segic_vos.masks import Annotations, Form, read_annotations
from segic_vos.outputs import Existing, Outputs
from segic_vos.sinks.rle import encoder
from segic_vos.sources import Decoder, SizeChange, SourceWarning, open_source
from segic_vos.sources.selection import Selection

Note = Callable[[str], None]


@dataclass(frozen=True)
class ClipJob:
    """What to do with one clip. Paths may be text.

    video: a video file or a folder of frames. masks: a mask file, a folder or a glob pattern, see `read_annotations`.
    out: the output folder. start, end, every: which frames, `end` left out. overlay, rle, soft: what to write beside
    the masks. batch: frames that go through the backbone together, by default 4, on CUDA devices 8; max_memory: bytes
    that decide instead, see `segic_vos.memory.choose_batch`.
    """

    video: Path
    masks: Path | str
    out: Path
    start: int = 0
    end: int | None = None
    every: int = 1
    decoder: Decoder = "pyav"
    mask_form: Form = "auto"
    many_ids: bool = False
    on_size_change: SizeChange = "error"
    overlay: bool = True
    rle: bool = False
    soft: bool = False
    existing: Existing = "refuse"
    batch: int | None = None
    max_memory: int | None = None

    def __post_init__(self) -> None:
        for name in ("video", "out"):
            object.__setattr__(self, name, Path(getattr(self, name)))

    @property
    def inputs(self) -> tuple[Path, Path]:
        """What must not lie where the output goes."""
        return self.video, Path(self.masks)

    def settings(self) -> dict[str, Any]:
        """Plain values; paths are made absolute, so that a later run can be compared from anywhere."""
        named = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("existing", "out")}
        return {**named, "video": str(self.video.absolute()), "masks": str(Path(self.masks).absolute())}


@dataclass(frozen=True)
class Clip:
    """An opened job whose request has been checked as far as it can be without the model.

    names: of all frames, None where they are numbers. opening: the first masks that show an object, which may be a
    later frame's.
    """

    job: ClipJob
    source: Source
    names: Sequence[str] | None
    annotations: Annotations
    opening: Annotation
    outputs: Outputs
    notes: list[str] = field(default_factory=list)


def open_clip(job: ClipJob) -> Clip:
    """Open the video, read the masks, judge the output folder. Nothing is written.

    Raises: UsageError for whatever cannot be carried out as given.
    """
    notes: list[str] = []
    with source_warnings(notes.append):
        source = open_source(
            job.video,
            decoder=job.decoder,
            start=job.start,
            end=job.end,
            every=job.every,
            on_size_change=job.on_size_change,
            without=Path(job.masks),
        )
    annotations = read_annotations(job.masks, frame_names=source.names, form=job.mask_form, allow_many=job.many_ids)
    # Frames of other sizes are refused, or brought to that of the first.
    selection, info = Selection(job.start, job.end, job.every), source.info
    opening = annotations.opening(source.names, selection, info.size, info.expected_frames)
    if job.rle:
        encoder()  # said before an earlier run's files go
    outputs = Outputs(job.out)
    outputs.check(job.existing, job.inputs)
    return Clip(job, source, source.names, annotations, opening, outputs, notes)


@contextmanager
def source_warnings(note: Note) -> Iterator[None]:
    """Turn what a source warns of, in whichever thread, into notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", SourceWarning)
        show = warnings.showwarning

        def hear(message: Warning | str, category: type[Warning], *rest: Any) -> None:
            if issubclass(category, SourceWarning):
                note(str(message))
            else:
                show(message, category, *rest)

        warnings.showwarning = hear  # type: ignore[assignment]
        yield
