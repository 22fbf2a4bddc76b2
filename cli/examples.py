"""The `--example IMAGE:MASK[:text]` of `segic image segment`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from segic.errors import UsageError


@dataclass(frozen=True)
class ExampleSpec:
    """What one `--example` names. `text`: the class's words, None where none were given."""

    image: Path
    mask: Path
    text: str | None = None


def parse_example(value: str, is_file: Callable[[str], bool] = lambda name: Path(name).is_file()) -> ExampleSpec:
    """Split `value` at the colons that separate the parts, not at those inside of file names or the text.

    Of all ways to split it, the one is taken whose image and mask are files (the shortest image name first, then the
    shortest mask name), so that file names may hold colons and Windows drives. Where no way has both files, a colon
    that follows a single letter at the start of a name and precedes a slash or backslash is taken for a drive's.

    Raises: UsageError that names the part which is missing, or the file which does not exist.
    """
    ways = list(_ways(value.split(":")))
    if not ways:
        raise UsageError(f"--example {value!r}: expected IMAGE:MASK or IMAGE:MASK:text")
    for image, mask, text in ways:
        if is_file(image) and is_file(mask):
            return ExampleSpec(Path(image), Path(mask), text)
    image, mask, _ = next(_ways(_with_drives(value.split(":"))), ways[0])
    kind, name = ("mask", mask) if is_file(image) else ("image", image)
    raise UsageError(f"--example {value!r}: no such {kind} file: {name} (expected IMAGE:MASK or IMAGE:MASK:text)")


def _ways(pieces: list[str]) -> Iterator[tuple[str, str, str | None]]:
    """(image, mask, text) for every choice of the two separating colons; image and mask are not empty."""
    for first in range(1, len(pieces)):
        for second in range(first + 1, len(pieces) + 1):
            image, mask = ":".join(pieces[:first]), ":".join(pieces[first:second])
            if image and mask:
                yield image, mask, ":".join(pieces[second:]) if second < len(pieces) else None


def _with_drives(pieces: list[str]) -> list[str]:
    """`pieces` with drive letters joined to what follows them: "C" and "/a.png" become "C:/a.png"."""
    joined: list[str] = []
    for piece in pieces:
        if joined and len(joined[-1]) == 1 and joined[-1].isalpha() and piece[:1] in ("/", "\\"):
            joined[-1] += f":{piece}"
        else:
            joined.append(piece)
    return joined
