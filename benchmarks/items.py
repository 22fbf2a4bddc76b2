"""Working through many small items (episodes, images, pairs): resumable, in shards, with a result that does not depend
on how the work was cut."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from segic.errors import UsageError
from segic.files import make_folder, write_whole, writing

from .result import Result, claim_folder, described
from .shards import Shard

Counts = Mapping[str, tuple[int, int]]
"""By class: a part and its whole, for instance the pixels of intersection and of union."""


class Item(Protocol):
    """Something to do. key: its name, different from all others' and the same in every run."""

    @property
    def key(self) -> str: ...


I = TypeVar("I", bound=Item)  # noqa: E741


@dataclass(frozen=True)
class Record:
    """What came of one item."""

    key: str
    counts: Counts


def run_items(
    items: Sequence[I],
    work: Callable[[I], Counts],
    folder: Path,
    *,
    shard: Shard | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> list[Record] | None:
    """Do this shard's items that no record in `folder` has yet, one line of `items-*.jsonl` each.

    Returns the records of all items, in their order, or None while another shard's are missing.
    """
    shard = shard or Shard()
    make_folder(folder)
    done = _read(folder)
    path = folder / f"items-{shard.index}-of-{shard.count}.jsonl"
    _drop_half_line(path)
    for item in shard.select(items):
        if item.key not in done:
            counts = work(item)
            with writing(path, "Make room and give the same command again"), path.open("a") as file:
                file.write(json.dumps({"key": item.key, "counts": counts}) + "\n")
        progress(item.key)
    done = _read(folder)
    if any(item.key not in done for item in items):
        return None
    return [Record(item.key, done[item.key]) for item in items]


def score_items(
    items: Sequence[I],
    work: Callable[[I], Counts],
    conclude: Callable[[Sequence[Record]], Result],
    out: Path,
    kind: str,
    settings: Mapping[str, Any],
    *,
    shard: Shard | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> Result | None:
    """A whole run in `out`: its settings, `run_items` in `out/kind`, then `out/result.json` as `conclude` has it.

    None while another shard's items are missing. Raises UsageError where `out` holds a run with other settings.
    """
    claim_folder(out, settings)
    records = run_items(items, work, out / kind, shard=shard, progress=progress)
    if records is None:
        return None
    result = conclude(records)
    write_whole(out / "result.json", result.to_json())
    return result


def _read(folder: Path) -> dict[str, Counts]:
    done: dict[str, Counts] = {}
    for path in sorted(folder.glob("items-*.jsonl")):
        lines = path.read_text().split("\n")
        for number, line in enumerate(lines[:-1]):  # behind the last line break: nothing, or a line that was cut off
            try:
                entry = json.loads(line)
                done[entry["key"]] = {name: (int(part), int(whole)) for name, (part, whole) in entry["counts"].items()}
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(
                    f"{path}, line {number + 1} is damaged ({described(error)}); remove that line"
                ) from None
    return done


def _drop_half_line(path: Path) -> None:
    """Remove what a killed run left behind the last line break."""
    if path.is_file():
        with writing(path):
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)


def ratios(records: Iterable[Record]) -> dict[str, float]:
    """By class: the sum of its parts over the sum of its wholes. Classes whose whole is 0 are left out."""
    parts: dict[str, int] = {}
    wholes: dict[str, int] = {}
    for record in records:
        for name, (part, whole) in record.counts.items():
            parts[name] = parts.get(name, 0) + part
            wholes[name] = wholes.get(name, 0) + whole
    return {name: parts[name] / wholes[name] for name in sorted(parts) if wholes[name]}
