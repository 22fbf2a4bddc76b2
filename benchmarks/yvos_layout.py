"""Finding the videos of YouTube-VOS, the objects in them, and the frame where each one enters."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from segic.errors import UsageError
from segic_vos.frames import Annotation

from .clips import Clip, listing, part_of, pictures
from .masks import Labels, ids_in, read_labels, read_palette
from .result import described


@dataclass(frozen=True)
class YvosVideo:
    """One video. clip.masks: the annotated frames, of which there may be few. output: the frames to save masks of.

    categories: the objects' classes by id, where meta.json names them.
    """

    clip: Clip
    output: frozenset[str]
    categories: Mapping[int, str]

    @cached_property
    def shown(self) -> dict[str, tuple[int, ...]]:
        """Each annotated frame and the objects that its mask shows."""
        return {name: ids_in(self.labels(name)) for name in self.annotated}

    def entries(self) -> dict[int, str]:
        """Each object and the first frame whose mask shows it: where it is given to the method."""
        found: dict[int, str] = {}
        for name, ids in self.shown.items():
            for id_ in ids:
                found.setdefault(id_, name)
        if not found:
            raise UsageError(
                f"the masks of video {self.clip.name} show no object; looked in {len(self.annotated)} files"
            )
        return found

    def given(self) -> dict[str, Annotation]:
        """The masks a method may see: in each frame only the objects that enter there (others' pixels are 0)."""
        annotations = {}
        entries = self.entries()
        for name in dict.fromkeys(entries.values()):
            ids = tuple(sorted(id_ for id_, frame in entries.items() if frame == name))
            labels = self.labels(name).astype(np.int32)
            labels[~np.isin(labels, ids)] = 0
            annotations[name] = Annotation(labels, ids, None, read_palette(self.clip.masks[name]))
        return annotations

    def shows_all(self) -> bool:
        """Whether a mask shows more than the objects that enter with it. If none does, as in the published validation
        set, what a mask lacks is not labelled rather than absent."""
        entries = self.entries()
        return any(entries[id_] != name for name, ids in self.shown.items() for id_ in ids)

    def labels(self, name: str) -> Labels:
        """(H, W) ids of an annotated frame."""
        return read_labels(self.clip.masks[name])

    @property
    def annotated(self) -> tuple[str, ...]:
        """Frames with a mask, in order."""
        return tuple(name for name in self.clip.names if name in self.clip.masks)


@dataclass(frozen=True)
class YvosDataset:
    """videos of one split. seen: the classes of the training set, None where that is not known. notes: what a reader of
    the scores must know."""

    root: Path
    split: str
    videos: tuple[YvosVideo, ...]
    seen: frozenset[str] | None
    notes: tuple[str, ...] = ()


def find_yvos(
    root: Path,
    *,
    split: str = "valid",
    sequences: Sequence[str] = (),
    all_frames: bool = False,
    seen: Path | None = None,
) -> YvosDataset:
    """Videos of `ROOT/SPLIT` (or of ROOT itself): `JPEGImages/VIDEO/*.jpg`, `Annotations/VIDEO/*.png`, `meta.json`.

    sequences: only these videos. all_frames: follow the objects through `SPLIT_all_frames`, at the full frame rate;
    masks are saved for the split's own frames all the same. seen: a list of the classes that count as seen, one a
    line; without it they are those of `train/meta.json`.

    Raises UsageError that says what was looked for and what was found.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder; expected a dataset in the layout of YouTube-VOS")
    base = root / split if (root / split).is_dir() else root
    images, masks = base / "JPEGImages", base / "Annotations"
    for folder in (images, masks):
        if not folder.is_dir():
            raise UsageError(
                f"{base} is not in the layout of YouTube-VOS, and has no folder {split!r} that is: looked for "
                f"{folder.name}/VIDEO/; found {listing(base)}"
            )
    meta = _read_meta(base / "meta.json")
    names = sorted(p.name for p in masks.iterdir() if p.is_dir())
    if meta is not None and (absent := sorted(set(meta) - set(names))):
        raise UsageError(f"{base / 'meta.json'} names video {absent[0]}, which {masks} lacks")
    if unknown := [name for name in sequences if name not in names]:
        raise UsageError(f"{masks} has no video {', '.join(unknown)}; it has {len(names)} videos")
    full = base.parent / f"{base.name}_all_frames" / "JPEGImages"
    if all_frames and not full.is_dir():
        raise UsageError(f"{full} does not exist; it holds the frames at the full rate")
    wanted = [name for name in names if not sequences or name in sequences]
    if not wanted:
        raise UsageError(f"{masks} holds no folders of masks; found {listing(masks)}")
    videos = tuple(_video(name, images, masks, full if all_frames else images, meta) for name in wanted)
    notes = part_of(len(videos), len(names), f"videos of {base.name}")
    return YvosDataset(root, base.name, videos, _seen(base, seen), notes)


def _video(name: str, images: Path, masks: Path, frames: Path, meta: Mapping[str, Any] | None) -> YvosVideo:
    if not (images / name).is_dir():
        raise UsageError(f"{images / name} does not exist and {masks / name} does; each video needs its frames")
    if not (frames / name).is_dir():
        raise UsageError(f"{frames / name} does not exist; each video needs its frames at the full rate")
    output, followed, truth = pictures(images / name), pictures(frames / name), pictures(masks / name)
    for stem in [*output, *truth]:
        if stem not in followed:
            raise UsageError(f"{frames / name} has no frame {stem}; {(masks if stem in truth else images) / name} has")
    if not truth:
        raise UsageError(f"{masks / name} holds no masks; found {listing(masks / name)}")
    objects = meta[name]["objects"] if meta is not None and name in meta else {}
    categories = {int(id_): str(entry["category"]) for id_, entry in objects.items() if "category" in entry}
    return YvosVideo(Clip(name, tuple(followed), tuple(followed.values()), truth), frozenset(output), categories)


def _read_meta(path: Path) -> dict[str, Any] | None:
    """`{"VIDEO": {"objects": {"ID": {"category": ..., "frames": [...]}}}}`, None where there is no such file."""
    if not path.is_file():
        return None
    try:
        videos = json.loads(path.read_text())["videos"]
        for video in videos.values():
            video["objects"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not a meta.json of YouTube-VOS: {described(error)}") from None
    return dict(videos)


def _seen(base: Path, seen: Path | None) -> frozenset[str] | None:
    if seen is not None:
        try:
            return frozenset(line.strip() for line in seen.read_text().splitlines() if line.strip())
        except (OSError, ValueError) as error:
            raise UsageError(f"{seen} cannot be read as a list of classes: {error}") from None
    meta = _read_meta(base.parent / "train" / "meta.json")
    if meta is None:
        return None
    return frozenset(str(o["category"]) for v in meta.values() for o in v["objects"].values() if "category" in o)
