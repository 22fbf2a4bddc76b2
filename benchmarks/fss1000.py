"""FSS-1000: 240 test classes of ten images each; every image is a target once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segic.errors import UsageError
from segic_vos.sources.naming import natural_key

from .clips import listing
from .masks import read_image
from .one_shot import OneShotBenchmark, episodes_of_every_image

LISTS = ("test.txt", "splits/test.txt", "fss_test_set.txt")


@dataclass(frozen=True)
class FssImages:
    """Image names are "CLASS/1"; beside CLASS/1.jpg lies CLASS/1.png, white where the object is."""

    root: Path

    def image(self, name: str) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        return read_image(self.root / f"{name}.jpg")

    def mask(self, name: str, category: str) -> NDArray[np.bool_]:
        """(H, W): the mask's grey level is 128 or more."""
        mask: NDArray[np.bool_] = read_image(self.root / f"{name}.png").mean(axis=2) >= 128
        return mask


def fss1000(root: Path, *, split: Path | None = None, shots: int = 1, seed: int = 0) -> OneShotBenchmark:
    """All images of the classes in `split`, a list of names, one a line (by default test.txt in `root`)."""
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder; expected FSS-1000, a folder for each class")
    base = root / "fewshot_data" if (root / "fewshot_data").is_dir() else root
    file = split or next((root / name for name in LISTS if (root / name).is_file()), None)
    if file is None:
        raise UsageError(f"{root} has no list of test classes: looked for {', '.join(LISTS)}; give one with --split")
    try:
        names = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read as a list of classes: {error}") from None
    if not names:
        raise UsageError(f"{file} lists no classes")
    pools = {name: _class_images(base, name) for name in names}
    episodes = episodes_of_every_image(pools, shots=shots, seed=seed)
    return OneShotBenchmark("fss1000", FssImages(base), tuple(episodes), file.stem, _notes(pools))


def _class_images(base: Path, name: str) -> list[str]:
    folder = base / name
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder for the class {name}; found {listing(base)}")
    stems = sorted((p.stem for p in folder.glob("*.jpg")), key=natural_key)
    if not stems:
        raise UsageError(f"{folder} holds no images (1.jpg, 1.png, ...); found {listing(folder)}")
    for stem in stems:
        if not (folder / f"{stem}.png").is_file():
            raise UsageError(f"{folder / stem}.png is missing; {stem}.jpg needs its mask")
    return [f"{name}/{stem}" for stem in stems]


def _notes(pools: Mapping[str, list[str]]) -> tuple[str, ...]:
    return () if len(pools) == 240 else (f"{len(pools)} classes; the published test set has 240",)
