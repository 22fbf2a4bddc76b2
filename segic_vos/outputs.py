"""The output folder of a run: which files it holds, and when an existing one may be used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segic.errors import SegicError, UsageError
from segic.files import make_folder, write_over, write_whole, writing
from segic_vos.records import read_records

Existing = Literal["refuse", "overwrite", "resume"]

_ROOM = 16_384  # bytes of a summary: that of a run with dozens of objects


@dataclass(frozen=True)
class Outputs:
    """Paths below `root`. `soft` and `rle` exist only where they were asked for."""

    root: Path

    @property
    def masks(self) -> Path:
        return self.root / "masks"

    @property
    def overlay(self) -> Path:
        return self.root / "overlay.mp4"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def records(self) -> Path:
        return self.root / "frames.jsonl"

    @property
    def rle(self) -> Path:
        return self.root / "masks.json"

    @property
    def soft(self) -> Path:
        return self.root / "soft"

    def mask_of(self, name: str) -> Path:
        """The mask file of the frame called `name`."""
        return self.masks / f"{name}.png"

    def soft_of(self, key: int, name: str) -> Path:
        """The soft mask of the object `key` in the frame called `name`."""
        return self.soft / str(key) / f"{name}.png"

    def all(self) -> tuple[Path, ...]:
        """Everything that a run may write."""
        return self.records, self.masks, self.overlay, self.rle, self.soft, self.summary

    def check(self, existing: Existing, inputs: tuple[Path, ...]) -> None:
        """Raise UsageError unless the folder may be used; change nothing.

        A folder that holds something is refused, unless it was asked to overwrite or resume it and segic made it: a
        `masks` folder of the user's own is never deleted. Nor may an input lie where the output goes.
        """
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"{self.root} is a file; --out must name a folder")
        places = [path.resolve() for path in self.all()]
        for given in inputs:
            resolved = given.resolve()
            if any(resolved == place or place in resolved.parents for place in places):
                raise UsageError(f"{given} lies where the output goes ({self.root}); give another folder with --out")
        if not self.root.is_dir() or not any(self.root.iterdir()):
            return
        if existing == "refuse":
            raise UsageError(
                f"the output folder {self.root} exists already: --resume goes on with it, --overwrite replaces it, "
                "--out names another"
            )
        if self.read_summary() is None and any(path.exists() for path in self.all()):
            lacks = "has a summary.json that is damaged or not of segic" if self.summary.exists() else ""
            raise UsageError(
                f"{self.root} {lacks or 'has no summary.json of segic'}, so nothing in it is replaced: "
                "give another folder with --out"
            )

    def create(self, existing: Existing, is_frame: Callable[[str], bool] = lambda _: False) -> None:
        """Make the folder; with "overwrite" remove what an earlier run wrote (and only that). is_frame: whether one is
        called so: its masks may have been written when a run was killed that had not come to say so.

        Raises SegicError where that cannot be done.
        """
        if existing == "overwrite":
            for path in self._written(is_frame):
                with writing(path.parent):  # which is what lets files go, or does not
                    path.unlink(missing_ok=True)
            for folder in (*self.soft.glob("*/"), self.soft, self.masks):
                with suppress(OSError):  # somebody else's files are in it, or there is none
                    folder.rmdir()
        make_folder(self.root)

    def _written(self, is_frame: Callable[[str], bool]) -> Iterator[Path]:
        """The files of an earlier run: what its summary and its records name, these two last, and masks of frames."""
        for record in read_records(self.records):
            yield self.mask_of(record.name)
            yield from (self.soft_of(key, record.name) for key in record.areas)
        soft = (path for path in self.soft.glob("*/*.png") if path.parent.name.isdecimal())
        yield from (path for path in (*self.masks.glob("*.png"), *soft) if is_frame(path.stem))
        yield from (*self.masks.glob(".*.part"), *self.soft.glob("*/.*.part"))
        kinds = (self.read_summary() or {}).get("outputs") or {}
        yield from (getattr(self, kind) for kind in ("overlay", "rle") if kind in kinds)
        yield from (self.records, self.summary)

    def read_summary(self) -> dict[str, Any] | None:
        """The summary of an earlier run, None where there is none of segic's."""
        try:
            values = json.loads(self.summary.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return values if isinstance(values, dict) and values.get("program") == "segic" else None

    def write_summary(self, values: Mapping[str, Any]) -> None:
        """Replace the summary in one step, or on a full disk in place: that of a run in progress keeps room for the
        last one, by blanks at its end. Raises SegicError where it cannot be written.
        """
        text = json.dumps(values, indent=2) + "\n"
        if values.get("status") == "running":
            text = text.ljust(_ROOM)
        try:
            write_whole(self.summary, text)
        except SegicError:
            if not self.summary.is_file():
                raise
            write_over(self.summary, text.encode())
