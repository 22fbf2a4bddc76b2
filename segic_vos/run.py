"""One clip from its file to its masks: everything that `segic vos run` does but talk.

clip = open_clip(ClipJob(Path("dog.mp4"), masks="first.png", out=Path("dog_segic")))
chosen = choose_size("segic-s")
summary = run_clip(clip, segic.load_model("segic-s", size=chosen.size), chosen=chosen)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from segic.canvas import Canvas
from segic.config import ModelConfig
from segic.devices import beside_products
from segic.errors import INTERRUPTED, SegicError, UsageError
from segic_vos.alone import alone
from segic_vos.batches import Encoder, is_out_of_memory
from segic_vos.choices import Choices
from segic_vos.frames import Annotation, Frame, FrameResult, Sink
from segic_vos.job import Clip, ClipJob, Note, open_clip, source_warnings
from segic_vos.masks.matching import FrameNames
from segic_vos.memory import Workload, choose_batch, default_batch, used_memory
from segic_vos.pipeline import Stopped, run_pipeline
from segic_vos.quality import SizeChoice, foveated_sizes
from segic_vos.records import RecordWriter, Statistics
from segic_vos.resume import Finished, Resumable, check_given, finished_frames, has_soft, look_of, replay
from segic_vos.sinks import MaskWriter, OverlayWriter, ProbabilityWriter, RleWriter
from segic_vos.summary import RunSummary, Status, describe_model
from segic_vos.timings import Timings

__all__ = ["Clip", "ClipJob", "ClipStopped", "VideoModel", "open_clip", "run_clip"]


class ClipStopped(SegicError):
    """A run that ended before its clip did. What was finished is on the disk, `summary` says what."""

    def __init__(self, message: str, summary: RunSummary, exit_status: int) -> None:
        super().__init__(message)
        self.summary = summary
        self.exit_status = exit_status


class VideoModel(Encoder, Protocol):
    """What is asked of the model here; `segic.SEGIC` has it."""

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> torch.dtype: ...

    @property
    def config(self) -> ModelConfig: ...

    @property
    def files(self) -> Mapping[str, Path]: ...

    def canvas(self, frame: tuple[int, int], /) -> Canvas: ...


Progress = Callable[[Frame, FrameResult], None]
_Frames = Generator[Frame, None, None]


def run_clip(
    clip: Clip,
    model: VideoModel,
    *,
    on_result: Progress = lambda _frame, _result: None,
    note: Note = lambda _: None,
    chosen: SizeChoice | None = None,
    on_choices: Callable[[Choices], None] = lambda _: None,
    make_session: Callable[[VideoModel, bool, bool], Resumable] | None = None,
    held: float | None = None,
) -> RunSummary:
    """Follow the clip's objects to its end and write everything that its job asks for.

    on_result: called after every frame, those of an earlier run included. note: told in words of what is odd in the
    input. chosen: as `choose_size` has it, by which frames are foveated at a size that fits where it has tokens; else,
    and where None, they are seen whole, at the model's size. on_choices: told what the run works with, before
    the first frame. make_session: (model, with probabilities, foveated) to a session; `VideoSession` where None. held:
    `segic_vos.memory.used_memory` before the first of several clips within `max_memory`, of each of which what earlier
    ones have set up is expected anew; None: now.

    Raises: UsageError before anything is written, where the request cannot be carried out, or another run is at work in
    the output folder; `ClipStopped` where the run ended early (a truncated video, a full disk, Ctrl-C): the frames
    before are written, and the summary too.
    """
    talk = _Talk(on_result, note, on_choices)
    with alone(clip.outputs.root):
        clip.outputs.check(clip.job.existing, clip.job.inputs)  # others may have been here
        return _Run(clip, model, chosen, talk, make_session or _video_session, held).run()


def _video_session(model: VideoModel, probabilities: bool, foveated: bool) -> Resumable:
    from segic.model import SEGIC
    from segic_vos.prompts import video_meta
    from segic_vos.session import VideoSession

    if not isinstance(model, SEGIC):
        raise TypeError(f"{type(model).__name__} is no SEGIC model: pass make_session too")
    return VideoSession(model, probabilities=probabilities, meta=video_meta(model), foveated=foveated)


@dataclass(frozen=True)
class _Sinks:
    """records: masks and records, which go on where an earlier run stopped. anew: written from the first frame on,
    finished ones included. further: only for frames that this run makes.
    """

    records: RecordWriter
    anew: tuple[Sink, ...]
    further: tuple[Sink, ...]

    def all(self) -> tuple[Sink, ...]:
        return (self.records, *self.anew, *self.further)


@dataclass(frozen=True)
class _Talk:
    """Whom to tell what."""

    result: Progress
    note: Note
    choices: Callable[[Choices], None]


def _one_by_one(first: Frame, rest: Iterator[Frame]) -> _Frames:
    """All of them. Closed early, it closes `rest`, by which a source tells what it noticed."""
    try:
        yield first
        yield from rest
    finally:
        if isinstance(rest, Generator):
            rest.close()


def _as_earlier(done: RunSummary, earlier: dict[str, Any] | None) -> RunSummary:
    """With the choices and timings of the earlier run, which made all the frames."""
    known = earlier or {}
    timings = Timings.from_dict(known.get("timings_s") or {})
    return replace(done, choices=known.get("choices") or {}, timings=timings)


class _Run:
    """The steps of `run_clip`, in order."""

    def __init__(
        self,
        clip: Clip,
        model: VideoModel,
        chosen: SizeChoice | None,
        talk: _Talk,
        make_session: Callable[[VideoModel, bool, bool], Resumable],
        held: float | None,
    ) -> None:
        self._clip, self._job, self._outputs = clip, clip.job, clip.outputs
        self._model, self._chosen, self._make_session = model, chosen, make_session
        self._talk, self._held = talk, held
        self._notes: list[str] = []
        self._told_of_masks = 0
        self._foveated = False
        self._described: dict[str, Any] = {}
        self._choices: Choices | None = None
        self._first: int | None = None
        self._palette: bytes | None = None
        self._look_of_first = ""
        for text in clip.notes:
            self._note(text)

    def run(self) -> RunSummary:
        job, outputs = self._job, self._outputs
        with source_warnings(self._note):
            frames = iter(self._clip.source)
            first = self._opening(frames)
            frames = _one_by_one(first, frames)
            self._look(first.size)
            finished = Finished()
            if job.existing == "resume":
                finished = finished_frames(outputs, job.settings(), self._described, self._look_of_first)
                check_given(finished.records(outputs), self._clip.annotations.anew().named, outputs)
            earlier = outputs.read_summary() if finished.frames else None
            self._note_moved(earlier)
            all_soft = not job.soft or all(has_soft(outputs, record) for record in finished.records(outputs))
            if finished.complete and self._is_as_long(finished, earlier) and self._nothing_left(finished, all_soft):
                done = self._summary("complete", Timings(), Statistics(finished.records(outputs)), finished)
                return _as_earlier(done, earlier)
            if not all_soft:
                self._note(
                    "--resume: soft masks are written from here on; finished frames of the earlier run have none"
                )
            session = self._make_session(self._model, job.soft, self._foveated)
            self._choices = self._choose(first.size, max(1, len(self._clip.opening.ids)))
            self._talk.choices(self._choices)
            outputs.create(job.existing, FrameNames(self._clip.names).is_exact)
            # Before anything else: by it a later run knows the folder as segic's.
            done_before = Statistics(finished.records(outputs))
            outputs.write_summary(self._summary("running", Timings(), done_before, finished).as_dict())
            sinks = self._open_sinks(finished)
            statistics = sinks.records.statistics
            try:
                timings = self._follow(frames, session, finished, sinks)
            except Stopped as stopped:
                cause = stopped.__cause__
                error = self._stopped(stopped, statistics, finished)
                if error is cause:
                    raise error from None
                raise error from cause
        self._note_unused()
        if not self._clip.annotations.any_used:
            reason = f"none of the masks is of one of the {statistics.frames} frames, so nothing was followed"
            said = self._summary("failed", timings, statistics, finished, reason)
            outputs.write_summary(said.as_dict())
            raise ClipStopped(f"{self._job.masks}: {reason}", said, 1)
        done = self._summary("complete", timings, statistics, finished)
        if not timings.frames:  # files were made anew only
            done = _as_earlier(done, earlier)
        outputs.write_summary(done.as_dict())
        return done

    def _is_as_long(self, finished: Finished, earlier: dict[str, Any] | None) -> bool:
        """Whether a complete earlier run's clip has not become longer since. A container that misstates its length does
        so both times.
        """
        expected = self._clip.source.info.expected_frames
        before = ((earlier or {}).get("video") or {}).get("expected_frames")
        return expected == finished.frames or (expected is not None and expected == before)

    def _nothing_left(self, finished: Finished, all_soft: bool) -> bool:
        """Whether all files of a complete earlier run are there. UsageError for what cannot be made of its masks."""
        if not all_soft:
            raise UsageError(
                f"--soft: all {finished.frames} frames are finished, without soft masks, which their masks do not "
                "tell; --overwrite starts anew"
            )
        if not all(path.exists() for path in self._written().values()):
            return False
        self._note("the earlier run is complete: nothing is left to do")
        return True

    def _open_sinks(self, finished: Finished) -> _Sinks:
        job, outputs = self._job, self._outputs
        anew: list[Sink] = []
        if job.rle:
            anew.append(RleWriter(outputs.rle))
        if job.overlay:
            info = self._clip.source.info
            anew.append(
                OverlayWriter(outputs.overlay, info.rate, palette=self._palette, pixel_aspect=info.pixel_aspect)
            )
        return _Sinks(
            records=RecordWriter(outputs.records, MaskWriter(outputs.masks, self._palette), finished.frames),
            anew=tuple(anew),
            further=(ProbabilityWriter(outputs.soft),) if job.soft else (),
        )

    def _follow(self, frames: _Frames, session: Resumable, finished: Finished, sinks: _Sinks) -> Timings:
        """Restore what is finished, then run the pipeline. Raises `Stopped` for errors in either."""
        try:
            replay(
                frames,
                finished,
                self._outputs,
                session=session,
                recent=self._model.config.recent,
                renew_every=self._model.config.renew_every,
                annotation_of=self._annotation,
                sinks=sinks.anew,
                on_result=self._talk.result,
            )
        except BaseException as error:
            frames.close()
            for sink in sinks.all():
                with suppress(SegicError):
                    sink.close()
            raise Stopped(Timings()) from error
        return run_pipeline(
            frames,
            self._model,
            session,
            sinks.all(),
            annotation_of=self._annotation,
            batch=self._choices.batch if self._choices else default_batch(self._model.device),
            foveated=self._foveated,
            on_result=self._talk.result,
            note=self._note,
        )

    def _opening(self, frames: Iterator[Frame]) -> Frame:
        """The first frame: where its masks do not fit, nothing has been written."""
        first = next(frames, None)
        if first is None:
            raise SegicError(f"{self._job.video}: no frame to work on")
        self._first = first.index
        self._look_of_first = look_of(first.pixels)
        self._annotation(first)
        self._palette = self._clip.opening.palette
        return first

    def _look(self, frame: tuple[int, int]) -> None:
        """Decides whether frames of (height, width) are foveated, and then at which size: by the clip's first masks."""
        from segic.model import SEGIC

        chosen = self._chosen
        tokens = chosen.tokens if chosen is not None else None
        model, masks = self._model, self._clip.opening
        if chosen is not None and tokens is not None and isinstance(model, SEGIC):
            from segic_vos.fovea import fitting_size

            self._foveated = True
            if masks.ids:
                known = foveated_sizes(tokens)
                size = self._earlier_size(known)
                if size is None:
                    sizes = [size for size in known if self._fits(model.at_size(size), frame, len(masks.ids))]
                    if not sizes:  # refused in the words of the smallest
                        self._batch_within(model.at_size(known[0]), frame, len(masks.ids))
                    size = fitting_size(model, masks.objects, sizes or known[:1], tokens)
                    if len(sizes) < len(known) and size < fitting_size(model, masks.objects, known, tokens):
                        self._chosen = replace(chosen, why="--max-memory")
                self._model = model = model.at_size(size)
            if self._job.batch is not None:
                self._note(
                    f"--batch {self._job.batch} has no effect: foveated frames go through the backbone one by one "
                    "(--no-fovea: whole frames)"
                )
        described = describe_model(model.name, model.config, model.device, model.precision, model.files)
        self._described = {**described, "foveated": self._foveated, "tokens": tokens if self._foveated else None}

    def _earlier_size(self, known: Sequence[int]) -> int | None:
        """That of the foveated run to be continued: how much memory is free now may speak for another."""
        earlier = self._outputs.read_summary() if self._job.existing == "resume" else None
        before = (earlier or {}).get("model") or {}
        return before["size"] if before.get("foveated") and before.get("size") in known else None

    def _fits(self, model: VideoModel, frame: tuple[int, int], objects: int) -> bool:
        """Whether one frame at a time is expected to fit into the job's memory."""
        try:
            self._batch_within(model, frame, objects)
        except UsageError:
            return False
        return True

    def _batch_within(self, model: VideoModel, frame: tuple[int, int], objects: int) -> int | None:
        """How many frames fit into the job's memory together, None where that is not limited."""
        if self._job.max_memory is None:
            return None
        if self._held is None:  # once: giving back what is free takes a while, and every look holds a little more
            self._held = used_memory(model.device)
        # Products of bytes take next to no memory; what is beside them does.
        kept_in = beside_products(model.precision, model.device)
        work = Workload(model.config, kept_in, model.canvas(frame).padded, frame, objects)
        return choose_batch(work, model.device, self._job.max_memory, self._held)

    def _choose(self, frame: tuple[int, int], objects: int) -> Choices:
        """What this run works with. objects: as far as the first masks show; later ones may bring more."""
        job, model = self._job, self._model
        batch, why = job.batch or default_batch(model.device), "--batch" if job.batch else ""
        if self._foveated:  # at a size that was found to fit, if any mask shows an object
            batch, why = 1, "foveated frames go one by one"
        elif (fitting := self._batch_within(model, frame, objects)) is not None:
            batch, why = fitting, "--max-memory"
        return Choices.of(
            model.name, model.config.size, model.device, model.precision,
            chosen=self._chosen, foveated=self._foveated, batch=batch, batch_by=why,
        )  # fmt: skip

    def _annotation(self, frame: Frame) -> Annotation | None:
        found = self._clip.annotations.at(frame, first=frame.index == self._first)
        notes = self._clip.annotations.notes
        for text in notes[self._told_of_masks :]:
            self._note(text)
        self._told_of_masks = len(notes)
        return found

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._talk.note(text)

    def _note_moved(self, earlier: dict[str, Any] | None) -> None:
        before = ((earlier or {}).get("settings") or {}).get("video")
        if before is not None and before != self._job.settings()["video"]:
            self._note(f"--resume: the video is taken for {before}, by its name and its first frame")

    def _note_unused(self) -> None:
        unused = self._clip.annotations.unused
        if len(unused) == 1:
            self._note(f"1 mask belongs to no frame of this run and had no effect: {unused[0]}")
        elif unused:
            self._note(f"{len(unused)} masks belong to no frame of this run and had no effect; first: {unused[0]}")

    def _written(self) -> dict[str, Path]:
        """The paths that this job's run writes, by kind."""
        job, outputs = self._job, self._outputs
        wanted = {"masks": True, "overlay": job.overlay, "rle": job.rle, "soft": job.soft, "records": True}
        return {kind: getattr(outputs, kind) for kind, wants in wanted.items() if wants}

    def _summary(
        self, status: Status, timings: Timings, statistics: Statistics, finished: Finished, reason: str | None = None
    ) -> RunSummary:
        return RunSummary(
            status=status,
            source=self._clip.source.info,
            frames=statistics.frames,
            resumed=finished.frames,
            objects=statistics.objects(),
            timings=timings,
            model=self._described,
            choices={} if self._choices is None else self._choices.as_dict(),
            settings=self._job.settings(),
            outputs={**self._written(), "summary": self._outputs.summary},
            notes=tuple(self._notes),
            first_frame=self._look_of_first,
            reason=reason,
        )

    def _stopped(self, stopped: Stopped, statistics: Statistics, finished: Finished) -> BaseException:
        """The error to raise, with the summary written as far as the disk lets us."""
        cause = stopped.__cause__
        interrupted = isinstance(cause, KeyboardInterrupt)
        reason = "interrupted" if interrupted else str(cause) or type(cause).__name__
        status: Status = "interrupted" if interrupted else "failed"
        said = self._summary(status, stopped.timings, statistics, finished, reason)
        try:
            self._outputs.write_summary(said.as_dict())
        except SegicError as error:
            said = replace(said, notes=(*said.notes, str(error)))
        count = "1 frame is" if said.frames == 1 else f"{said.frames} frames are"
        kept = f"{count} finished in {self._outputs.root}"
        if interrupted:
            return ClipStopped(f"stopped: {kept}; the same command with --resume goes on from there", said, INTERRUPTED)
        if is_out_of_memory(cause):
            text = f"out of memory on {self._model.device} even with one frame at a time: give a smaller --size"
            return ClipStopped(f"{text}; {kept}", said, 1)
        if isinstance(cause, SegicError):
            return ClipStopped(f"{cause} ({kept}; --resume goes on from there)", said, cause.exit_status)
        # Anything else is a defect: it keeps its own type and its traceback.
        return cause if cause is not None else stopped
