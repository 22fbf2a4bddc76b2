"""SPair-71k: do a backbone's features match key points of two pictures without any training? (figure 3 of the paper)"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segic.errors import UsageError

from .clips import listing
from .items import Counts, Record, ratios, score_items
from .masks import read_image
from .result import Result, described, digest, versions
from .shards import Shard

ALPHA = 0.1  # of the larger side of the target's bounding box


class Match(Protocol):
    """For (K, 2) points (x, y) of the source, the (K, 2) best matching points of the target. Pictures are RGB uint8."""

    def __call__(
        self, source: NDArray[np.uint8], target: NDArray[np.uint8], points: NDArray[np.float64], /
    ) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class Pair:
    """Two pictures of one class. points: (K, 2) x and y in each. limit: pixels within which a match is right."""

    key: str
    category: str
    source: Path
    target: Path
    source_points: NDArray[np.float64]
    target_points: NDArray[np.float64]
    limit: float


@dataclass(frozen=True)
class SpairBenchmark:
    """The pairs of a split."""

    pairs: tuple[Pair, ...]
    split: str
    notes: tuple[str, ...] = ()
    name: str = "spair71k"

    def run(
        self,
        match: Match,
        out: Path,
        settings: Mapping[str, Any],
        *,
        shard: Shard | None = None,
        progress: Callable[[str], None] = lambda name: None,
    ) -> Result | None:
        """PCK over all key points, and as the mean over pairs. Resumable; None while another shard's are missing."""
        settings = {"benchmark": self.name, "split": self.split, "pairs": len(self.pairs), "alpha": ALPHA, **settings}
        settings["pairs_sha256"] = digest([pair.key for pair in self.pairs])

        def work(pair: Pair) -> Counts:
            found = match(read_image(pair.source), read_image(pair.target), pair.source_points)
            distance = np.linalg.norm(found - pair.target_points, axis=1)
            return {pair.category: (int(np.count_nonzero(distance <= pair.limit)), len(distance))}

        def conclude(records: Sequence[Record]) -> Result:
            return self._result(records, settings)

        return score_items(self.pairs, work, conclude, out, "pairs", settings, shard=shard, progress=progress)

    def _result(self, records: Sequence[Record], settings: Mapping[str, Any]) -> Result:
        counts = [pair for record in records for pair in record.counts.values()]
        right, points = np.sum(counts, axis=0).tolist()
        by_pair = float(np.mean([part / whole for part, whole in counts]))
        return Result(
            benchmark=self.name,
            metric="PCK@0.1",
            value=right / points,
            figures={"PCK@0.1": right / points, "PCK@0.1 by pair": by_pair},
            rows={name: {"PCK@0.1": value} for name, value in ratios(records).items()},
            split=self.split,
            settings=settings,
            versions=versions(),
            notes=self.notes,
        )


def spair71k(root: Path, *, split: str = "test", limit: int | None = None) -> SpairBenchmark:
    """The pairs of `PairAnnotation/SPLIT/*.json`, pictures in `JPEGImages/CLASS/`. limit: only the first so many pairs.

    Raises UsageError that says what was looked for and what was found.
    """
    base = root / "SPair-71k" if (root / "SPair-71k").is_dir() else root
    folder, images = base / "PairAnnotation" / split, base / "JPEGImages"
    for path in (folder, images):
        if not path.is_dir():
            found = listing(base) if base.is_dir() else "no such folder"
            raise UsageError(f"{base} is not in the layout of SPair-71k: looked for {path}; found {found}")
    files = sorted(folder.glob("*.json"))[:limit]
    if not files:
        raise UsageError(f"{folder} holds no pairs (*.json); found {listing(folder)}")
    notes = () if limit is None else (f"the first {len(files)} pairs only",)
    return SpairBenchmark(tuple(_pair(path, images) for path in files), split, notes)


def _pair(path: Path, images: Path) -> Pair:
    try:
        data = json.loads(path.read_text())
        category = str(data["category"])
        source, target = (np.asarray(data[k], np.float64).reshape(-1, 2) for k in ("src_kps", "trg_kps"))
        left, top, right, bottom = (float(v) for v in data["trg_bndbox"])
        files = [images / category / str(data[key]) for key in ("src_imname", "trg_imname")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not a pair of SPair-71k: {described(error)}") from None
    if source.shape != target.shape or not len(source):
        raise UsageError(f"{path} has {len(source)} key points in the source and {len(target)} in the target")
    limit = ALPHA * max(right - left, bottom - top)
    return Pair(path.stem, category, files[0], files[1], source, target, limit)
