"""From a recipe's data sets to sources, all of them checked before the first step."""

from collections.abc import Callable, Mapping
from pathlib import Path

from segic.errors import UsageError
from segic.training.composites import Composition
from segic.training.photographs import Photograph
from segic.training.pools import Pools, load_pools
from segic.training.recipe import Data, DataSet, Scenes
from segic.training.scenes import SceneMix
from segic.training.sources.catalogue import Catalogue
from segic.training.sources.coco import read_coco
from segic.training.sources.labelled import read_ade20k, read_folder, read_fss1000
from segic.training.sources.pairs import InstanceViews, SemanticPairs
from segic.training.sources.sample import Source
from segic.training.sources.synthetic import SyntheticScenes

_READERS: Mapping[str, Callable[[DataSet, Path], Catalogue]] = {
    "coco": read_coco,
    "lvis": read_coco,
    "ade20k": read_ade20k,
    "fss1000": read_fss1000,
    "folder": read_folder,
}


def open_sources(sets: Mapping[str, DataSet], data: Data, root: Path) -> list[tuple[Source, float]]:
    """The data sets of a weight above 0, with their weights. What is missing in any of them is named in one error.

    data: size, number of entities and augmentation. Raises UsageError.
    """
    opened: list[tuple[Source, float]] = []
    problems = []
    for name, one in sets.items():
        if one.weight <= 0:
            continue
        try:
            opened.append((_open(name, one, data, root), one.weight))
        except UsageError as error:
            problems.append(f"data set {name}: {error}")
    if problems:
        raise UsageError("\n".join(problems))
    return opened


def _open(name: str, one: DataSet, data: Data, root: Path) -> Source:
    if one.kind == "scenes":
        return SyntheticScenes(name, _pools(one, root), data.size, _mix(one.scenes or data.scenes), data.entities)
    catalogue = _READERS[one.layout](one, root)
    if one.kind == "semantic":
        return SemanticPairs(name, catalogue, data.size, data.augmentation, data.least_area)
    return InstanceViews(name, catalogue, data.size, data.augmentation, data.least_area, data.entities)


def _mix(scenes: Scenes) -> SceneMix:
    values = scenes.model_dump()
    return SceneMix(**values | {"composition": Composition(**values["composition"])})


def _pools(one: DataSet, root: Path) -> Pools:
    """Scenes keep their own split: `load_pools` divides by the images' ids."""
    if one.part == "all":
        raise UsageError('scenes need part = "train" or "held-out"')
    base = root / one.path
    pools = load_pools(
        base / (one.images or "images"),
        base / (one.annotations or "instances.json"),
        stamps=root / one.stamps if one.stamps else None,
        backgrounds=root / one.backgrounds if one.backgrounds else None,
        validation=one.part == "held-out",
        modulus=one.holdout,
    )
    missing = [photograph for photograph in pools.photographs if not photograph.path.is_file()]
    if missing:
        raise UsageError(_missing(missing, len(pools.photographs)))
    return pools


def _missing(missing: list[Photograph], total: int) -> str:
    return (
        f"{len(missing)} of {total} pictures are not there, {missing[0].path} for one; put them back or mend the list"
    )
