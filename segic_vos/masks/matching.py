"""Which frame does a mask file's name mean, and what kind of masks does a set of files hold?"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from segic.errors import UsageError
from segic_vos.sources.naming import trailing_number
from segic_vos.sources.video import frame_name

from .reading import is_binary_mask

Form = Literal["auto", "index", "objects", "frames"]

# Files looked into before a folder counts as binary throughout.
_LOOKED_INTO = 32


class FrameNames:
    """The names of a source's frames: those given, or with None the numbers of a video's frames."""

    def __init__(self, names: Sequence[str] | None) -> None:
        self._names = None if names is None else frozenset(names)
        numbered = [name for name in names or () if name.isdecimal()]
        self._numbers = frozenset(map(int, numbered))
        # Hardly ever has a folder two names of one number, such as 1.png and 001.jpg.
        self._doubled = numbered if len(self._numbers) < len(numbered) else []

    def is_exact(self, stem: str) -> bool:
        """True where `stem` is spelt as a frame's name is."""
        if self._names is None:
            return stem.isdecimal() and stem == frame_name(int(stem))
        return stem in self._names

    def matches(self, stem: str) -> bool:
        """True where `stem` is a frame's name or, both being numbers, equal to one."""
        if self.is_exact(stem):
            return True
        return stem.isdecimal() and (self._names is None or int(stem) in self._numbers)

    def of_one_number(self, stem: str) -> tuple[str, ...]:
        """The frames that could be meant by `stem`, where these are several."""
        same = [name for name in self._doubled if stem.isdecimal() and int(name) == int(stem)]
        return tuple(same) if len(same) > 1 else ()


def decide_form(files: Sequence[Path], frames: FrameNames, where: str) -> tuple[Form, str | None]:
    """Whether `files` are one index mask for the first frame ("index"), binary masks of its objects ("objects") or
    masks named by frame ("frames"), from their names and contents; and a note where it was a judgement.

    Raises UsageError that says what was found when the evidence does not decide.
    """
    stems = [file.stem for file in files]
    matching = [stem for stem in stems if frames.matches(stem)]
    several = next((file for file in files[:_LOOKED_INTO] if not is_binary_mask(file)), None)
    if several is not None:
        if matching:
            return "frames", None
        if len(files) == 1:
            return "index", None
        raise UsageError(
            f"{where}: {len(files)} mask files whose names match no frame, and {several.name} holds more than one "
            "value beside 0, so that it is not the mask of one object. Name index masks as the frames are named, or "
            "give one binary mask per object"
        )
    if not matching:
        # Nobody pads the ids of a few objects to four digits.
        if len(stems) > 1 and all(re.search(r"(?<!\d)0\d{3,}$", stem) for stem in stems):
            raise UsageError(
                f"{where}: {len(files)} binary masks ({_shorten(stems)}) are numbered as frames are, but named like "
                "none of them. Name masks of frames as the frames are named; for those of the first frame's objects "
                "say --mask-form objects (form= in Python)"
            )
        return "objects", None
    padded = [stem for stem in stems if len(stem) >= 4 and stem.startswith("0")]
    if len(matching) == len(stems):
        # No object has the id 0, and nobody pads the ids of a few objects to four digits.
        if any(trailing_number(stem) == 0 for stem in stems):
            return "frames", None
        # Nor is an object called "img_00002" where a frame is.
        if all(frames.is_exact(stem) and (stem in padded or not stem.isdecimal()) for stem in stems):
            return "frames", None
    if not padded and not any(frames.is_exact(stem) for stem in stems):
        return (
            "objects",
            f"{where}: read as one binary mask per object of the first frame (--mask-form frames reads them otherwise)",
        )
    raise UsageError(
        f"{where}: {len(files)} binary masks ({_shorten(stems)}), of which {len(matching)} are named like frames, "
        "could be masks of these frames or of the objects with these ids in the first frame. Say which, "
        "with --mask-form frames or objects (form= in Python)"
    )


def _shorten(stems: Sequence[str]) -> str:
    return ", ".join(stems) if len(stems) <= 4 else f"{', '.join(stems[:3])} ... {stems[-1]}"
