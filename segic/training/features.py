"""Frozen features of training scenes, computed once and kept on disk: what makes training on a CPU possible."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from segic.backbones.base import Backbone
from segic.errors import SegicError, UsageError
from segic.files import whole
from segic.training.photographs import BrokenPicture
from segic.training.pools import Pools
from segic.training.scenes import DEFAULT_MIX, VERSION, Scene, SceneMix, make_scene

FRAMES = 3  # A the example, B a recent frame, C the target
ATTEMPTS = 30  # scenes drawn in place of ones with a broken picture


@dataclass(frozen=True)
class CachedScene:
    """One scene as the decoder sees it.

    features: (3, C, h, w) float16. pixels: (3, 3, 8h, 8w) uint8, the pictures for the detail branch.
    labels: (3, S, S) uint8. count, kind, has_recent: as `Scene`.
    """

    features: NDArray[np.float16]
    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    count: int
    kind: str
    has_recent: bool


def scene_seed(seed: int, index: int, attempt: int = 0) -> np.random.Generator:
    """Scene `index` of a cache is the same whichever process makes it and wherever the work was interrupted."""
    return np.random.default_rng([seed, index, attempt])


@torch.no_grad()
def extract(scene: Scene, backbone: Backbone) -> CachedScene:
    """The backbone on a scene's frames."""
    pictures = torch.from_numpy(scene.frames).permute(0, 3, 1, 2)
    features = backbone(pictures)
    size = (8 * features.shape[-2], 8 * features.shape[-1])
    small = F.interpolate(pictures.float(), size, mode="area").round().to(torch.uint8)
    return CachedScene(
        features.to(torch.float16).numpy(), small.numpy(), scene.labels, scene.count, scene.kind, scene.has_recent
    )


def write_scene(folder: Path, index: int, scene: CachedScene) -> None:
    """One uncompressed file a scene, complete or absent."""
    path = folder / f"{index:06d}.npz"
    meta = json.dumps({"count": scene.count, "kind": scene.kind, "has_recent": scene.has_recent})
    with whole(path) as part, part.open("wb") as file:
        np.savez(file, features=scene.features, pixels=scene.pixels, labels=scene.labels, meta=np.array(meta))


def read_scene(path: Path) -> CachedScene:
    """The inverse of `write_scene`."""
    with np.load(path) as data:
        meta = json.loads(str(data["meta"]))
        return CachedScene(data["features"], data["pixels"], data["labels"], **meta)


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Makes the folder and notes in it what its samples are made with. UsageError for a folder of other settings.

    Several processes may do so at once: the note is complete or absent at every moment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    identity = json.dumps(settings, sort_keys=True)
    stamp = folder / "cache.json"
    if not stamp.exists():
        with whole(stamp) as part:
            part.write_text(identity)
    elif stamp.read_text() != identity:
        raise UsageError(f"{folder} holds features of other settings ({stamp}); name another folder or remove it")


def build_cache(
    folder: Path,
    pools: Pools,
    backbone: Backbone,
    indices: Sequence[int],
    *,
    seed: int,
    size: int,
    mix: SceneMix = DEFAULT_MIX,
    progress: Callable[[int], None] | None = None,
    left_out: Callable[[BrokenPicture], None] | None = None,
) -> None:
    """Makes the scenes `indices` that `folder` lacks. Safe to interrupt and to run in several processes at once.

    A folder belongs to one seed, size, mix, backbone and version of the scenes' code, written beside the scenes;
    another is refused. left_out: told of the pictures that cannot be used; other scenes are drawn in place of theirs.
    """
    claim(folder, {"seed": seed, "size": size, "width": backbone.width, "mix": asdict(mix), "scenes": VERSION})

    def draw(index: int) -> Scene:
        for attempt in range(ATTEMPTS):
            try:
                return make_scene(scene_seed(seed, index, attempt), pools, size, mix)
            except BrokenPicture as error:
                broken = error
                if left_out is not None:
                    left_out(error)
        raise SegicError(f"{ATTEMPTS} draws gave no scene without a broken picture: {broken}")

    for index in indices:
        if not (folder / f"{index:06d}.npz").exists():
            write_scene(folder, index, extract(draw(index), backbone))
        if progress is not None:
            progress(index)
