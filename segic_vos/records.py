"""One line for every finished frame: what `--resume` goes on from, and what the summary is counted from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from segic.files import writing
from segic_vos.frames import Frame, FrameResult, Sink

_FEW = 24  # ids


@dataclass(frozen=True)
class FrameRecord:
    """A finished frame. areas: pixels of every id followed so far, 0 where it is not visible; scores: 0..1 by id.
    likeness, away: as in `FrameResult`.
    """

    index: int
    name: str
    given: bool
    areas: Mapping[int, int]
    scores: Mapping[int, float]
    likeness: Mapping[int, float] = field(default_factory=dict)
    away: frozenset[int] = frozenset()

    @classmethod
    def of(cls, frame: Frame, result: FrameResult) -> FrameRecord:
        """Count the pixels of `result`."""
        return cls(
            index=frame.index,
            name=frame.name,
            given=result.given,
            areas=_areas(result.labels, result.ids),
            scores={key: round(float(score), 4) for key, score in result.scores.items()},
            likeness={key: round(float(value), 4) for key, value in result.likeness.items()},
            away=result.away,
        )

    def to_json(self) -> str:
        """One line without its end."""
        return json.dumps(
            {
                "index": self.index,
                "name": self.name,
                "given": self.given,
                "areas": {str(key): area for key, area in self.areas.items()},
                "scores": {str(key): score for key, score in self.scores.items()},
                "likeness": {str(key): value for key, value in self.likeness.items()},
                "away": sorted(self.away),
            }
        )

    @classmethod
    def from_json(cls, line: str) -> FrameRecord:
        """Raises ValueError for a line that is not one of `to_json`, such as one cut short by a kill."""
        try:
            values = json.loads(line)
            return cls(
                index=int(values["index"]),
                name=str(values["name"]),
                given=bool(values["given"]),
                areas={int(key): int(area) for key, area in values["areas"].items()},
                scores={int(key): float(score) for key, score in values["scores"].items()},
                # Which earlier versions did not write.
                likeness={int(key): float(value) for key, value in values.get("likeness", {}).items()},
                away=frozenset(int(key) for key in values.get("away", ())),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a frame's record: {line!r}") from error


def _areas(labels: NDArray[np.int32], ids: Sequence[int]) -> dict[int, int]:
    """Pixels by id. Comparing bytes is many times as fast as counting all values, unless there are many ids."""
    if len(ids) <= _FEW:
        small = labels.astype(np.uint8) if max(ids, default=0) < 256 and int(labels.max(initial=0)) < 256 else labels
        return {key: int(np.count_nonzero(small == key)) for key in ids}
    counts = np.bincount(labels.ravel(), minlength=max(ids) + 1)
    return {key: int(counts[key]) for key in ids}


@dataclass(frozen=True)
class ObjectSummary:
    """One object over a clip. Areas in pixels over the frames where it is visible; `score` over all it was followed in.

    first, last: names of the first and last frame where it is visible, None where it never is.
    """

    id: int
    frames_followed: int
    frames_present: int
    area_mean: float
    area_min: int
    area_max: int
    score: float
    first: str | None
    last: str | None


@dataclass
class _Running:
    followed: int = 0
    present: int = 0
    area: int = 0
    smallest: int = 0
    largest: int = 0
    score: float = 0.0
    scored: int = 0
    first: str | None = None
    last: str | None = None


class Statistics:
    """Sums over frames, of constant size."""

    def __init__(self, records: Iterable[FrameRecord] = ()) -> None:
        self.frames = 0
        self._objects: dict[int, _Running] = {}
        for record in records:
            self.add(record)

    def add(self, record: FrameRecord) -> None:
        """Count one more frame."""
        self.frames += 1
        for key, area in record.areas.items():
            running = self._objects.setdefault(key, _Running())
            running.followed += 1
            if key in record.scores:
                running.score += record.scores[key]
                running.scored += 1
            if not area:
                continue
            running.smallest = min(running.smallest, area) if running.present else area
            running.largest = max(running.largest, area)
            running.area += area
            running.present += 1
            running.first = running.first or record.name
            running.last = record.name

    def objects(self) -> tuple[ObjectSummary, ...]:
        """By id."""
        return tuple(
            ObjectSummary(
                id=key,
                frames_followed=running.followed,
                frames_present=running.present,
                area_mean=round(running.area / max(running.present, 1), 1),
                area_min=running.smallest,
                area_max=running.largest,
                score=round(running.score / max(running.scored, 1), 4),
                first=running.first,
                last=running.last,
            )
            for key, running in sorted(self._objects.items())
        )


class RecordWriter:
    """Sink: passes each frame to `masks`, then writes its record, so that a record vouches for a finished mask file.

    keep: how many records of an earlier run in `path` stay; they are counted in `statistics`, and what follows is cut.
    """

    def __init__(self, path: Path, masks: Sink, keep: int = 0) -> None:
        self.statistics = Statistics(islice(read_records(path), keep))
        self._masks = masks
        self._path = path
        with writing(path):
            # Line by line: a kill loses at most the line being written.
            self._file: TextIO = path.open("a", encoding="utf-8", buffering=1)
            self._file.truncate(_end_of_line(path, keep))

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Write the mask, then the record."""
        self._masks.write(frame, result)
        record = FrameRecord.of(frame, result)
        with writing(self._path):
            self._file.write(f"{record.to_json()}\n")
        self.statistics.add(record)

    def close(self) -> None:
        """Close both."""
        try:
            self._masks.close()
        finally:
            with writing(self._path):
                self._file.close()


def read_records(path: Path) -> Iterator[FrameRecord]:
    """The records of a run one by one, up to the first line that is not whole; none where the file does not exist."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.endswith("\n"):  # whole or not: what is appended would stand on it
                return
            try:
                record = FrameRecord.from_json(line)
            except ValueError:
                return
            yield record


def _end_of_line(path: Path, count: int) -> int:
    """Where the first `count` lines of a file end, in bytes."""
    with path.open("rb") as lines:
        return sum(len(line) for line in islice(lines, count))
