"""Finding files, and saying what was found instead."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from segic.errors import UsageError


def listing(folder: Path, most: int = 6) -> str:
    """A few names of a folder's content, for messages."""
    try:
        names = sorted(p.name + ("/" if p.is_dir() else "") for p in folder.iterdir())
    except OSError as error:
        return f"nothing ({error.strerror})"
    return (", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")) or "nothing"


def pick(base: Path, names: Sequence[str], help_: str) -> Path:
    """The first of `names` that is a file in `base`. UsageError that says what was looked for and where to get it."""
    found = next((base / name for name in names if (base / name).is_file()), None)
    if found is None:
        raise UsageError(f"{base} lacks {' or '.join(names)}; found {listing(base)}. {help_}")
    return found


def folder_of(base: Path, name: str, help_: str) -> Path:
    """The folder `name` of `base`. UsageError as `pick`."""
    if not (base / name).is_dir():
        raise UsageError(f"the folder {base / name} does not exist; found {listing(base)}. {help_}")
    return base / name


def existing(folders: Iterable[Path], names: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """(path by name, names in none of the folders).

    Folders are listed once: asking for 100,000 files one by one is slow.
    """
    found: dict[str, Path] = {}
    listed: dict[Path, set[str]] = {}
    for folder in folders:
        for name in names:
            path = folder / name
            if name in found:
                continue
            parent = path.parent
            if parent not in listed:
                listed[parent] = {p.name for p in parent.iterdir()} if parent.is_dir() else set()
            if path.name in listed[parent]:
                found[name] = path
    return found, [name for name in names if name not in found]
