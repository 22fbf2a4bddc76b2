"""DAVIS 2016 and 2017: run a model on the sequences, or take saved masks, and score them."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from segic.files import write_whole

from .clips import contents_digest
from .davis_layout import VideoDataset
from .follow import Follow
from .metrics import SequenceScores, Statistics, Summary, score_sequence, summarise
from .predict import Task, is_complete, predict
from .result import Result, claim_folder, versions
from .score import Toolkit, score_folder
from .shards import Shard
from .truth import Truth, survey

Progress = Callable[[str], None]


def _quiet(name: str) -> None:
    """No progress is shown."""


@dataclass(frozen=True)
class DavisBenchmark:
    """year: 2016 (one merged foreground) or 2017 (every object by itself). toolkit: who computes J and F."""

    year: int
    dataset: VideoDataset
    toolkit: Toolkit = score_sequence

    @property
    def name(self) -> str:
        return f"davis{self.year % 100}"

    def truths(self) -> list[Truth]:
        """What counts in each sequence."""
        with ThreadPoolExecutor() as pool:  # reading PNGs lets other threads run
            return list(pool.map(partial(survey, merge=self.year == 2016), self.dataset.clips))

    def run(
        self,
        follow: Follow,
        out: Path,
        settings: Mapping[str, Any],
        *,
        shard: Shard | None = None,
        progress: Progress = _quiet,
    ) -> Result | None:
        """Save masks to `out/masks`, score them, write `out/result.json`.

        Sequences that an earlier, stopped run or another shard completed are not run again. The shard that finds all
        sequences complete scores them; for the others the return value is None. Settings other than those of the run
        that `out` holds are refused.
        """
        settings = {"benchmark": self.name, "split": self.dataset.split, **settings}
        settings["sequences"] = [clip.name for clip in self.dataset.clips]
        settings["data_sha256"] = contents_digest(path for clip in self.dataset.clips for path in clip.beginning())
        claim_folder(out, settings)
        truths = self.truths()
        tasks = [Task(truth.clip, truth.first_annotation) for truth in truths]
        predict((shard or Shard()).select(tasks), follow, out / "masks", progress=progress)
        if not all(is_complete(task, out / "masks") for task in tasks):
            return None
        result = self.score(out / "masks", settings, truths=truths)
        write_whole(out / "result.json", result.to_json())
        return result

    def score(
        self,
        results: Path,
        settings: Mapping[str, Any],
        *,
        truths: Sequence[Truth] | None = None,
        progress: Progress = _quiet,
    ) -> Result:
        """Scores of the masks in `results/SEQUENCE/FRAME.png`, made by anyone."""
        truths = self.truths() if truths is None else truths
        scores = score_folder(truths, results, toolkit=self.toolkit, progress=progress)
        summary = summarise(scores)
        return Result(
            benchmark=self.name,
            metric="J&F",
            value=summary.mean,
            figures=_figures(summary),
            rows=_rows(scores),
            split=self.dataset.split,
            settings=settings,
            versions=versions(),
            frames={t.clip.name: _by_frame(t, scores[t.clip.name]) for t in truths},
            files=_files(truths, results),
            notes=self.dataset.notes + tuple(note for truth in truths for note in truth.notes),
        )


def _figures(summary: Summary) -> dict[str, float]:
    return {"J&F": summary.mean, **_named("J", summary.region), **_named("F", summary.boundary)}


def _named(letter: str, statistics: Statistics) -> dict[str, float]:
    return {
        f"{letter} mean": statistics.mean,
        f"{letter} recall": statistics.recall,
        f"{letter} decay": statistics.decay,
    }


def _rows(scores: Mapping[str, SequenceScores]) -> dict[str, dict[str, float]]:
    """Figures by sequence, and by "sequence/object" where a sequence has several."""
    rows = {}
    for name, sequence in scores.items():
        rows[name] = _figures(summarise({name: sequence}))
        if len(sequence.ids) > 1:
            for id_, one in sequence.objects().items():
                rows[f"{name}/{id_}"] = _figures(Summary(one.region, one.boundary))
    return rows


def _by_frame(truth: Truth, scores: SequenceScores) -> dict[str, float]:
    """J&F of each scored frame, the mean over its objects."""
    values = (scores.region + scores.boundary).mean(axis=0) / 2
    return dict(zip(truth.clip.names[1:-1], values.tolist(), strict=True))


def _files(truths: Sequence[Truth], results: Path) -> dict[str, str]:
    """Where a report finds the pictures of a frame: paths with {sequence} and {frame} to fill in, taken
    from the first sequence."""
    clip = truths[0].clip
    mask = clip.masks[clip.names[0]]
    suffix = "" if mask.parent.name == clip.name else "_mask"
    folder = mask.parent.parent / f"{{sequence}}{suffix}"
    files = {
        "prediction": str(results.resolve() / "{sequence}" / "{frame}.png"),
        "truth": str(folder.resolve() / ("{frame}" + mask.suffix)),
    }
    if isinstance(clip.frames, Path):
        files["video"] = str(clip.frames.parent.resolve() / ("{sequence}" + clip.frames.suffix))
    elif clip.frames is not None:
        frame = clip.frames[0]
        files["frame"] = str(frame.parent.parent.resolve() / "{sequence}" / ("{frame}" + frame.suffix))
    return files
