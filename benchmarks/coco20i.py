"""COCO-20i: four folds of twenty classes each, 1,000 episodes a fold."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from segic.errors import UsageError

from .clips import listing
from .coco_format import CocoImages, read_coco
from .one_shot import Episode, OneShotBenchmark, drawn_episodes
from .result import described

FOLDS = 4
EPISODES = 1000
ANNOTATIONS = (
    "annotations/instances_val2014.json",
    "instances.json",
    "annotations/instances_val2017.json",
)


def coco20i(
    root: Path,
    *,
    folds: Sequence[int] = range(FOLDS),
    shots: int = 1,
    episodes: int = EPISODES,
    seed: int = 0,
    lists: Path | None = None,
    annotations: Path | None = None,
) -> OneShotBenchmark:
    """Episodes of the folds asked for; class i (0 to 79, by id) belongs to fold i % 4.

    lists: folder with the published `val_fold0.json.gz` to `val_fold3.json.gz` (class index to image files); without it
    every image that shows a class is in its pool. A decoder that was trained with a fold's classes held out is scored
    with that fold alone.
    """
    images = read_coco(root, ANNOTATIONS, annotations)
    found: list[Episode] = []
    notes = list(images.notes)
    for fold in folds:
        if fold not in range(FOLDS):
            raise UsageError(f"fold {fold} does not exist; COCO-20i has folds 0 to {FOLDS - 1}")
        if lists is not None:
            pools = _listed(images, lists, fold)
        else:
            everything = images.pools()
            pools = {name: everything[name] for i, name in enumerate(images.categories) if i % FOLDS == fold}
        more, said = drawn_episodes(pools, episodes, shots=shots, seed=seed, fold=str(fold))
        found += more
        notes += said
    split = f"{images.file.name}, folds {','.join(map(str, folds))}"
    return OneShotBenchmark("coco20i", images, tuple(found), split, tuple(notes))


def _listed(images: CocoImages, lists: Path, fold: int) -> dict[str, list[str]]:
    """The fold's pools as its published list has them."""
    plain, packed = lists / f"val_fold{fold}.json", lists / f"val_fold{fold}.json.gz"
    path = packed if packed.is_file() else plain
    if not path.is_file():
        found = listing(lists) if lists.is_dir() else "no such folder"
        raise UsageError(f"{packed} does not exist, and no {plain.name}; found {found}")
    try:
        table = json.loads(gzip.decompress(path.read_bytes()) if path == packed else path.read_bytes())
        wanted = {images.categories[int(i)]: [Path(file).name for file in files] for i, files in table.items()}
    except (OSError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise UsageError(f"{path} is not a list of COCO-20i (class index to image files): {described(error)}") from None
    for name, files in wanted.items():
        missing = [file for file in files if file not in images.entries]
        if missing:
            raise UsageError(
                f"{path}: {len(missing)} of {len(files)} images of {name} are not in {images.file}: {missing[0]}"
            )
    return wanted
