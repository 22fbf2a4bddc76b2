"""A benchmark's video: its frames, and the masks that belong to it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from segic.errors import SegicError, UsageError
from segic.weights.hashing import file_sha256
from segic_vos.frames import Frame
from segic_vos.sources.naming import natural_key

from .masks import read_image
from .result import digest

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")


@dataclass(frozen=True)
class Clip:
    """One sequence of a dataset.

    names:  the frames' names in order; predictions are saved as NAME.png.
    frames: the frames' picture files in that order, or one video file. None where there are masks alone (scoring).
    masks:  annotated frames' names to mask files.
    """

    name: str
    names: tuple[str, ...]
    frames: tuple[Path, ...] | Path | None
    masks: Mapping[str, Path]

    def beginning(self) -> tuple[Path, ...]:
        """The files of the first frame, or of the video, and of the first mask: enough to know the clip again by."""
        frames = () if self.frames is None else (self.frames,) if isinstance(self.frames, Path) else self.frames[:1]
        return (*frames, *list(self.masks.values())[:1])

    def open(self) -> Iterator[Frame]:
        """The frames in order. Raises UsageError or SegicError, naming the file, where they are not as promised."""
        if self.frames is None:
            raise UsageError(f"sequence {self.name} has masks and no frames, so no model can be run on it")
        if isinstance(self.frames, Path):
            yield from self._decoded(self.frames)
        else:
            for index, (name, path) in enumerate(zip(self.names, self.frames, strict=True)):
                yield Frame(index, name, read_image(path))

    def _decoded(self, video: Path) -> Iterator[Frame]:
        from segic_vos.sources import open_source

        count = 0
        for frame in open_source(video):
            if count < len(self.names):
                yield replace(frame, name=self.names[count])
            count += 1
        if count != len(self.names):
            raise SegicError(f"{video} has {count} frames and {len(self.names)} masks; each frame needs its own mask")


def pictures(folder: Path) -> dict[str, Path]:
    """Stem to file of the pictures in a folder, in natural order."""
    files = (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    return {p.stem: p for p in sorted(files, key=lambda p: natural_key(p.name))}


def part_of(taken: int, there: int, what: str) -> tuple[str, ...]:
    """The note of a result that only a part of a split took part in; none where all did."""
    return () if taken == there else (f"only {taken} of the {there} {what}",)


def contents_digest(files: Iterable[Path]) -> str:
    """Tells in the settings whether two data sets of the same names are the same: 16 digits, from the files' bytes.

    Files that are not there are passed over; what needs them says so.
    """
    return digest([file_sha256(path) for path in files if path.is_file()])


def listing(folder: Path, limit: int = 8) -> str:
    """What a folder holds, in a few words, for messages about a layout that was not found."""
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in folder.iterdir())
    shown = ", ".join(names[:limit]) or "nothing"
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
