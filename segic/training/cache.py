"""Caches of samples with their features, filled once and shared by runs with the same data, size and backbone."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segic.backbones.base import Backbone
from segic.backbones.fovea import Fovea
from segic.errors import SegicError
from segic.training.distributed import Processes
from segic.training.features import CachedScene, build_cache, claim, write_scene
from segic.training.feeds import LiveFeed
from segic.training.groups import encode
from segic.training.recipe import Data, DataSet
from segic.training.run_folder import append_line, read_lines
from segic.training.scenes import VERSION as SCENES
from segic.training.sources import Sample, Source
from segic.training.sources.synthetic import SyntheticScenes

Progress = Callable[[int, int], None]  # samples done, samples in all
SKIPPED = "skipped.jsonl"
NUMBER = {"cached", "cache_seed"}  # of a data set: how many samples there are, which says nothing of any of them


def cache_name(
    sets: dict[str, DataSet], data: Data, seed: int, backbone: str, layers: tuple[int, ...], weights: str = ""
) -> str:
    """A folder name that differs where the cached samples would, also where only the code that draws them did.

    weights: sha256 of the backbone's, where they are not the registered ones.
    """
    drawn = {name: one.model_dump(exclude=NUMBER) for name, one in sets.items() if one.weight > 0}
    how = {"size": data.size, "entities": data.entities, "least": data.least_area, "seed": seed, "layers": list(layers)}
    if weights:
        how["weights"] = weights
    if any(one.kind == "scenes" for one in sets.values() if one.weight > 0):
        how["scenes"] = SCENES
    if any(one.layout == "folder" for one in sets.values() if one.weight > 0):
        how["upright"] = True  # older caches have the pictures as they are stored
    text = json.dumps([drawn, how, data.scenes.model_dump(), data.augmentation.model_dump()], sort_keys=True)
    return f"{backbone}-{data.size}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def fill_cache(
    folder: Path,
    sets: dict[str, DataSet],
    sources: Sequence[tuple[Source, float]],
    feed: LiveFeed,
    backbone: Backbone,
    data: Data,
    count: int,
    seed: int,
    processes: Processes,
    progress: Progress | None = None,
) -> list[Path]:
    """Makes those of `count` samples that the folder lacks, each process its share. Returns their paths, in order.

    Files that cannot be used are listed in the folder's skipped.jsonl. Safe to interrupt. Raises SegicError when the
    disk is full, UsageError for a folder of other settings.
    """
    paths = [folder / f"{index:06d}.npz" for index in range(count)]
    missing = [index for index, path in enumerate(paths) if not path.exists()]
    processes.wait()  # until all have looked, none may write
    mine = missing[processes.rank :: processes.count]
    done = 0

    def advance(_index: int) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(mine))

    listed: set[str] = set()

    def skip(file: str, reason: str) -> None:
        if file not in listed:
            listed.add(file)
            append_line(folder / SKIPPED, {"file": file, "reason": reason})

    try:
        if len(sources) == 1 and isinstance(sources[0][0], SyntheticScenes):
            scenes = sources[0][0]
            build_cache(
                folder,
                scenes.pools,
                _FromMainMemory(backbone),
                mine,
                seed=seed,
                size=data.size,
                mix=scenes.mix,
                progress=advance,
                left_out=lambda error: skip(error.file, error.reason),
            )
        else:
            drawn_from = {name: one.model_dump(exclude=NUMBER) for name, one in sets.items()}
            claim(folder, {"seed": seed, "size": data.size, "width": backbone.width, "sets": drawn_from})
            for index in mine:
                drawn = feed.draw_from(lambda attempt, index=index: np.random.default_rng([seed, index, attempt]))
                assert drawn.sample is not None
                for one in drawn.skipped:
                    skip(one.file, one.reason)
                write_scene(folder, index, extract_sample(drawn.sample, backbone))
                advance(index)
    except OSError as error:
        raise SegicError(
            f"the feature cache {folder} cannot be written after {done} of {len(mine)} samples: {error}; make room, or "
            "name another folder with --cache, and start again: what is there is kept"
        ) from error
    processes.wait()
    return paths


def left_out(paths: Sequence[Path]) -> list[str]:
    """What `fill_cache` left out of the folders of these samples, in words."""
    notes = []
    for folder in dict.fromkeys(path.parent for path in paths):
        files = {event["file"] for event in read_lines(folder / SKIPPED)}
        if files:
            notes.append(f"{len(files)} files cannot be used and are left out, listed in {folder / SKIPPED}")
    return notes


def extract_sample(sample: Sample, backbone: Backbone) -> CachedScene:
    """A sample's features. Where masks overlap, the smaller one is on top."""
    frames = torch.from_numpy(sample.frames)[None].to(_device(backbone))
    features, pixels = encode(frames, [sample.valid], backbone)
    labels = flat_labels(sample.masks)
    return CachedScene(
        features[0].to(torch.float16).cpu().numpy(),
        pixels[0].to(torch.uint8).cpu().numpy(),
        labels,
        sample.masks.shape[1],
        sample.kind,
        sample.has_recent,
    )


def flat_labels(masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(F, N, H, W) masks -> (F, H, W) labels 1..N, the smallest on top."""
    labels = np.zeros((masks.shape[0], *masks.shape[2:]), np.uint8)
    for number in np.argsort(-masks[0].sum((1, 2)), kind="stable"):
        labels[masks[:, number]] = number + 1
    return labels


def _device(backbone: Backbone) -> torch.device:
    if isinstance(backbone, torch.nn.Module):
        return next(backbone.parameters()).device
    return torch.device("cpu")


class _FromMainMemory:
    """A backbone whose pixels and features are on the CPU, wherever it computes."""

    def __init__(self, backbone: Backbone):
        self.name, self.stride, self.width = backbone.name, backbone.stride, backbone.width
        self._backbone = backbone

    @property
    def dtype(self) -> torch.dtype:
        return self._backbone.dtype

    @property
    def precision(self) -> torch.dtype:
        return self._backbone.precision

    def __call__(self, pixels: Tensor, valid: tuple[int, int] | None = None, fovea: Fovea | None = None) -> Tensor:
        return self._backbone(pixels.to(_device(self._backbone)), valid, fovea).cpu()

    def to(self, *, device: torch.device, dtype: torch.dtype) -> "_FromMainMemory":
        return _FromMainMemory(self._backbone.to(device=device, dtype=dtype))
