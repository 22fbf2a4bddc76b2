"""Running a method on a benchmark's clips and saving its masks, so that a run can stop and go on."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segic.errors import SegicError, UsageError
from segic.files import make_folder
from segic_vos.frames import Annotation, Frame

from .clips import Clip
from .follow import Follow
from .masks import write_labels


@dataclass(frozen=True)
class Task:
    """A clip and what is wanted of it.

    annotations: gives the masks that the method may see, by frame name. output: the frames whose masks are saved, None
    for all.
    """

    clip: Clip
    annotations: Callable[[], Mapping[str, Annotation]]
    output: frozenset[str] | None = None

    @property
    def saved(self) -> tuple[str, ...]:
        """Names of the masks that a complete run has."""
        return tuple(name for name in self.clip.names if self.output is None or name in self.output)


def is_complete(task: Task, folder: Path) -> bool:
    """True when every mask of the clip is in `folder/CLIP`."""
    return all((folder / task.clip.name / f"{name}.png").is_file() for name in task.saved)


def predict(
    tasks: Sequence[Task],
    follow: Follow,
    folder: Path,
    *,
    progress: Callable[[str], None] = lambda name: None,
) -> None:
    """Save masks as `folder/CLIP/FRAME.png` (palette PNG of the dataset's own ids).

    Clips that are complete already are left as they are. A clip's folder appears under its name only once it is whole,
    so a run that was stopped leaves nothing half-written to be scored.
    """
    make_folder(folder)
    for task in tasks:
        if not is_complete(task, folder):
            _predict_clip(task, follow, folder)
        progress(task.clip.name)


def _predict_clip(task: Task, follow: Follow, folder: Path) -> None:
    final = folder / task.clip.name
    partial = folder / f".{task.clip.name}.part{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    make_folder(partial)
    try:
        annotations = task.annotations()
        palette = next((a.palette for a in annotations.values() if a.palette), None)

        def annotation_of(frame: Frame) -> Annotation | None:
            annotation = annotations.get(frame.name)
            if annotation is not None and annotation.labels.shape != frame.size:
                (height, width), (rows, columns) = annotation.labels.shape, frame.size
                raise UsageError(
                    f"{task.clip.masks[frame.name]} is {width}x{height} pixels and its frame {columns}x{rows}"
                )
            return annotation

        for frame, result in follow(task.clip.open(), annotation_of):
            if task.output is None or frame.name in task.output:
                write_labels(partial / f"{frame.name}.png", result.labels, palette)
        missing = [name for name in task.saved if not (partial / f"{name}.png").is_file()]
        if missing:
            raise SegicError(f"{task.clip.name}: the method gave no mask for frame {missing[0]}")
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
