"""Finding the sequences of DAVIS 2016 and 2017, and of folders arranged like them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segic.errors import UsageError

from .clips import VIDEO_SUFFIXES, Clip, listing, part_of, pictures

RESOLUTIONS = ("480p", "Full-Resolution", "1080p")


@dataclass(frozen=True)
class VideoDataset:
    """The sequences to run and score.

    split: the name of the list that they come from. resolution: the folder of that name in the layout of DAVIS, None
    for video files. notes: what a reader of the scores must know.
    """

    root: Path
    split: str
    clips: tuple[Clip, ...]
    notes: tuple[str, ...] = ()
    resolution: str | None = None


def find_davis(
    root: Path,
    year: int,
    *,
    split: str | None = None,
    sequences: Sequence[str] = (),
    resolution: str | None = None,
) -> VideoDataset:
    """Sequences of a folder in the layout of DAVIS, or of a folder of video files.

    Looked for: `Annotations/RES/SEQ/*.png` and `JPEGImages/RES/SEQ/*.jpg` with RES one of 480p, Full-Resolution and
    1080p (`resolution` chooses; frames may be missing where results are only scored), with lists of sequences in
    `ImageSets`; or `CLIP.mp4` (or another video) beside a folder `CLIP_mask` with a mask for every frame.

    split: a list file, or its name in ImageSets; without it `val` of the year, or all sequences where there is no
    ImageSets. sequences: only these. Raises UsageError that says what was looked for and what was found.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder; expected a dataset in the layout of DAVIS")
    notes: tuple[str, ...] = ()
    size: str | None = None
    if (root / "Annotations").is_dir():
        label, names, notes = _choose(root, year, split)
        annotations = _resolution(root / "Annotations", resolution)
        found = {p.name: p for p in sorted(annotations.iterdir()) if p.is_dir()}
        if not found:
            raise UsageError(f"{annotations} holds no folders of masks; found {listing(annotations)}")
        frames = root / "JPEGImages" / annotations.name
        wanted = _subset(names if names is not None else list(found), sequences, label)
        for name in wanted:
            if name not in found:
                raise UsageError(f"sequence {name!r} of {label} has no folder {annotations / name}")
        clips, size = tuple(_clip(found[name], frames / name) for name in wanted), annotations.name
        notes += part_of(len(clips), len(found if names is None else names), f"sequences of {label}")
    else:
        label, beside = "all", _videos(root)
        if split is not None:
            raise UsageError(f"{root} has no ImageSets, so there is no split {split!r}; name clips with --sequences")
        if resolution is not None:
            raise UsageError(f"{root} has no Annotations, so there is no resolution {resolution!r}; leave it out")
        if not beside:
            raise UsageError(
                f"{root} is not in a layout known for DAVIS: looked for Annotations/480p/SEQUENCE/*.png, or for video "
                f"files with a folder CLIP_mask beside each; found {listing(root)}"
            )
        clips = tuple(beside[name] for name in _subset(list(beside), sequences, label))
        notes += part_of(len(clips), len(beside), "clips")
    return VideoDataset(root, label, clips, notes, size)


def _resolution(annotations: Path, wanted: str | None) -> Path:
    candidates = (wanted,) if wanted else RESOLUTIONS
    for name in candidates:
        if (annotations / name).is_dir():
            return annotations / name
    raise UsageError(f"{annotations} has none of {', '.join(candidates)}; found {listing(annotations)}")


def _choose(root: Path, year: int, split: str | None) -> tuple[str, list[str] | None, tuple[str, ...]]:
    """(label, sequences or None for all, notes) of the split asked for."""
    lists = root / "ImageSets"
    if split is not None:
        tries = [Path(split)]
        for folder in (lists / str(year), lists / "480p", lists) if lists.is_dir() else ():
            tries += [folder / split, folder / f"{split}.txt"]
        for path in tries:
            if path.is_file():
                own = lists.resolve() not in path.resolve().parents
                return path.stem, _read_list(path), (f"the split is a list of one's own, {path}",) if own else ()
        places = f"a file of that name, and in {lists} for {Path(split).stem}.txt"
        raise UsageError(f"split {split!r} was not found; looked for {places}; found {_lists(root)}")
    if not lists.is_dir():
        return "all", None, ()
    # DAVIS 2016's own archive keeps its lists by resolution, the one of 2017 by year.
    for name in (str(year), "480p") if year == 2016 else (str(year),):
        path = lists / name / "val.txt"
        if path.is_file():
            return "val", _read_list(path), ()
    files = sorted(lists.rglob("*.txt"))
    if len(files) == 1:
        return files[0].stem, _read_list(files[0]), (f"the split is the only one there is, {files[0].name}",)
    raise UsageError(f"{lists / str(year) / 'val.txt'} does not exist; found {_lists(root)}: choose one with --split")


def _lists(root: Path) -> str:
    """The lists of sequences that there are, for messages."""
    return ", ".join(str(p.relative_to(root)) for p in sorted((root / "ImageSets").rglob("*.txt"))) or "no list"


def _read_list(path: Path) -> list[str]:
    """Sequence names of a list: one a line, or (DAVIS 2016) lines of a frame's and a mask's path."""
    names: dict[str, None] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a list of sequences: {error}") from error
    for line in lines:
        if line.strip():
            first = line.split()[0]
            names[Path(first).parent.name if "/" in first else first] = None
    if not names:
        raise UsageError(f"{path} lists no sequences")
    return list(names)


def _subset(names: list[str], sequences: Sequence[str], label: str) -> list[str]:
    unknown = [name for name in sequences if name not in names]
    if unknown:
        raise UsageError(f"no sequence {', '.join(unknown)} in split {label!r}; it has {', '.join(names)}")
    return [name for name in names if not sequences or name in sequences]


def _clip(masks: Path, frames: Path) -> Clip:
    truth = pictures(masks)
    if not truth:
        raise UsageError(f"{masks} holds no masks; found {listing(masks)}")
    if not frames.is_dir():
        return Clip(masks.name, tuple(truth), None, truth)
    images = pictures(frames)
    for stem in images:
        if stem not in truth:
            raise UsageError(f"{frames} has a frame {stem} and {masks} has no mask of that name")
    for stem in truth:
        if stem not in images:
            raise UsageError(f"{masks} has a mask {stem} and {frames} has no frame of that name")
    return Clip(masks.name, tuple(images), tuple(images.values()), truth)


def _videos(root: Path) -> dict[str, Clip]:
    clips = {}
    for video in sorted(p for p in root.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES):
        folder = root / f"{video.stem}_mask"
        if not folder.is_dir():
            raise UsageError(f"{video} has no folder of masks beside it; looked for {folder}")
        masks = pictures(folder)
        if not masks:
            raise UsageError(f"{folder} holds no masks; found {listing(folder)}")
        clips[video.stem] = Clip(video.stem, tuple(masks), video, masks)
    return clips
