"""What travels through the video driver: frames in, results out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from segic.errors import UsageError
from segic.labels import as_ids


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a clip.

    index:  position in the source in display order, from 0, counted before `--start/--end/--every` leave frames out.
    name:   stem of the output files: the zero-padded index ("00012") for videos, the file's own stem for folders.
    pixels: (H, W, 3) uint8, RGB, upright (the container's rotation is applied).
    time:   presentation time in seconds as the container gives it, None where there is none (folders).
    """

    index: int
    name: str
    pixels: NDArray[np.uint8]
    time: Fraction | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before it is read to its end.

    rate: frames a second, None for folders. expected_frames: a hint for the progress bar and, where it is another than
    before, that a clip has grown, for containers lie about it; None where there is no hint. pixel_aspect: the width of
    an upright frame's pixel by its height (sample aspect ratio), 1 where it is not known.
    """

    path: Path | None
    size: tuple[int, int]
    rate: Fraction | None
    expected_frames: int | None
    pixel_aspect: Fraction = Fraction(1)


class Source(Protocol):
    """An iterable of frames. Iterating twice starts anew."""

    @property
    def info(self) -> SourceInfo: ...

    def __iter__(self) -> Iterator[Frame]: ...


@dataclass(frozen=True, eq=False)
class Annotation:
    """Masks that a person gave for one frame.

    labels: (H, W) int32, the user's ids, 0 is background; `void` pixels keep their 255 here.
    ids:    the objects present, ascending, void left out.
    void:   the value of `labels` that means "undecided", or None.
    palette: 768 bytes (256 x RGB) of the mask file, or None where it had none.
    """

    labels: NDArray[np.int32]
    ids: tuple[int, ...]
    void: int | None = None
    palette: bytes | None = None

    @property
    def objects(self) -> NDArray[np.int32]:
        """`labels` with background where they are undecided."""
        return self.labels if self.void is None else np.where(self.labels == self.void, 0, self.labels)


def annotation(labels: NDArray[np.integer] | NDArray[np.bool_], void: int | None = None) -> Annotation:
    """The annotation that an array of ids is.

    labels: (H, W) of any integer type, 0 is background; or bool, which gives the object 1. void: the value that means
    "undecided", if there is one. Nothing is judged and nothing guessed here, unlike in `read_mask`.
    Raises UsageError for an array of another shape or type, and for ids below 0 or above 2**31 - 1.
    """
    if not isinstance(labels, np.ndarray):
        raise UsageError(f"the mask is a {type(labels).__name__}; expected an array of integers or bool, (H, W)")
    if labels.ndim != 2 or labels.dtype.kind not in "iub":
        raise UsageError(f"the mask is {labels.dtype} of shape {labels.shape}; expected integers or bool, (H, W)")
    checked = as_ids(labels)
    ids = tuple(int(value) for value in np.unique(checked) if value not in (0, void))
    return Annotation(checked, ids, void)


@dataclass(frozen=True, eq=False)
class FrameResult:
    """The masks of one frame.

    labels: (H, W) int32, the user's ids, 0 is background; where masks were given, undecided pixels keep their value.
    ids:    every object followed so far, ascending, visible here or not.
    scores: id to the model's own confidence in its mask, 0..1; 1.0 for a given mask.
    given:  True where a person gave masks of this frame, which are what stands in `labels`; objects that these do not
            show are predicted beside them.
    probabilities: (len(ids), H, W) float16 in the order of `ids`, only when asked for.
    likeness: how much the given examples speak for what an object was when it was last seen, a mean of differences of
            cosines, by id; of models that notice cuts (`segic.shots`), for the objects of which it is known.
    away:   who has not been found since a cut.
    """

    labels: NDArray[np.int32]
    ids: tuple[int, ...]
    scores: Mapping[int, float] = field(default_factory=dict)
    given: bool = False
    probabilities: NDArray[np.float16] | None = None
    likeness: Mapping[int, float] = field(default_factory=dict)
    away: frozenset[int] = frozenset()


class Sink(Protocol):
    """Takes results in order. `close` finishes the file; after an error it keeps what was written."""

    def write(self, frame: Frame, result: FrameResult) -> None: ...

    def close(self) -> None: ...
