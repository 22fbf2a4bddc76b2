"""Scoring saved masks against a sequence's own."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from segic.errors import UsageError

from .clips import listing, pictures
from .masks import Labels, ids_in, read_labels
from .metrics import SequenceScores, score_sequence
from .truth import SOFT, VOID, Truth

Toolkit = Callable[[Iterator[Labels], Iterator[Labels], Sequence[int]], SequenceScores]


def score_folder(
    truths: Sequence[Truth],
    results: Path,
    *,
    toolkit: Toolkit = score_sequence,
    progress: Callable[[str], None] = lambda name: None,
) -> dict[str, SequenceScores]:
    """Scores by sequence of `results/SEQUENCE/FRAME.png`.

    Everything but the first and the last frame must be there, in the size of the truth, and with its objects alone.
    Raises UsageError that names the file which is missing, of another size, unreadable, or has objects too many or too
    few: a file at fault is never a score of zero.
    """
    if not results.is_dir():
        raise UsageError(f"{results}: there is no such folder; expected a folder of masks for every sequence")
    for truth in truths:
        _check_files(truth, results)
    scores = {}
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 16)) as pool:
        jobs = [(t.clip.name, pool.submit(_score, t, results / t.clip.name, toolkit)) for t in truths]
        try:
            for name, job in jobs:
                scores[name] = job.result()
                progress(name)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return scores


def _check_files(truth: Truth, results: Path) -> None:
    folder = results / truth.clip.name
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: there is no such folder; the results lack sequence {truth.clip.name}. Found {listing(results)}"
        )
    check_frames(folder, pictures(folder), truth.clip.names[1:-1], truth.clip.names)


def check_frames(folder: Path, files: Mapping[str, Path], needed: Sequence[str], frames: Sequence[str]) -> None:
    """Raises UsageError, naming a file, where the masks in `folder` are not those of `frames`, or not PNGs.

    needed: the frames that must have one.
    """
    strange = [path for name, path in files.items() if name not in frames]
    for name in needed:
        if name not in files:
            found = f"{len(files) - len(strange)} of {len(frames)} masks are there"
            others = f", and {len(strange)} files that belong to no frame, {strange[0].name} first" if strange else ""
            raise UsageError(f"{folder / name}.png is missing; {found}{others}")
    if strange:
        raise UsageError(
            f"{strange[0]} belongs to no frame of {folder.name}; its frames are {frames[0]} to {frames[-1]}"
        )
    for path in files.values():
        if path.suffix.lower() != ".png":
            raise UsageError(f"{path} is not a PNG; masks are scored from PNGs, since other formats change the ids")


def _score(truth: Truth, folder: Path, toolkit: Toolkit) -> SequenceScores:
    seen: set[int] = set()
    files = pictures(folder)

    def predictions() -> Iterator[Labels]:
        for name in truth.clip.names:
            yield _prediction(truth, files.get(name), seen)

    scores = toolkit((truth.labels(name) for name in truth.clip.names), predictions(), truth.ids)
    missing = [str(id_) for id_ in truth.given if id_ not in seen]
    if missing:
        raise UsageError(
            f"{folder}: object {', '.join(missing)} of {truth.clip.name} is in none of its {len(files)} masks. If the "
            "method lost it at once, keep the first frame's given mask among the results"
        )
    return scores


def _prediction(truth: Truth, path: Path | None, seen: set[int]) -> Labels:
    """(H, W) ids of a result, in the truth's terms. Adds the objects found to `seen`."""
    if path is None:  # the first or the last frame, which no score depends on
        return np.zeros(truth.size, np.uint8)
    labels = read_labels(path)
    if labels.shape != truth.size:
        height, width = truth.size
        raise UsageError(f"{path} is {labels.shape[1]}x{labels.shape[0]} pixels and the truth {width}x{height}")
    found = ids_in(labels)
    if len(found) > SOFT:
        raise UsageError(f"{path} has {len(found)} different values, more like a grey picture than ids of objects")
    one = len(truth.ids) == 1
    if truth.merged or (one and len(found) == 1 and found[0] in (1, VOID)):
        # A lone object may be stored as 0/1 on one side and as 0/255 on the other.
        seen.update(truth.ids if found else ())
        if found not in ((), truth.ids):
            labels[labels > 0] = truth.ids[0]
        return labels
    extra = [str(id_) for id_ in found if id_ not in truth.present]
    if extra:
        known = ", ".join(map(str, truth.ids))
        raise UsageError(f"{path} has object {', '.join(extra)}; the objects of {truth.clip.name} are {known}")
    seen.update(found)
    return labels
