"""The still pictures that scenes are made of, read once: photographs, cut-outs and backgrounds."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segic.errors import UsageError
from segic.training.cutouts import Cutout, cut_instance, read_stamps, usable_instances
from segic.training.photographs import (
    BrokenPicture,
    Photograph,
    Picture,
    PictureCache,
    read_backgrounds,
    read_photographs,
)

VALIDATION_MODULUS = 10


@dataclass(frozen=True)
class Pools:
    """Materials of one split. Indices point into `photographs`; the cache is the only thing that changes.

    instances: (photograph, instance) of what may be cut out. shared: class id to the completely annotated photographs
    that show it, for classes with at least two.
    """

    photographs: tuple[Photograph, ...]
    stamps: tuple[Cutout, ...]
    backgrounds: tuple[tuple[str, bytes], ...]
    instances: tuple[tuple[int, int], ...]
    shared: dict[int, tuple[int, ...]]
    cache: PictureCache = field(default_factory=PictureCache, repr=False, compare=False)

    def picture(self, index: int) -> Picture:
        """The (H, W, 3) uint8 pixels of a photograph, read-only.

        Raises BrokenPicture when the file is missing, does not decode, or is not of its masks' size.
        """
        photograph = self.photographs[index]
        picture = self.cache.photograph(photograph.path)
        if picture.shape[:2] != (photograph.height, photograph.width):
            raise BrokenPicture(
                str(photograph.path),
                f"is {picture.shape[1]}x{picture.shape[0]} pixels, its annotations are for "
                f"{photograph.width}x{photograph.height}",
            )
        return picture

    def background(self, index: int) -> Picture:
        """The (H, W, 3) uint8 pixels of a background, read-only."""
        name, data = self.backgrounds[index]
        return self.cache.encoded(f"background:{name}", data)

    def draw_cutout(self, rng: np.random.Generator, stamps: float = 0.5) -> Cutout:
        """A random cut-out: with probability `stamps` a stamp, else an instance of a photograph."""
        if self.stamps and (not self.instances or rng.random() < stamps):
            return self.stamps[rng.integers(len(self.stamps))]
        photograph, instance = self.instances[rng.integers(len(self.instances))]
        return cut_instance(self.photographs[photograph], instance, self.picture(photograph))


def load_pools(
    images: Path,
    annotations: Path,
    *,
    stamps: Path | None = None,
    backgrounds: Path | None = None,
    validation: bool = False,
    modulus: int = VALIDATION_MODULUS,
    cache_bytes: int = 256 << 20,
) -> Pools:
    """Read the materials of the training split, or of the validation split (image ids divisible by `modulus`).

    Only the photographs are split: both splits have all stamps and backgrounds, so composites of the validation split
    show cut-outs and backgrounds that training has seen.
    Raises UsageError when a folder or file is missing or when the split is empty.
    """
    photographs = tuple(
        photograph
        for photograph in read_photographs(images, annotations)
        if (photograph.id % modulus == 0) == validation
    )
    if not photographs:
        split = "validation" if validation else "training"
        raise UsageError(f"{annotations} has no annotated picture in the {split} split; give a larger data set")
    shared: dict[int, list[int]] = {}
    for index, photograph in enumerate(photographs):
        if photograph.complete:
            for category in sorted({instance.category for instance in photograph.instances}):
                shared.setdefault(category, []).append(index)
    return Pools(
        photographs=photographs,
        stamps=read_stamps(stamps) if stamps else (),
        backgrounds=read_backgrounds(backgrounds) if backgrounds else (),
        instances=tuple((p, i) for p, photograph in enumerate(photographs) for i in usable_instances(photograph)),
        shared={category: tuple(members) for category, members in sorted(shared.items()) if len(members) > 1},
        cache=PictureCache(cache_bytes),
    )
