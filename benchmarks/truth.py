"""What a sequence's own masks say: which objects count, what is void, which masks a model is given."""

from dataclasses import dataclass

import numpy as np

from segic.errors import UsageError
from segic_vos.frames import Annotation

from .clips import Clip
from .masks import Labels, ids_in, read_labels, read_palette

VOID = 255


@dataclass(frozen=True)
class Truth:
    """The objects of one sequence.

    ids:     the objects that are scored, ascending. For a merged sequence, one id.
    present: every value above 0 of any of its masks, void included.
    merged:  True where all objects count as one foreground (DAVIS 2016).
    void:    255 where that means "undecided", else None.
    size:    (height, width) of all its masks.
    notes:   what a reader of the scores must know.
    """

    clip: Clip
    ids: tuple[int, ...]
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

    The first frame decides: objects with a larger id than any of its own do not count, which a note says. A sequence
    whose only value above 0 is 255 has one object, 255; beside other values 255 is void.

    Raises UsageError, naming the file, for masks of different sizes and for a first mask without an object.
    """
    present: dict[int, str] = {}
    first: tuple[int, ...] = ()
    size = (0, 0)
    for index, name in enumerate(clip.names):
        labels = read_labels(clip.masks[name])
        if index == 0:
            first, size = ids_in(labels), (labels.shape[0], labels.shape[1])
        elif labels.shape != size:
            raise UsageError(f"{clip.masks[name]} is {_size(labels.shape)} pixels and the first mask {_size(size)}")
        for id_ in ids_in(labels):
            present.setdefault(id_, name)
    void = VOID if VOID in present and len(present) > 1 else None
    objects = [id_ for id_ in present if id_ != void]
    started = [id_ for id_ in first if id_ != void]
    if not started:
        raise UsageError(f"{clip.masks[clip.names[0]]} is empty; the first mask must show the objects to follow")
    if merge:
        return Truth(clip, (VOID if objects == [VOID] else 1,), frozenset(present), True, void, size)
    late = sorted(id_ for id_ in objects if id_ > max(started))
    notes = tuple(
        f"{clip.name}: object {id_} first appears in frame {present[id_]} and does not count, as in the toolkit"
        for id_ in late
    )
    ids = tuple(sorted(id_ for id_ in objects if id_ <= max(started)))
    return Truth(clip, ids, frozenset(present), False, void, size, notes)


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape[::-1])
