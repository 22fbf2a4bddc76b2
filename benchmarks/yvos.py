"""YouTube-VOS 2018 and 2019: what the evaluation server takes, and scores where the masks are at hand."""

import os
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segic.errors import UsageError
from segic.files import whole, write_whole, writing

from .clips import contents_digest, listing, pictures
from .follow import Follow
from .masks import Labels, ids_in, read_labels
from .metrics import boundary_measure, boundary_radius, region_similarity
from .predict import Task, is_complete, predict
from .result import Result, claim_folder, versions
from .score import check_frames
from .shards import Shard
from .yvos_layout import YvosDataset, YvosVideo

FOLDER = "Annotations"  # the name that the server expects in the zip


@dataclass(frozen=True)
class ObjectScore:
    """Means over an object's scored frames. seen: whether its class is one of the training set, None if not known."""

    region: float
    boundary: float
    frames: int
    seen: bool | None


@dataclass(frozen=True)
class YvosBenchmark:
    """year: 2018 or 2019, which differ in their videos only."""

    year: int
    dataset: YvosDataset

    @property
    def name(self) -> str:
        return f"yvos{self.year % 100}"

    def run(
        self,
        follow: Follow,
        out: Path,
        settings: Mapping[str, Any],
        *,
        shard: Shard | None = None,
        progress: Callable[[str], None] = lambda name: None,
    ) -> tuple[Path, Result | None] | None:
        """Save masks to `out/Annotations`, pack `out/submission.zip`, score where annotations allow it.

        Returns the zip and the result; None in place of the result where no annotated frame follows an object's first
        one (as in the published validation set, which the server scores), and None alone for a part of the work that is
        not the last one to end.
        """
        settings = {"benchmark": self.name, "split": self.dataset.split, **settings}
        settings["sequences"] = [video.clip.name for video in self.dataset.videos]
        settings["data_sha256"] = contents_digest(path for v in self.dataset.videos for path in v.clip.beginning())
        claim_folder(out, settings)
        tasks = [Task(video.clip, video.given, video.output) for video in self.dataset.videos]
        predict((shard or Shard()).select(tasks), follow, out / FOLDER, progress=progress)
        if not all(is_complete(task, out / FOLDER) for task in tasks):
            return None
        archive = _pack(out / FOLDER, tasks, out / "submission.zip")
        result = self.score(out / FOLDER, settings)
        if result is not None:
            write_whole(out / "result.json", result.to_json())
        return archive, result

    def score(
        self, results: Path, settings: Mapping[str, Any], *, progress: Callable[[str], None] = lambda name: None
    ) -> Result | None:
        """J and F of `results/VIDEO/FRAME.png`, over the annotated frames after each object's first one.

        G is the mean of J and F over seen and unseen classes, as the server computes it. None where there is nothing to
        score: in the published validation set, whose masks show objects where they enter and nobody else, so that an
        object that a mask lacks may be there all the same. Raises UsageError that names a file that is missing, of
        another size, or has other objects.
        """
        if not results.is_dir():
            raise UsageError(f"{results}: there is no such folder; expected a folder of masks for every video")
        scores: dict[str, ObjectScore] = {}
        with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 16)) as pool:
            jobs = [pool.submit(_score_video, v, results / v.clip.name, self.dataset.seen) for v in self.dataset.videos]
            for video, job in zip(self.dataset.videos, jobs, strict=True):
                scores.update(job.result())
                progress(video.clip.name)
        if not scores:
            return None
        figures, notes = _figures(scores)
        return Result(
            benchmark=self.name,
            metric="G",
            value=figures["G"],
            figures=figures,
            rows={key: {"J": score.region, "F": score.boundary} for key, score in scores.items()},
            split=self.dataset.split,
            settings=settings,
            versions=versions(),
            notes=self.dataset.notes + notes,
        )


def _score_video(video: YvosVideo, folder: Path, seen: frozenset[str] | None) -> dict[str, ObjectScore]:
    entries = video.entries()
    if not video.shows_all():
        return {}
    if folder.is_dir():
        check_frames(folder, pictures(folder), (), video.clip.names)
    order = {name: index for index, name in enumerate(video.clip.names)}
    values: dict[int, list[tuple[float, float]]] = {}
    found: set[int] = set()
    for name in video.annotated:
        started = [id_ for id_, first in entries.items() if order[first] < order[name]]
        if not started or name not in video.output:
            continue
        truth = video.labels(name)
        prediction = _prediction(video, folder, name, truth.shape, entries)
        found.update(ids_in(prediction))
        radius = boundary_radius(*truth.shape)
        for id_ in started:
            pair = truth == id_, prediction == id_
            values.setdefault(id_, []).append((region_similarity(*pair), boundary_measure(*pair, radius)))
    for id_ in sorted(set(values) - found):
        # A method may lose an object at once, but then the mask that it was given must be there: else it was forgotten.
        name = entries[id_]
        if id_ not in ids_in(_prediction(video, folder, name, video.labels(name).shape, entries)):
            raise UsageError(f"{folder}: object {id_} is in none of the masks, not even {name}.png, where it enters")
    scores = {}
    for id_, pairs in sorted(values.items()):
        region, boundary = np.mean(pairs, axis=0).tolist()
        category = video.categories.get(id_)
        trained = None if seen is None or category is None else category in seen
        scores[f"{video.clip.name}/{id_}"] = ObjectScore(region, boundary, len(pairs), trained)
    return scores


def _prediction(video: YvosVideo, folder: Path, name: str, size: tuple[int, ...], entries: Mapping[int, str]) -> Labels:
    """(H, W) ids of one result. Raises UsageError, naming the file, where it is not as the truth wants it."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder; found {listing(folder.parent)}")
    path = folder / f"{name}.png"
    labels = read_labels(path)
    if labels.shape != size:
        raise UsageError(f"{path} is {labels.shape[1]}x{labels.shape[0]} pixels and the truth {size[1]}x{size[0]}")
    if extra := [str(id_) for id_ in ids_in(labels) if id_ not in entries]:
        known = ", ".join(map(str, sorted(entries)))
        raise UsageError(f"{path} has object {', '.join(extra)}; the objects of {video.clip.name} are {known}")
    return labels


def _figures(scores: Mapping[str, ObjectScore]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Global figures and notes. Means over objects."""
    groups = {
        "seen": [score for score in scores.values() if score.seen],
        "unseen": [score for score in scores.values() if score.seen is False],
    }
    parts = {}
    for name, group in groups.items():
        if group:
            parts[f"J {name}"] = float(np.mean([score.region for score in group]))
            parts[f"F {name}"] = float(np.mean([score.boundary for score in group]))
    unknown = [key for key, score in scores.items() if score.seen is None]
    if unknown:
        note = (
            f"it is not known which classes are seen ({len(unknown)} of {len(scores)} objects): G is over all objects"
        )
        everything = list(scores.values())
        region = float(np.mean([score.region for score in everything]))
        boundary = float(np.mean([score.boundary for score in everything]))
        return {"G": (region + boundary) / 2, "J": region, "F": boundary}, (note,)
    notes = tuple(f"no object of an {name} class: G leaves those out" for name, group in groups.items() if not group)
    return {"G": float(np.mean(list(parts.values()))), **parts}, notes


def _pack(folder: Path, tasks: list[Task], path: Path) -> Path:
    """Zip `Annotations/VIDEO/FRAME.png`; PNGs are stored as they are, with a fixed date, so equal runs pack equally."""
    with writing(path), whole(path) as part, zipfile.ZipFile(part, "w") as archive:
        for task in tasks:
            for name in task.saved:
                member = f"{FOLDER}/{task.clip.name}/{name}.png"
                archive.writestr(zipfile.ZipInfo(member), (folder / task.clip.name / f"{name}.png").read_bytes())
    return path
