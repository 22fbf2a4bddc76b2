"""Read one mask file: which pixel belongs to which object."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segic.errors import UsageError
from segic_vos.frames import Annotation
from segic_vos.palette import complete_palette

from .colours import ids_from_colours
from .opacity import by_shape, opaque
from .suspicion import refuse_mostly_void, refuse_suspicious

if TYPE_CHECKING:
    from PIL import Image

MAX_ID = 65535  # what a 16-bit PNG can hold
VOID = 255


@dataclass(frozen=True)
class MaskFile:
    """One mask file, read. `notes` say what a person may want to know about it, in words that do not name the file."""

    annotation: Annotation
    notes: tuple[str, ...]


def read_mask(
    path: Path | str,
    *,
    allow_many: bool = False,
    known: Collection[int] = (),
    colours: dict[int, int] | None = None,
) -> MaskFile:
    """The index mask in `path`: palette, grey (8 or 16 bit), or a picture of few colours, which become ids 1, 2, ...

    An 8-bit mask whose only value beside 0 is 255 is the binary mask of object 255; 255 beside other ids is void,
    unless it is among the objects `known` already. Transparent pixels (of an alpha channel, as `opaque` has it; of a
    palette, clear ones) are background. colours: the ids of those (0xRRGGBB) in masks that belong with this one; new
    ones are added. Raises UsageError for a file that is no picture or that has 16 bits a channel and is not grey, for a
    palette by whose colours another value than 0 is background, and, unless `allow_many`, for a mask that looks anti-
    aliased, of which little but what is undecided would be left, or that holds more than 64 ids in 8 bits.
    """
    path = Path(path)
    values, palette, notes = _read_values(path, {} if colours is None else colours)
    present = _distinct(values)
    undecided = values.dtype == np.uint8 and VOID in present and len(present) > 1 and VOID not in known
    void = VOID if undecided else None
    ids = tuple(value for value in present if value != void)
    if not allow_many:
        refuse_suspicious(values, ids, eight_bit=values.dtype == np.uint8, path=path)
        if void is not None:
            refuse_mostly_void(values, void, path)
    labels = values.astype(np.int32)
    if not ids:
        notes += ("an empty mask: every pixel is background, no object is given",)
    if void is not None:
        notes += ("the value 255 beside other ids is taken as void (undecided), not as an object",)
    return MaskFile(Annotation(labels, ids, void, palette), notes)


def read_binary_mask(path: Path) -> NDArray[np.bool_]:
    """The mask (H, W) of one object: every pixel that is not 0. UsageError for more than one value beside 0."""
    values, _, _ = _read_values(path, {})
    present = _distinct(values)
    if len(present) > 1:
        raise UsageError(
            f"{path}: expected the mask of one object (0 and one other value), found {len(present)} values beside 0: "
            f"{list_ids(present)}"
        )
    return np.asarray(values != 0)


def is_binary_mask(path: Path) -> bool:
    """True where the file holds at most one value beside 0."""
    try:
        values, _, _ = _read_values(path, {})
    except UsageError as error:
        if error.__cause__ is not None:  # not readable at all
            raise
        return False  # a picture of many colours
    return len(_distinct(values)) <= 1


def list_ids(ids: tuple[int, ...]) -> str:
    """Ids for a message: "1, 2, 5", shortened where there are many."""
    shown = ", ".join(str(value) for value in ids[:20])
    return shown if len(ids) <= 20 else f"{shown} ... ({len(ids)} in all)"


def describe_renewed(ids: tuple[int, ...]) -> str:
    """What is said where a mask's palette did not let one see `ids`, see `distinct_palette`."""
    return (
        f"in the masks' palette id{'' if len(ids) == 1 else 's'} {list_ids(ids)} cannot be told from the background or "
        "another id; for them a colour of segic's own is used"
    )


def _distinct(values: NDArray[np.integer]) -> tuple[int, ...]:
    """The values present beside 0, ascending."""
    counts = np.bincount(values.ravel(), minlength=1)
    counts[0] = 0
    return tuple(np.flatnonzero(counts).tolist())


def _within_range(values: NDArray[np.integer], path: Path) -> NDArray[np.int32]:
    """As int32. UsageError for ids that no mask file of segic's could hold."""
    for extreme in (int(values.min(initial=0)), int(values.max(initial=0))):
        if not 0 <= extreme <= MAX_ID:
            raise UsageError(f"{path}: holds the id {extreme}; ids from 0 (background) to {MAX_ID} are expected")
    return values.astype(np.int32)


def _read_values(
    path: Path, colours: dict[int, int]
) -> tuple[NDArray[np.uint8] | NDArray[np.int32], bytes | None, tuple[str, ...]]:
    """The file's values (H, W), uint8 for 8-bit index masks and int32 for deeper ones, turned as its EXIF orientation
    says; its palette; notes. colours: as in `read_mask`.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            depth = _png_depth(path) if opened.format == "PNG" else 8
            image = ImageOps.exif_transpose(opened)
            mode, palette, clear = image.mode, None, _transparent(image)
            if mode in ("P", "PA"):
                palette = complete_palette(bytes(image.getpalette("RGB") or ()))
            deep = mode.startswith("I")
            coloured = not deep and mode not in ("1", "L", "LA", "P", "PA", "F")
            array = np.asarray(image.convert("RGBA") if coloured else image)
    except Exception as error:  # Pillow's decoders raise what they meet in a broken file
        raise UsageError(f"{path}: cannot be read as a mask picture: {error}") from error
    if deep:
        return _within_range(np.where(np.isin(array, clear), 0, array), path), None, ()
    if mode == "F":
        raise UsageError(f"{path}: a picture of floating point numbers; a mask holds whole-numbered ids")
    if depth == 16:
        raise UsageError(
            f"{path}: a picture of 16 bits a channel that is not grey alone, of which ids would be lost; expected a "
            "grey PNG of 8 or 16 bits, without colours and transparency, or a palette PNG"
        )
    if coloured:
        return ids_from_colours(array, path, colours)
    values = array.astype(np.uint8)
    notes: tuple[str, ...] = ()
    if values.ndim == 3:
        seen, notes = opaque(values[..., 1], values[..., 0])
        values = np.where(seen, values[..., 0], 0).astype(np.uint8)
        if palette is None and (shape := by_shape(seen, values)):
            return shape[0], None, notes + shape[1]
    if mode == "L" and depth < 8:
        values //= 255 // (2**depth - 1)  # Pillow makes the largest value white
    if clear:
        values[np.isin(values, clear)] = 0
    if palette is not None:
        _refuse_other_background(values, palette, path)
    return np.ascontiguousarray(values), palette, notes


def _refuse_other_background(values: NDArray[np.uint8], palette: bytes, path: Path) -> None:
    """UsageError where 0 is there and is not black, and another value is: programs that make a palette of a colour
    picture number its colours as they like.
    """
    black = [value for value in _distinct(values) if palette[3 * value : 3 * value + 3] == b"\0\0\0"]
    if black and any(palette[:3]) and bool((values == 0).any()):
        raise UsageError(
            f"{path}: a palette in which 0, the background by its number, is #{palette[:3].hex()}, and {black[0]} is "
            "black, the background by its colour; save the mask as a colour picture (RGB) if colours count, as a grey "
            "one if numbers do"
        )


def _transparent(image: "Image.Image") -> list[int]:
    """The values of a grey or palette picture that are fully transparent: its file names one, or each one's alpha."""
    said = image.info.get("transparency")
    if isinstance(said, bytes):
        return [value for value, alpha in enumerate(said) if alpha == 0]
    return [said] if isinstance(said, int) else []


def _png_depth(path: Path) -> int:
    """Bits a channel, as the first chunk says."""
    with path.open("rb") as file:
        return file.read(25)[24]
