"""Go on with a run that was stopped.

What the model carries from frame to frame is of constant size: the given masks, the last few frames with their masks,
the last one that the examples' linear models were fitted to, and those that showed hidden objects last. So of the
finished frames only these are encoded again, and the ones before or after them, which look closely where objects were;
their masks are read from the files that were written.
The overlay and the RLE file are made anew from the mask files, which costs decoding but no model. The masks of the last
frames are restored as written, without the model's own fractional certainty: a resumed run may differ from one that was
never stopped, mostly in a few pixels at edges, in more where an object comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segic.errors import SegicError, UsageError
from segic.renewal import due
from segic_vos.frames import Annotation, Frame, FrameResult, Sink
from segic_vos.outputs import Outputs
from segic_vos.pipeline import Follower
from segic_vos.records import FrameRecord, read_records

# Settings that decide what the masks are. Device, batch and the like may change in between.
_DECISIVE = ("video", "masks", "mask_form", "start", "end", "every", "decoder")
_DECISIVE_MODEL = ("name", "foveated", "tokens", "size", "weights")
SAME_LOOK = 4  # of 255: other versions of FFmpeg may round colours differently
_CHOSEN_BY = {"foveated": " (--fovea)", "tokens": " (--quality)", "size": " (--quality or --size)"}


class Resumable(Follower, Protocol):
    """The part of `VideoSession` that restores its state."""

    def remember(
        self, encoded: Any, labels: NDArray[np.int32], scores: Mapping[int, float], annotation: Annotation | None, /
    ) -> None:
        """Take a frame's masks and their scores as known, some of them given by `annotation`."""

    def skip(self) -> None:
        """Count a frame of which nothing need be known."""

    def recall(self, likeness: Mapping[int, float], away: Collection[int], /) -> None:
        """Take the last remembered frame's objects to have stood so with the given examples."""


@dataclass(frozen=True)
class Finished:
    """The frames that an earlier run finished: the first `frames` of the clip; complete: those are all.

    Their records stay in the file, since there may be very many; see `records`.
    """

    frames: int = 0
    complete: bool = False

    def records(self, outputs: Outputs) -> Iterator[FrameRecord]:
        """What is recorded of them, in order."""
        return islice(read_records(outputs.records), self.frames)


def finished_frames(
    outputs: Outputs, settings: Mapping[str, Any], model: Mapping[str, Any], look: str = ""
) -> Finished:
    """What the earlier run in `outputs` left. look: of the first frame, see `look_of`; unless it is known, anything may
    be. Raises UsageError where the run had other settings, or another video by its first frame: the rest may be longer.
    Video and masks may have moved: they are known by their names then, and by what they show.
    """
    earlier = outputs.read_summary()
    if earlier is None:
        return Finished()
    first = (earlier.get("video") or {}).get("first_frame")
    seen = bool(first and look)
    for kind, names, now in (("settings", _DECISIVE, settings), ("model", _DECISIVE_MODEL, model)):
        before = dict(earlier.get(kind) or {})
        if kind == "model" and before:
            before.setdefault("foveated", False)  # runs of earlier versions never were
        for name in names:
            if name in before and not _is_same(name, before[name], now.get(name), seen):
                raise UsageError(
                    f"--resume: the run in {outputs.root} had {name} = {before[name]!r}, this one has "
                    f"{now.get(name)!r}{_CHOSEN_BY.get(name, '')}: use the same, or --overwrite to start anew"
                )
    if first and look and not _look_alike(first, look):
        raise UsageError(
            f"--resume: the video is not that of the earlier run in {outputs.root}: its first frame looks different; "
            "use the same, or --overwrite to start anew"
        )
    records = read_records(outputs.records)
    whole: Iterator[FrameRecord] = takewhile(lambda record: mask_path(outputs, record.name).is_file(), records)
    if settings.get("soft"):
        whole = _softly(whole, outputs)
    frames = sum(1 for _ in whole)
    return Finished(frames, earlier.get("status") == "complete" and frames == earlier.get("frames"))


def _is_same(name: str, before: Any, now: Any, seen: bool) -> bool:
    """Whether a setting is as before. seen: the video is known by its first frame as well, and so are masks, which
    `check_given` compares.
    """
    if seen and name in ("video", "masks") and isinstance(before, str) and isinstance(now, str):
        return Path(before).name == Path(now).name
    return bool(before == now)


def look_of(pixels: NDArray[np.uint8]) -> str:
    """What tells a frame (H, W, 3) from another, in 96 hexadecimal digits: the mean colours of 4 x 4 fields."""
    fields = cv2.resize(pixels, (4, 4), interpolation=cv2.INTER_AREA)
    return fields.tobytes().hex()


def _look_alike(one: str, other: str) -> bool:
    before, now = (np.frombuffer(bytes.fromhex(look), np.uint8).astype(int) for look in (one, other))
    return len(before) == len(now) and bool(np.abs(before - now).max() <= SAME_LOOK)


def has_soft(outputs: Outputs, record: FrameRecord) -> bool:
    """Whether a frame's soft masks are there."""
    return all(outputs.soft_of(key, record.name).exists() for key in record.areas)


def _softly(records: Iterable[FrameRecord], outputs: Outputs) -> Iterator[FrameRecord]:
    """Up to the first frame whose soft masks did not come to be written, though they had been begun with."""
    begun = False
    for record in records:
        here = has_soft(outputs, record)
        if begun and not here:
            return
        begun = begun or (here and bool(record.areas))
        yield record


def check_given(
    records: Iterable[FrameRecord], given: Callable[[str, bool], Annotation | None], outputs: Outputs
) -> None:
    """Raises UsageError where a mask given for a finished frame, or that none is, has changed since.

    given: the annotation of the frame of a name, and whether that is the first one.
    """
    known: set[int] = set()
    for position, record in enumerate(records):
        annotation = given(record.name, position == 0)
        same = (annotation is not None) == record.given
        if same and annotation is not None:
            known.update(annotation.ids)
            same = set(record.areas) == known and _is_written(annotation, mask_path(outputs, record.name))
        if not same:
            raise UsageError(
                f"--resume: the mask given for frame {record.name} has changed since the earlier run finished it; "
                "use the same, or --overwrite to start anew"
            )


def _is_written(annotation: Annotation, path: Path) -> bool:
    """Whether a frame's mask file shows what was given for it: its objects there and nowhere else. Where it says
    nothing, others may have been found.
    """
    given, written = annotation.labels, read_labels(path)
    if given.shape != written.shape:
        return False
    said = (given != 0) | np.isin(written, annotation.ids)
    return bool((given == written)[said].all())


def replay(
    frames: Iterator[Frame],
    finished: Finished,
    outputs: Outputs,
    *,
    session: Resumable,
    recent: int,
    renew_every: int,
    annotation_of: Callable[[Frame], Annotation | None],
    sinks: Sequence[Sink],
    on_result: Callable[[Frame, FrameResult], None],
) -> None:
    """Take the finished frames from `frames`, restore `session`, and write them once more to `sinks`.

    recent: how many frames back the session looks. renew_every: of its model (`ModelConfig.renew_every`).
    Raises UsageError where the frames are not those that were recorded; for the masks given for them see `check_given`.
    """
    renewed = _last_renewal(finished.records(outputs), renew_every)
    wanted = set() if renewed is None else {renewed - 1, renewed}
    for hidden in _last_shown(finished.records(outputs)):
        wanted |= {hidden, hidden + 1}  # whose look takes up where objects were the frame before
    first = finished.frames - recent - 1  # one more, from whose masks follows what the next one sees
    for position, record in enumerate(finished.records(outputs)):
        frame = next(frames, None)
        if frame is None or frame.name != record.name:
            found = "the end" if frame is None else f"frame {frame.name}"
            raise UsageError(
                f"--resume: frame {record.name} was finished by the earlier run, but the input has {found} in its "
                "place; use --overwrite to start anew"
            )
        annotation = annotation_of(frame)
        labels = read_labels(mask_path(outputs, frame.name))
        if annotation is not None or position >= first or position in wanted:
            encoded = session.encode(frame.pixels, whole=annotation is not None)
            session.remember(encoded, labels, record.scores, annotation)
            if record.likeness or record.away:
                session.recall(record.likeness, record.away)
        else:
            session.skip()
        result = FrameResult(labels, tuple(sorted(record.areas)), record.scores, record.given)
        for sink in sinks:
            sink.write(frame, result)
        on_result(frame, result)


def _last_renewal(records: Iterable[FrameRecord], every: int) -> int | None:
    """Which frame the examples' linear models were last fitted to, if any."""
    last, predicted = None, 0
    for position, record in enumerate(records):
        predicted = 0 if record.given else predicted + 1
        present = [key for key, area in record.areas.items() if area]
        if due(predicted, every, record.scores, present):
            last = position
    return last


def _last_shown(records: Iterable[FrameRecord]) -> set[int]:
    """The frames in which those objects were last seen that are out of sight in the last one: near there they are
    looked for.
    """
    shown: dict[int, int] = {}
    position, last = 0, None
    for position, last in enumerate(records):
        shown.update(dict.fromkeys((key for key, area in last.areas.items() if area), position))
    hidden = {} if last is None else {key: shown[key] for key, area in last.areas.items() if not area and key in shown}
    return set(hidden.values())


def mask_path(outputs: Outputs, name: str) -> Path:
    """The mask file of the frame called `name`."""
    return outputs.mask_of(name)


def read_labels(path: Path) -> NDArray[np.int32]:
    """A mask file that segic wrote: (H, W) int32, the values as they stand. Raises SegicError for a damaged one."""
    try:
        with Image.open(path) as image:
            return np.asarray(image).astype(np.int32)
    except (OSError, ValueError) as error:
        raise SegicError(f"{path} cannot be read: {error}; delete it and use --resume again") from error
