"""LVIS-92i (from the Matcher paper): the classes of LVIS val with two images or more, in ten folds."""

from collections.abc import Sequence
from pathlib import Path

from segic.errors import UsageError

from .coco_format import read_coco
from .one_shot import Episode, OneShotBenchmark, drawn_episodes

FOLDS = 10
CLASSES = 920
EPISODES = 2300
ANNOTATIONS = ("lvis_v1_val.json", "annotations/lvis_v1_val.json", "lvis/lvis_v1_val.json")


def lvis92i(
    root: Path,
    *,
    folds: Sequence[int] = range(FOLDS),
    shots: int = 1,
    episodes: int = EPISODES,
    seed: int = 0,
    annotations: Path | None = None,
) -> OneShotBenchmark:
    """Episodes of the folds asked for: of the classes kept (920), every tenth, starting at the fold's number."""
    images = read_coco(root, ANNOTATIONS, annotations)
    kept = {name: pool for name, pool in images.pools().items() if len(pool) >= 2}
    notes = list(images.notes)
    if len(kept) != CLASSES:
        notes.append(f"{len(kept)} classes have two images or more; the published benchmark keeps {CLASSES}")
    names = list(kept)
    found: list[Episode] = []
    for fold in folds:
        if fold not in range(FOLDS):
            raise UsageError(f"fold {fold} does not exist; LVIS-92i has folds 0 to {FOLDS - 1}")
        pools = {name: kept[name] for name in names[fold::FOLDS]}
        more, said = drawn_episodes(pools, episodes, shots=shots, seed=seed, fold=str(fold))
        found += more
        notes += said
    split = f"{images.file.name}, folds {','.join(map(str, folds))}"
    return OneShotBenchmark("lvis92i", images, tuple(found), split, tuple(notes))
