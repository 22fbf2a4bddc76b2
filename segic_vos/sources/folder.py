"""Frames of a folder of pictures."""

import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from segic.errors import UsageError
from segic_vos.frames import Frame, SourceInfo

from .naming import list_pictures, trailing_number
from .notices import SourceWarning
from .pictures import read_rgb
from .selection import Selection
from .sizing import SizeChange, fit_size


class FrameFolder:
    """The pictures of a folder in natural order, one frame each, named by their stems. There are no time stamps.

    Opening lists the files and reads the first wanted one: UsageError for a folder without pictures and for two files
    of one stem (their outputs would overwrite each other); a SourceWarning for gaps in the numbering. While iterating,
    a picture that cannot be read is a SegicError, one of another size a UsageError unless `on_size_change` is "resize".
    without: a file that lies there and is none of the frames, of which a SourceWarning tells as well.
    """

    def __init__(
        self, path: Path, selection: Selection, on_size_change: SizeChange = "error", without: Path | None = None
    ) -> None:
        files = self._files = list_pictures(path)
        if without is not None:
            left_out = without.resolve()
            self._files = [file for file in files if file.resolve() != left_out]
        if len(self._files) < len(files):
            warnings.warn(f"{without} lies among the frames and is left out of them", SourceWarning, stacklevel=2)
        self._selection = selection
        self._on_size_change = on_size_change
        self._require_unique_stems()
        selection.require_reached(len(self._files), path)
        gap = _describe_gap(self.names)
        if gap:
            warnings.warn(f"{path}: {gap}", SourceWarning, stacklevel=2)
        first = read_rgb(self._files[selection.start])
        self._info = SourceInfo(
            path=path,
            size=(first.shape[0], first.shape[1]),
            rate=None,
            expected_frames=selection.count(len(self._files)),
        )

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all the folder's frames, wanted or not, in order."""
        return tuple(file.stem for file in self._files)

    def __iter__(self) -> Iterator[Frame]:
        for index, file in enumerate(self._files):
            if self._selection.takes(index):
                pixels = fit_size(read_rgb(file), self._info.size, self._on_size_change, str(file))
                yield Frame(index, file.stem, pixels)

    def _require_unique_stems(self) -> None:
        owners: dict[str, Path] = {}
        for file in self._files:
            other = owners.setdefault(file.stem, file)
            if other is not file:
                raise UsageError(
                    f"{file.parent}: {other.name} and {file.name} would both be frame {file.stem!r}; remove one"
                )


def _describe_gap(names: tuple[str, ...]) -> str | None:
    """In words, the jumps in a numbered folder; None for an even one, or names without numbers."""
    numbers = [trailing_number(name) for name in names]
    steps = [b - a for a, b in pairwise(numbers) if a is not None and b is not None]
    if len(steps) < len(names) - 1 or len(steps) < 2:
        return None
    # A folder of every tenth frame is even: what counts is a step larger than the usual one.
    usual = Counter(steps).most_common(1)[0][0]
    jumps = [at for at, step in enumerate(steps) if step > usual]
    if not jumps:
        return None
    where = f"between {names[jumps[0]]} and {names[jumps[0] + 1]}"
    count = "a gap" if len(jumps) == 1 else f"{len(jumps)} gaps, the first"
    return f"the frames' numbers have {count} {where}; they are treated as consecutive"
