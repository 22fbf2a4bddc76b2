"""What a sequence's own masks say: which objects count, what is void, which masks a model is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segic.errors import UsageError
from segic_vos.frames import Annotation

from .clips import Clip
from .masks import Labels, ids_in, read_labels, read_palette

VOID = 255
SOFT = 64  # so many different values are a grey picture of probabilities, not ids
GREY = 8  # so many are one where the greater part of what is above 0 is 255, which void pixels never are


@dataclass(frozen=True)
class Truth:
    """The objects of one sequence.

    ids:     the objects that are scored, ascending. For a merged sequence, one id.
    given:   those of them that the first frame shows, which a method is given.
    present: every value above 0 of any of its masks, void included.
    merged:  True where all objects count as one foreground (DAVIS 2016).
    void:    255 where that means "undecided", else None.
    size:    (height, width) of all its masks.
    notes:   what a reader of the scores must know.
    """

    clip: Clip
    ids: tuple[int, ...]
    given: tuple[int, ...]
    present: frozenset[int]
    merged: bool
    void: int | None
    size: tuple[int, int]
    notes: tuple[str, ...] = ()

    def labels(self, name: str) -> Labels:
        """(H, W) ids of one annotated frame, merged where that is asked for; void pixels are 255."""
        labels = read_labels(self.clip.masks[name])
        if self.merged and self.present != {self.ids[0]}:
            foreground = labels > 0
            if self.void is not None:
                foreground &= labels != self.void
            labels[foreground] = self.ids[0]
        return labels

    def first_annotation(self) -> dict[str, Annotation]:
        """The first frame's mask by its name: all that a method is given."""
        name = self.clip.names[0]
        labels = self.labels(name)
        ids = tuple(id_ for id_ in ids_in(labels) if id_ != self.void)
        return {name: Annotation(labels.astype(np.int32), ids, self.void, read_palette(self.clip.masks[name]))}


def survey(clip: Clip, *, merge: bool) -> Truth:
    """Read all masks of a sequence and settle what counts, as the official toolkit does.

    The first frame decides: objects with a larger id than any of its own do not count, and those that it lacks with a
    smaller one count although no method is given them; notes say so. A sequence whose only value above 0 is 255 has one
    object, 255; beside other values 255 is void.

    Raises UsageError, naming the file, for masks of different sizes, for a first mask without an object, for grey
    pictures in the place of ids, and for a sequence too short to be scored.
    """
    if len(clip.names) < 3:
        raise UsageError(
            f"sequence {clip.name} has {len(clip.names)} frames; the first and the last are not scored, so that at "
            "least 3 are needed. Leave it out, with --sequences or a list of sequences"
        )
    present: dict[int, str] = {}
    first: tuple[int, ...] = ()
    size = (0, 0)
    for index, name in enumerate(clip.names):
        labels = read_labels(clip.masks[name])
        ids_here = ids_in(labels)
        if index == 0:
            first, size = ids_here, (labels.shape[0], labels.shape[1])
        elif labels.shape != size:
            raise UsageError(f"{clip.masks[name]} is {_size(labels.shape)} pixels and the first mask {_size(size)}")
        _check_ids(clip.masks[name], labels, ids_here)
        for id_ in ids_here:
            present.setdefault(id_, name)
    void = VOID if VOID in present and len(present) > 1 else None
    objects = [id_ for id_ in present if id_ != void]
    started = [id_ for id_ in first if id_ != void]
    if first == (VOID,) and void is not None:
        other = next(id_ for id_ in present if id_ != VOID)
        raise UsageError(
            f"{clip.masks[present[other]]} has {other} beside 255, which the first mask has alone: soft edges? Make "
            "the masks hard, 0 and 255 or ids, since beside ids 255 means undecided"
        )
    if not started:
        raise UsageError(f"{clip.masks[clip.names[0]]} is empty; the first mask must show the objects to follow")
    if merge:
        one = (VOID if objects == [VOID] else 1,)
        return Truth(clip, one, one, frozenset(present), True, void, size)
    late = sorted(id_ for id_ in objects if id_ > max(started))
    notes = tuple(
        f"{clip.name}: object {id_} first appears in frame {present[id_]} and does not count, as in the toolkit"
        for id_ in late
    )
    ids = tuple(sorted(id_ for id_ in objects if id_ <= max(started)))
    notes += tuple(
        f"{clip.name}: object {id_} first appears in frame {present[id_]} and counts, as in the toolkit, although no "
        "method is given it"
        for id_ in ids
        if id_ not in started
    )
    return Truth(clip, ids, tuple(sorted(started)), frozenset(present), False, void, size, notes)


def _check_ids(path: Path, labels: Labels, ids: Sequence[int]) -> None:
    """Raises UsageError for a grey picture: 255 beside other values would be void, and the object would be lost."""
    if len(ids) <= GREY:
        return
    sure, above = np.count_nonzero(labels == VOID), np.count_nonzero(labels)
    if len(ids) > SOFT or 2 * sure > above:
        raise UsageError(
            f"{path} has {len(ids)} different values above 0, as a mask with soft edges has, where ids of objects are "
            "expected; make it hard: 0 and 255, or ids"
        )


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape[::-1])
