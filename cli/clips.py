"""Which masks and which output folder belong to each of several videos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segic.errors import UsageError


@dataclass(frozen=True)
class ClipPaths:
    """One job's paths. `masks` stays text: it may be a glob pattern."""

    video: Path
    masks: str
    out: Path

    @property
    def title(self) -> str:
        """The video's name for people."""
        return clip_stem(self.video)


def clip_paths(
    videos: Sequence[Path], masks: Sequence[str], out: Path | None, mask_form: str = "auto"
) -> list[ClipPaths]:
    """Match videos, masks and output folders.

    One video has one `masks`. Several have as many, in the same order, or one folder that holds for each video a mask
    file or folder of its name. mask_form: as in `read_annotations`. Outputs go to STEM_segic; with `out` to that folder
    (one video) or OUT/STEM (several).

    Raises: UsageError that says what does not match.
    """
    missing = [video for video in videos if not video.exists()]
    if missing:
        from segic_vos.sources.video import refuse_address

        refuse_address(missing[0])
        raise UsageError(f"{missing[0]}: no such file or folder")
    if "" in masks:
        raise UsageError("--masks is empty; expected a mask file, a folder or a pattern")
    stems = [clip_stem(video) for video in videos]
    twice = [stem for stem, count in Counter(stems).items() if count > 1]
    if twice:
        raise UsageError(f"{len(videos)} videos, two of them called {twice[0]!r}: their outputs would be mixed up")
    chosen = _masks(videos, stems, masks, mask_form)
    if out is None:
        outs = [Path(f"{stem}_segic") for stem in stems]
    else:
        outs = [out] if len(videos) == 1 else [out / stem for stem in stems]
    return [ClipPaths(*each) for each in zip(videos, chosen, outs, strict=True)]


def clip_stem(video: Path) -> str:
    """What a video's outputs are named after: a file's stem, a folder's name, or a link's own."""
    if not video.is_dir():
        return video.stem
    return video.resolve().name if video.name in ("", "..") else video.name


def _masks(videos: Sequence[Path], stems: Sequence[str], masks: Sequence[str], mask_form: str) -> list[str]:
    if len(masks) == len(videos):
        if len(videos) == 1 and mask_form == "auto":
            _refuse_several_videos_masks(Path(masks[0]), stems[0])
        return list(masks)
    if len(masks) > 1 or not Path(masks[0]).is_dir():
        beside = [video for video in videos if video.parent == Path(masks[0]).parent and video.suffix == ".png"]
        if beside:
            raise UsageError(
                f"{beside[0].name} lies beside {masks[0]} and would be a video: a pattern for --masks needs quotes, "
                f"--masks '{Path(masks[0]).parent / '*.png'}', or the shell takes it apart"
            )
        raise UsageError(
            f"{len(videos)} videos and {len(masks)} --masks: expected one for each video in the same order, "
            "or one folder with masks named like the videos"
        )
    folder = Path(masks[0])
    return [str(_named(folder, stem)) for stem in stems]


def _refuse_several_videos_masks(folder: Path, stem: str) -> None:
    """Raises UsageError for a folder in which one mask is called as the only video, beside others: these may be other
    videos' as well as other objects'. Numbers are frames.
    """
    from segic_vos.sources.naming import list_pictures

    own = folder / f"{stem}.png"
    if stem.isdecimal() or not own.is_file() or len(list_pictures(folder)) == 1:
        return
    raise UsageError(
        f"{folder}: {own.name} is called as the video is, and the masks beside it may be other videos' or other "
        f"objects'. Give --masks {own} if it is the only one meant; if all are, say --mask-form objects or frames"
    )


def _named(folder: Path, stem: str) -> Path:
    for candidate in (folder / f"{stem}.png", folder / stem):
        if candidate.exists():
            return candidate
    raise UsageError(f"{folder} has neither {stem}.png nor a folder {stem}: no masks for that video")
