"""J and F of a whole sequence, by object, and the summary over objects."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import cv2
import numpy as np
from numpy.typing import NDArray

from segic.errors import UsageError

from .boundary import boundary_measure, boundary_radius
from .region import region_similarity
from .statistics import Statistics, statistics

VOID = 255


@dataclass(frozen=True)
class ObjectScores:
    """Statistics of one object of one sequence."""

    region: Statistics
    boundary: Statistics

    @property
    def mean(self) -> float:
        """J&F of the object: the mean of J's mean and F's mean."""
        return (self.region.mean + self.boundary.mean) / 2


@dataclass(frozen=True)
class SequenceScores:
    """Scores of a sequence by object and frame.

    ids: the objects, in the order of the rows. region, boundary: (len(ids), T) float64, J and F; the sequence's first
    and last frame are not among the T.
    """

    ids: tuple[int, ...]
    region: NDArray[np.float64]
    boundary: NDArray[np.float64]

    def objects(self) -> dict[int, ObjectScores]:
        """Statistics by object id."""
        return {
            id_: ObjectScores(statistics(j), statistics(f))
            for id_, j, f in zip(self.ids, self.region, self.boundary, strict=True)
        }


@dataclass(frozen=True)
class Summary:
    """A benchmark's global figures: every statistic is the mean over all objects of all sequences."""

    region: Statistics
    boundary: Statistics

    @property
    def mean(self) -> float:
        """J&F."""
        return (self.region.mean + self.boundary.mean) / 2


def score_sequence(
    truth: Iterable[NDArray[np.integer]],
    predictions: Iterable[NDArray[np.integer]],
    ids: Sequence[int],
) -> SequenceScores:
    """J and F of every object in every frame but the first and the last, which DAVIS leaves out.

    truth, predictions: (H, W) integer label maps, all frames of the sequence in order, 0 is background; they may be
    generators, since only one frame is held at a time. ids: the objects to score. The value 255 of the truth is void
    (counted nowhere) unless 255 is one of the `ids`. Predicted labels that are not in `ids` count as background.

    Raises UsageError for lengths or sizes that differ, other shapes, and for fewer than three frames.
    """
    if not ids:
        raise UsageError("no object to score: `ids` is empty")
    void = None if VOID in ids else VOID
    columns: list[NDArray[np.float64]] = []
    waiting: NDArray[np.float64] | None = None  # the latest frame may turn out to be the last one
    count = 0
    for index, (wanted, got) in enumerate(zip_longest(truth, predictions)):
        if wanted is None or got is None:
            missing = "truth" if wanted is None else "predictions"
            raise UsageError(f"the {missing} end after {index} frames and the other side goes on; give both all frames")
        if wanted.ndim != 2:
            raise UsageError(f"frame {index}: the truth is of shape {wanted.shape}; expected (H, W)")
        if wanted.shape != got.shape:
            raise UsageError(f"frame {index}: the prediction is {_size(got)} pixels and the truth {_size(wanted)}")
        count += 1
        if waiting is not None:
            columns.append(waiting)
        waiting = _frame(wanted, got, ids, void) if index else None
    if not columns:
        raise UsageError(f"{count} frames leave nothing to score without the first and the last; at least 3 are needed")
    scores = np.stack(columns, axis=-1)
    return SequenceScores(tuple(ids), scores[0], scores[1])


def _frame(
    truth: NDArray[np.integer], prediction: NDArray[np.integer], ids: Sequence[int], void: int | None
) -> NDArray[np.float64]:
    """(2, len(ids)) J and F of one frame."""
    radius = boundary_radius(*truth.shape)
    keep = truth != void if void is not None else None
    scores = np.ones((2, len(ids)))
    for column, id_ in enumerate(ids):
        wanted, got = truth == id_, prediction == id_
        if keep is not None:
            got &= keep
        box = _window(wanted | got)
        if box is not None:
            scores[0, column] = region_similarity(wanted[box], got[box])
            scores[1, column] = boundary_measure(wanted[box], got[box], radius)
    return scores


def _window(mask: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """The part of the frame that decides the scores: the mask's bounding box and one pixel more on every side.

    All outline pixels of a mask lie in its box or just above or left of it, and outlines are only compared with each
    other, so nothing outside takes part, the tolerance's disk included. None for an empty mask.
    """
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width == 0:
        return None
    return slice(max(top - 1, 0), top + height + 1), slice(max(left - 1, 0), left + width + 1)


def _size(labels: NDArray[np.integer]) -> str:
    return "x".join(str(n) for n in labels.shape[::-1])


def summarise(sequences: Mapping[str, SequenceScores]) -> Summary:
    """Global figures of a benchmark: means over all objects (not over sequences) of all sequences."""
    objects = [scores for sequence in sequences.values() for scores in sequence.objects().values()]
    if not objects:
        raise UsageError("no sequence to summarise")
    return Summary(_mean([o.region for o in objects]), _mean([o.boundary for o in objects]))


def _mean(rows: Sequence[Statistics]) -> Statistics:
    return Statistics(
        float(np.mean([r.mean for r in rows])),
        float(np.mean([r.recall for r in rows])),
        float(np.mean([r.decay for r in rows])),
    )
