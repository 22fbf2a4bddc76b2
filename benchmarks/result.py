"""A benchmark's outcome as a file: the figures, and all that is needed to get them again."""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from segic.errors import UsageError
from segic.files import write_whole
from segic.nested import flatten

FORMAT = 1
_PACKAGES = ("segic", "torch", "numpy", "pillow", "av", "opencv-python-headless")


@dataclass(frozen=True)
class Result:
    """One benchmark, one model or folder of results.

    benchmark: "davis17", "coco20i", ... metric: the name of the headline figure, as in the paper's table. value: that
    figure, 0..1. figures: all global figures by name, 0..1. rows: figures by item (sequence, object, class, fold).
    frames: scores by frame of each sequence, {"sequence": {"frame": score}}, to find the worst ones; may be empty.
    split: which part of the dataset. settings: model, its weights' sha256, sizes, seed. files: where the masks, frames
    and truths of `frames` lie. notes: what must be said beside the figures.
    """

    benchmark: str
    metric: str
    value: float
    figures: Mapping[str, float]
    rows: Mapping[str, Mapping[str, float]]
    split: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    frames: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The file's text. It holds no times and no machine names, so equal runs give equal files.

        The order of figures and rows is kept, since tables follow it.
        """
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"


def load_result(path: Path) -> Result:
    """Read a result file, or `result.json` of a folder. Raises UsageError, naming the file."""
    file = path / "result.json" if path.is_dir() else path
    if not file.is_file() and (file.parent / "settings.json").is_file():
        raise UsageError(f"{file.parent} holds a run that is not finished; the same command goes on with it")
    other = f"{file} is not a result of `segic bench`, as result.json is"
    try:
        data = json.loads(file.read_text())
        if not isinstance(data, dict) or "format" not in data:
            raise UsageError(f"{other}: it names no format")
        version = data.pop("format")
        if version != FORMAT:
            raise UsageError(f"{file} has format {version!r}; this version reads format {FORMAT}")
        needed = [each.name for each in fields(Result) if each.default is each.default_factory is MISSING]
        if lacking := [name for name in needed if name not in data]:
            raise UsageError(f"{other}: it lacks {', '.join(lacking)}")
        data["notes"] = tuple(data.get("notes", ()))
        result = Result(**data)
        for name in ("figures", "rows", "settings", "versions", "frames", "files"):
            if not isinstance(getattr(result, name), dict):
                raise TypeError(f"{name} is not a table")
        return result
    except FileNotFoundError:
        raise UsageError(f"{file}: there is no such file; expected what a `segic bench` command wrote") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"{other}: it is no JSON from line {error.lineno}, column {error.colno} on") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{other}: {described(error)}") from None


def described(error: Exception) -> str:
    """What an exception says, with its kind; not its repr, which for text that is none holds the whole file."""
    return f"{type(error).__name__}: {error}"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the figures depend on."""
    installed = {d.metadata["Name"]: d.version for d in metadata.distributions() if d.metadata["Name"] in _PACKAGES}
    return {"python": platform.python_version(), **{name: installed[name] for name in sorted(installed)}}


def digest(data: Any) -> str:
    """The first 16 digits of the sha256 of what JSON can say, to tell in the settings whether two lists are equal."""
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Mark `folder` as the place of a run with these settings and versions, or go on with the run that is there.

    Raises UsageError where the folder holds a run with others, naming what differs: results of two settings must not
    end up in one score.
    """
    path = folder / "settings.json"
    wanted = json.loads(json.dumps({**settings, "versions": versions()}))
    if path.is_file():
        try:
            there = json.loads(path.read_text())
        except ValueError:
            raise UsageError(f"{path} is not readable; remove the folder or choose another with --out") from None
        old, new = flatten(there), flatten(wanted)
        differ = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
        if differ:
            what = "; ".join(f"{key} was {old.get(key)!r} and is {new.get(key)!r}" for key in differ)
            raise UsageError(f"{folder} holds a run with other settings ({what}); choose another folder with --out")
        return
    if folder.is_dir() and any(p for p in folder.iterdir() if not p.name.startswith(".")):
        raise UsageError(f"{folder} exists and holds no run to go on with; choose another folder with --out")
    write_whole(path, json.dumps(wanted, indent=1, sort_keys=True) + "\n")
