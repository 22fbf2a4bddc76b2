"""The masks that a person gave with a clip, found by frame."""

from collections.abc import Sequence
from dataclasses import replace
from glob import escape, glob
from pathlib import Path

from segic.errors import UsageError
from segic_vos.frames import Annotation, Frame
from segic_vos.palette import distinct_palette
from segic_vos.sources.naming import is_picture, list_pictures, natural_key
from segic_vos.sources.selection import Selection
from segic_vos.sources.video import frame_name

from .matching import Form, FrameNames, decide_form
from .objects import read_objects
from .reading import MaskFile, describe_renewed, list_ids, read_mask


class Annotations:
    """Masks for the first frame, or for any frames; see `read_annotations`.

    Masks by frame are read when their frame comes, so that memory does not grow with their number, and `notes` grow
    with them. form: "index", "objects" or "frames".
    """

    def __init__(
        self,
        form: Form,
        *,
        source: str,
        first: MaskFile | None = None,
        by_frame: dict[str, Path] | None = None,
        allow_many: bool = False,
        notes: Sequence[str] = (),
    ) -> None:
        self.form = form
        self._first = first
        self._source = source
        self._by_frame = by_frame or {}
        self._allow_many = allow_many
        self._used: set[str] = set()
        self._ids: set[int] = set()
        self._colours: dict[int, int] = {}
        self._notes = list(notes)
        self._said: set[str] = set()
        if first is not None:
            self._note(first, source, "the first frame")

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noticed so far, in words: the ids found, void, empty or overlapping masks, guesses made.

        New notes come after the old ones. What holds for many masks of a folder is said for the first of them.
        """
        return tuple(self._notes)

    @property
    def unused(self) -> tuple[str, ...]:
        """The file names of masks whose frame has not come: after a run, masks that had no effect."""
        return tuple(path.name for key, path in self._by_frame.items() if key not in self._used)

    def anew(self) -> "Annotations":
        """The same masks, of which none has been asked for: what 255 means depends on the masks before."""
        return Annotations(
            self.form, source=self._source, first=self._first, by_frame=self._by_frame, allow_many=self._allow_many
        )

    @property
    def any_used(self) -> bool:
        """Whether a frame came for which there is a mask."""
        return self._first is not None or bool(self._used)

    def at(self, frame: Frame, *, first: bool) -> Annotation | None:
        """The mask given for `frame`, None where there is none. first: it is the first frame that is processed.

        Raises UsageError for a mask that cannot be used or has another size than the frame.
        """
        found = self.named(frame.name, first=first)
        if found is not None:
            check_size(found, frame, str(self._by_frame.get(_key(frame.name), self._source)))
        return found

    def named(self, name: str, first: bool) -> Annotation | None:
        """As `at`, for the frame of this name, whose size is not known."""
        if self._first is not None:
            return self._first.annotation if first else None
        key = _key(name)
        if key not in self._by_frame:
            return None
        mask = self._read(self._by_frame[key], self._ids)
        if key not in self._used:
            self._used.add(key)
            self._note(mask, str(self._by_frame[key]), f"frame {name}")
        return mask.annotation

    def opening(
        self,
        frame_names: Sequence[str] | None,
        selection: Selection,
        size: tuple[int, int] | None = None,
        count: int | None = None,
    ) -> Annotation:
        """The first masks that show an object, of all frames that are taken; where none does, the first of all. Of
        their palette those colours are others that do not let one see the clip's ids, see `distinct_palette`.

        All masks of frames that are taken are read, so that a bad one is told before work begins.
        frame_names: as in `read_annotations`. size: the frames' (height, width), where that is known. count: how many
        frames of a video are probably taken; masks of later ones are left for when their frames come, if they do.

        Raises UsageError where no mask is of a frame that is taken, since nothing would be followed, and for a mask by
        frame that cannot be used or has another size.
        """
        if self._first is not None:
            found, ids = self._first.annotation, set(self._first.annotation.ids)
        else:
            found, ids = self._survey(self._taken(frame_names, selection, count), size)
        if found.palette is None:
            return found
        palette, renewed = distinct_palette(found.palette, ids)
        if renewed:
            self._notes.append(f"{self._source}: {describe_renewed(renewed)}")
        return replace(found, palette=palette)

    def _taken(
        self, frame_names: Sequence[str] | None, selection: Selection, count: int | None
    ) -> list[tuple[str, Path]]:
        """The names and mask files of the frames that are taken, in their order. UsageError where there is none."""
        if frame_names is None:
            numbers = sorted(number for number in map(int, self._by_frame) if selection.takes(number))
            if count is not None:
                stop = selection.start + count * selection.every
                numbers = [number for number in numbers if number < stop] or numbers[:1]
            taken = [(frame_name(number), self._by_frame[str(number)]) for number in numbers]
        else:
            names = (name for position, name in enumerate(frame_names) if selection.takes(position))
            taken = [(name, self._by_frame[_key(name)]) for name in names if _key(name) in self._by_frame]
        if not taken:
            first = next(iter(self._by_frame.values())).name
            raise UsageError(
                f"{self._source}: no mask is of a frame that is taken (start {selection.start}, end "
                f"{selection.end or 'of the clip'}, every {selection.every}), so nothing could be followed; there is "
                f"{first}{f' and {len(self._by_frame) - 1} more' if len(self._by_frame) > 1 else ''}"
            )
        return taken

    def _survey(self, taken: list[tuple[str, Path]], size: tuple[int, int] | None) -> tuple[Annotation, set[int]]:
        """What `opening` finds, and the ids of all masks. One mask at a time is in memory beside it."""
        found: Annotation | None = None
        ids: set[int] = set()
        for name, path in taken:
            mask = self._read(path, ids).annotation
            if size is not None:
                _require_size(mask, name, size, str(path))
            ids.update(mask.ids)
            if found is None or (mask.ids and not found.ids):
                found = mask
        assert found is not None
        return found, ids

    def _read(self, path: Path, known: set[int]) -> MaskFile:
        return read_mask(path, allow_many=self._allow_many, known=known, colours=self._colours)

    def _note(self, mask: MaskFile, source: str, where: str) -> None:
        for text in mask.notes:
            if text not in self._said:
                self._said.add(text)
                self._notes.append(f"{source}: {text}")
        new = tuple(number for number in mask.annotation.ids if number not in self._ids)
        if new:
            self._ids.update(new)
            count = "1 object, id" if len(new) == 1 else f"{len(new)} objects, ids"
            self._notes.append(f"{where} gives {count} {list_ids(new)}")


def read_annotations(
    spec: Path | str, *, frame_names: Sequence[str] | None = None, form: Form = "auto", allow_many: bool = False
) -> Annotations:
    """The masks that `spec` names: a file, a folder, or a glob pattern.

    A file is the index mask of the first frame processed (form "index"). A folder or pattern holds binary masks of
    that frame's objects ("objects", see `read_objects`), or index masks named by frame ("frames"): a stem is the
    frame's name or, for numbers, equal to it. With "auto" names and contents decide.

    frame_names: `Source.names`, the names of all frames, None for videos. allow_many: believe masks that look
    anti-aliased or hold very many ids. Raises UsageError for missing or unreadable files, where "auto" cannot tell, and
    for a first frame's mask without an object, since nothing could be followed. (Of masks by frame any may be empty.)
    """
    if form not in ("auto", "index", "objects", "frames"):
        raise UsageError(f"form={form!r}: expected 'auto', 'index', 'objects' or 'frames'")
    path = Path(spec)
    files = _list_files(path)
    frames = FrameNames(frame_names)
    notes: list[str] = []
    chosen = form
    if form == "auto":
        chosen, note = ("index", None) if path.is_file() else decide_form(files, frames, str(spec))
        notes += [note] if note else []
    if chosen == "index":
        if len(files) != 1:
            raise UsageError(
                f"{spec}: {len(files)} pictures; the mask form 'index' expects one mask, that of the first frame"
            )
        first = _require_object(read_mask(files[0], allow_many=allow_many), str(files[0]))
        return Annotations("index", source=str(files[0]), first=first, notes=notes)
    if chosen == "objects":
        first = _require_object(read_objects(files, refuse_overlap=form == "auto"), str(spec))
        return Annotations("objects", source=str(spec), first=first, notes=notes)
    by_frame = _by_frame(files, frames, str(spec))
    left_out = len(files) - len(by_frame)
    if left_out:
        notes.append(f"{spec}: {left_out} of {len(files)} masks are not named like any frame and are left out")
    return Annotations("frames", source=str(spec), by_frame=by_frame, allow_many=allow_many, notes=notes)


def _require_object(mask: MaskFile, source: str) -> MaskFile:
    if not mask.annotation.ids:
        raise UsageError(f"{source}: an empty mask, every pixel is background; expected at least one object to follow")
    return mask


def check_size(annotation: Annotation, frame: Frame, source: str = "the mask") -> None:
    """Raise UsageError unless the mask has the frame's size. source: what to call the mask."""
    _require_size(annotation, frame.name, frame.size, source)


def _require_size(annotation: Annotation, name: str, size: tuple[int, int], source: str) -> None:
    height, width = annotation.labels.shape
    if (height, width) != size:
        raise UsageError(
            f"{source}, given for frame {name}, is {width}x{height}, but the frame is "
            f"{size[1]}x{size[0]} (width x height): a mask must have its frame's size"
        )


def _list_files(path: Path) -> list[Path]:
    if path.is_dir():
        return list_pictures(path)
    if path.is_file():
        return [path]
    if path.exists():
        raise UsageError(f"{path}: a pipe or a device, expected a mask file, a folder or a pattern")
    if not any(character in str(path) for character in "*?["):
        raise UsageError(f"{path}: no such mask file or folder")
    wanted = path.expanduser()
    # In the name of a folder that there is, brackets and the like stand for themselves.
    pattern = str(Path(escape(str(wanted.parent))) / wanted.name if wanted.parent.is_dir() else wanted)
    found = (Path(match) for match in glob(pattern))  # noqa: PTH207 - Path.glob takes no absolute pattern
    files = sorted((match for match in found if is_picture(match)), key=lambda match: natural_key(match.name))
    if not files:
        raise UsageError(f"{path}: no picture matches this pattern")
    return files


def _key(name: str) -> str:
    """What frames and masks are matched by: a number without its zeros, else the name itself."""
    return str(int(name)) if name.isdecimal() else name


def _by_frame(files: list[Path], frames: FrameNames, where: str) -> dict[str, Path]:
    """`_key` of a frame to its mask file."""
    chosen: dict[str, Path] = {}
    for file in files:
        if not frames.matches(file.stem):
            continue
        several = frames.of_one_number(file.stem)
        if several:
            raise UsageError(f"{file} could be of the frames {' and '.join(several)}; rename all but one of them")
        key = _key(file.stem)
        if key in chosen:
            raise UsageError(f"{chosen[key]} and {file} are masks of the same frame; remove one")
        chosen[key] = file
    if not chosen:
        raise UsageError(f"{where}: none of the {len(files)} masks is named like a frame; the first is {files[0].name}")
    return chosen
