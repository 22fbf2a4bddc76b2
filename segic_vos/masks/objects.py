"""One binary mask file per object, put together."""

from pathlib import Path

import numpy as np

from segic.errors import UsageError
from segic_vos.frames import Annotation
from segic_vos.sources.naming import trailing_number

from .reading import MAX_ID, MaskFile, list_ids, read_binary_mask


def read_objects(files: list[Path], *, refuse_overlap: bool = False) -> MaskFile:
    """The annotation in which each of `files` (in natural order) is the mask of one object.

    The id is the number at the end of the file's stem; files without one take the smallest free ids, in order. Where
    masks overlap the later one is on top. Raises UsageError for an id of 0 or used twice, masks of different sizes, a
    mask that is not binary, and with `refuse_overlap` for masks that lie mostly on each other: those are rather one
    object in several frames.
    """
    owners, notes = _assign_ids(files)
    first = next(iter(owners.values()))
    layers = np.zeros((0, 0), np.uint8)
    labels = np.zeros((0, 0), np.int32)
    ids = []
    for number, file in owners.items():
        mask = read_binary_mask(file)
        if not layers.size:
            layers = np.zeros(mask.shape, np.uint8)
            labels = np.zeros(mask.shape, np.int32)
        if mask.shape != labels.shape:
            raise UsageError(
                f"{file} is {mask.shape[1]}x{mask.shape[0]}, but {first} is {labels.shape[1]}x{labels.shape[0]} "
                "(width x height): the objects' masks of one frame must have its size"
            )
        if not mask.any():
            notes.append(f"{file.name} is an empty mask: object {number} is not given")
            continue
        ids.append(number)
        labels[mask] = number
        layers[mask & (layers < 2)] += 1
    shared, covered = int((layers > 1).sum()), int((layers > 0).sum())
    if refuse_overlap and 2 * shared > covered:
        raise UsageError(
            f"{first.parent}: {len(files)} binary masks that lie mostly on each other ({shared} of {covered} pixels). "
            "Masks of one object in several frames must be named as the frames are; if these are different objects of "
            "the first frame, say so with --mask-form objects (form= in Python)"
        )
    if shared:
        notes.append(f"masks overlap in {shared} pixels; there the later file is on top")
    visible = set(np.unique(labels).tolist())
    hidden = tuple(number for number in ids if number not in visible)
    if hidden:
        notes.append(f"objects {list_ids(hidden)} are wholly covered by later masks and are left out")
    present = tuple(sorted(number for number in ids if number in visible))
    return MaskFile(Annotation(labels, present), tuple(notes))


def _assign_ids(files: list[Path]) -> tuple[dict[int, Path], list[str]]:
    """Id to file, in the order of `files` as far as numbers go; notes on ids that had to be made up."""
    owners: dict[int, Path] = {}
    unnumbered = []
    for file in files:
        number = trailing_number(file.stem)
        if number is None:
            unnumbered.append(file)
            continue
        if not 1 <= number <= MAX_ID:
            raise UsageError(
                f"{file}: the number at the end of its name is the object's id, 1 to {MAX_ID}: got {number}"
            )
        if number in owners:
            raise UsageError(f"{owners[number]} and {file} both give object {number}; rename one")
        owners[number] = file
    notes = []
    free = (number for number in range(1, MAX_ID + 1) if number not in owners)
    added = dict(zip(free, unnumbered, strict=False))
    if added:
        names = ", ".join(f"{file.name} is {number}" for number, file in list(added.items())[:20])
        notes.append(f"masks without a number in their name got one: {names}")
    return owners | added, notes
