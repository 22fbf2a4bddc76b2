"""Go on with a run that was stopped.

What the model carries from frame to frame is of constant size: the given masks, the last few frames with their masks,
and the last one that the examples' linear models were fitted to. So of the finished frames only those are encoded
again, and the ones before them, which say where to look closely; their masks are read from the files that were written.
The overlay and the RLE file are made anew from the mask files, which costs decoding but no model. The masks of the last
frames are restored as written, without the model's own fractional certainty: a resumed run may differ in a few edge
pixels from one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, Protocol

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
_DECISIVE_MODEL = ("name", "size", "foveated", "weights")


class Resumable(Follower, Protocol):
    """The part of `VideoSession` that restores its state."""

    def remember(self, encoded: Any, labels: NDArray[np.int32], scores: Mapping[int, float], /) -> None:
        """Take a frame's masks and their scores as known."""

    def skip(self) -> None:
        """Count a frame of which nothing need be known."""


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


def finished_frames(outputs: Outputs, settings: Mapping[str, Any], model: Mapping[str, Any]) -> Finished:
    """What the earlier run in `outputs` left. Raises UsageError where it had other settings."""
    earlier = outputs.read_summary()
    if earlier is None:
        return Finished()
    for kind, names, now in (("settings", _DECISIVE, settings), ("model", _DECISIVE_MODEL, model)):
        before = dict(earlier.get(kind) or {})
        if kind == "model" and before:
            before.setdefault("foveated", False)  # runs of earlier versions never were
        for name in names:
            if name in before and before[name] != now.get(name):
                raise UsageError(
                    f"--resume: the run in {outputs.root} had {name} = {before[name]!r}, this one has "
                    f"{now.get(name)!r}: use the same, or --overwrite to start anew"
                )
    whole = takewhile(lambda record: mask_path(outputs, record.name).is_file(), read_records(outputs.records))
    frames = sum(1 for _ in whole)
    return Finished(frames, earlier.get("status") == "complete" and frames == earlier.get("frames"))


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
    Raises UsageError where the frames are not those that were recorded.
    """
    renewed = _last_renewal(finished.records(outputs), renew_every)
    first = finished.frames - recent - 1  # one more, from whose masks follows what the next one sees
    for position, record in enumerate(finished.records(outputs)):
        frame = next(frames, None)
        if frame is None or frame.name != record.name:
            found = "the end" if frame is None else f"frame {frame.name}"
            raise UsageError(
                f"--resume: frame {record.name} was finished by the earlier run, but the input has {found} in its "
                "place; use --overwrite to start anew"
            )
        labels = read_labels(mask_path(outputs, frame.name))
        annotation = annotation_of(frame)
        if annotation is not None:
            session.step_encoded(session.encode(frame.pixels, whole=True), annotation)
        elif position >= first or (renewed is not None and position in (renewed - 1, renewed)):
            session.remember(session.encode(frame.pixels, whole=False), labels, record.scores)
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
        present = (key for key, area in record.areas.items() if area)
        if due(predicted, every, record.scores, present):
            last = position
    return last


def mask_path(outputs: Outputs, name: str) -> Path:
    """The mask file of the frame called `name`."""
    return outputs.masks / f"{name}.png"


def read_labels(path: Path) -> NDArray[np.int32]:
    """A mask file that segic wrote: (H, W) int32, the values as they stand. Raises SegicError for a damaged one."""
    try:
        with Image.open(path) as image:
            return np.asarray(image).astype(np.int32)
    except (OSError, ValueError) as error:
        raise SegicError(f"{path} cannot be read: {error}; delete it and use --resume again") from error
