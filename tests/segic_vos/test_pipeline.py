"""Order, bounds, errors and interrupts of the pipeline, on a stand-in model."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from segic_vos.batches import BatchLimit
from segic_vos.frames import Annotation, Frame
from segic_vos.pending import Pending
from segic_vos.pipeline import Stopped, _submit, run_pipeline
from segic_vos.threads import Ahead


class Recorder:
    """A sink that keeps the names it was given."""

    def __init__(self, fail_at: int | None = None, delay: float = 0.0) -> None:
        self.names: list[str] = []
        self.results = []
        self.closed = 0
        self._fail_at, self._delay = fail_at, delay

    def write(self, frame, result):
        time.sleep(self._delay)
        if frame.index == self._fail_at:
            raise OSError(28, "No space left on device")
        self.names.append(frame.name)
        self.results.append(result)

    def close(self):
        self.closed += 1


def make_frames(count, size=(8, 10), fail_at=None, error=ValueError, taken=None):
    for index in range(count):
        if index == fail_at:
            raise error(f"frame {index} is broken")
        if taken is not None:
            taken.append(index)
        pixels = np.zeros((*size, 3), np.uint8)
        pixels[:, index % size[1]] = 255
        yield Frame(index, f"{index:05d}", pixels)


def first_mask(frame):
    if frame.index:
        return None
    labels = np.zeros(frame.size, np.int32)
    labels[:, 0] = 7
    return Annotation(labels, (7,))


def names(count):
    return [f"{index:05d}" for index in range(count)]


@pytest.fixture(autouse=True)
def no_threads_left():
    before = set(threading.enumerate())
    yield
    assert not [thread for thread in set(threading.enumerate()) - before if thread.is_alive()]


@pytest.mark.parametrize("batch", [1, 3, 4, 50])
def test_every_frame_once_in_order_to_every_sink(fake_model, colour_session, batch):
    sinks = [Recorder(), Recorder(delay=0.001)]
    seen = []
    timings = run_pipeline(
        make_frames(23),
        fake_model,
        colour_session,
        sinks,
        annotation_of=first_mask,
        batch=batch,
        on_result=lambda frame, result: seen.append(frame.index),
    )
    assert sinks[0].names == sinks[1].names == names(23)
    assert [sink.closed for sink in sinks] == [1, 1]
    assert seen == list(range(23))
    assert timings.frames == 23
    assert 0 < timings.first <= timings.wall
    assert timings.write >= 0.023
    # The first frame goes alone, so that its result does not wait for a batch.
    assert fake_model.batches[0] == 1
    assert max(fake_model.batches) == min(batch, 22)
    # The object moves one column a frame: the session's answer must belong to the frame it is written with.
    for index, result in enumerate(sinks[0].results):
        assert (result.labels[:, index % 10] == 7).all()
        assert (result.labels == 7).sum() == 8


class Slow:
    """Stands for a GPU that needs a while: results are there when they are waited for, or told to be."""

    def __init__(self, session, fail_at=None):
        self.session, self.fail_at = session, fail_at
        self.events: list[str] = []

    def submit(self, encoded, annotation=None):
        number = sum(event.startswith("submit") for event in self.events)
        if number == self.fail_at:
            raise ValueError("broken")
        self.events.append(f"submit {number}")
        result = self.session.step_encoded(encoded, annotation)
        if annotation is not None:
            return Pending.known(result)
        return Late(None, lambda _: (self.events.append(f"read {number}"), result)[1])


class Late(Pending):
    ready = False


def test_a_frame_is_submitted_before_the_last_one_is_read(fake_model, colour_session):
    session, sink = Slow(colour_session), Recorder()
    run_pipeline(
        make_frames(4), fake_model, session, [sink], annotation_of=first_mask,
        on_result=lambda frame, _: session.events.append(f"result {frame.index}"),
    )  # fmt: skip
    assert session.events == [
        *("submit 0", "result 0"),  # that of a given mask is there
        *("submit 1", "submit 2", "read 1", "result 1", "submit 3", "read 2", "result 2", "read 3", "result 3"),
    ]
    assert sink.names == names(4)


def test_an_error_comes_after_the_results_that_were_not_read_yet(fake_model, colour_session):
    sink = Recorder()
    with pytest.raises(Stopped) as caught:
        run_pipeline(make_frames(9), fake_model, Slow(colour_session, fail_at=5), [sink], annotation_of=first_mask)
    assert isinstance(caught.value.__cause__, ValueError)
    assert sink.names == names(5)
    assert caught.value.timings.frames == 5


def test_the_first_error_is_told_where_the_results_before_it_cannot_be_read(fake_model, colour_session):
    """Ctrl-C among others, by whose type the exit status is chosen."""

    class Broken(Slow):
        def submit(self, encoded, annotation=None):
            if len(self.events) > 1:
                raise KeyboardInterrupt
            pending = super().submit(encoded, annotation)
            return pending if annotation is not None else Late(None, lambda _: [][0])

    sink = Recorder()
    with pytest.raises(Stopped) as caught:
        run_pipeline(make_frames(9), fake_model, Broken(colour_session), [sink], annotation_of=first_mask)
    assert isinstance(caught.value.__cause__, KeyboardInterrupt)
    assert isinstance(caught.value.__cause__.__cause__, IndexError)
    assert sink.names == names(1)


def test_frames_of_two_sizes_never_share_a_batch(fake_model, colour_session):
    def frames():
        yield from make_frames(3, size=(8, 10))
        yield from (Frame(3 + frame.index, f"x{frame.index}", frame.pixels) for frame in make_frames(3, size=(10, 8)))

    sink = Recorder()
    run_pipeline(frames(), fake_model, colour_session, [sink], batch=4)
    assert fake_model.batches == [1, 2, 3]
    assert len(sink.names) == 6


def test_decoding_error_keeps_the_frames_before_it(fake_model, colour_session):
    sink = Recorder(delay=0.002)
    with pytest.raises(Stopped) as caught:
        run_pipeline(make_frames(30, fail_at=17), fake_model, colour_session, [sink], batch=4)
    assert str(caught.value.__cause__) == "frame 17 is broken"
    assert sink.names == names(17)
    assert sink.closed == 1
    assert caught.value.timings.frames == 17


def test_writing_error_stops_the_rest_soon_and_closes_all_sinks(fake_model, colour_session):
    taken = []
    good, full = Recorder(), Recorder(fail_at=5)
    with pytest.raises(Stopped) as caught:
        run_pipeline(make_frames(10_000, taken=taken), fake_model, colour_session, [good, full], batch=2)
    assert isinstance(caught.value.__cause__, OSError)
    assert full.names == names(5)
    assert good.names[:6] == names(6)
    assert (good.closed, full.closed) == (1, 1)
    assert len(taken) < 100


def test_error_at_close_is_told(fake_model, colour_session):
    class Unclosable(Recorder):
        def close(self):
            raise OSError("cannot finish the file")

    with pytest.raises(Stopped) as caught:
        run_pipeline(make_frames(3), fake_model, colour_session, [Unclosable()])
    assert "cannot finish" in str(caught.value.__cause__)


def test_model_error_is_the_first_error(fake_model, colour_session):
    def fail(batch):
        if len(fake_model.batches) == 3:
            raise RuntimeError("no such kernel")

    fake_model.fail = fail
    sink = Recorder()
    with pytest.raises(Stopped) as caught:
        run_pipeline(make_frames(30), fake_model, colour_session, [sink], batch=2)
    assert "no such kernel" in str(caught.value.__cause__)
    assert sink.names == names(5)


def test_interrupt_keeps_what_was_computed(fake_model, colour_session):
    def interrupt(frame, result):
        if frame.index == 6:
            raise KeyboardInterrupt

    sink = Recorder(delay=0.002)
    with pytest.raises(Stopped) as caught:
        run_pipeline(make_frames(10_000), fake_model, colour_session, [sink], on_result=interrupt)
    assert isinstance(caught.value.__cause__, KeyboardInterrupt)
    assert sink.names == names(7)
    assert sink.closed == 1


@pytest.mark.parametrize(
    "run_out",
    [
        lambda: torch.cuda.OutOfMemoryError("out of memory"),
        lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        lambda: MemoryError("Unable to allocate 9 bytes"),
    ],
    ids=["cuda", "cpu", "numpy"],
)
def test_out_of_memory_halves_the_batch_and_says_so(fake_model, colour_session, run_out):
    def fail(batch):
        if batch > 3:
            raise run_out()

    fake_model.fail = fail
    notes, sink = [], Recorder()
    run_pipeline(make_frames(20), fake_model, colour_session, [sink], batch=8, note=notes.append)
    assert sink.names == names(20)
    assert max(fake_model.batches) <= 3
    assert len(notes) == 2
    assert "8 frames" in notes[0]


def test_out_of_memory_with_one_frame_is_an_error(fake_model, colour_session):
    def fail(batch):
        raise MemoryError("Unable to allocate 9 bytes")

    fake_model.fail = fail
    with pytest.raises(Stopped) as caught:
        run_pipeline(make_frames(20), fake_model, colour_session, [Recorder()])
    assert isinstance(caught.value.__cause__, MemoryError)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_masks_that_find_no_memory_on_a_gpu_make_the_batch_give_way(colour_session, device):
    notes, left = [], [2]

    class Short:
        def submit(self, encoded, annotation=None):
            if left[0]:
                left[0] -= 1
                raise torch.cuda.OutOfMemoryError("out of memory")
            return colour_session.submit(encoded, annotation)

    limit = BatchLimit(8, notes.append)
    pixels = np.zeros((4, 4, 3), np.uint8)
    if device == "cpu":  # there the backbone stands still meanwhile
        with pytest.raises(torch.cuda.OutOfMemoryError):
            _submit(Short(), pixels, None, limit, torch.device("cpu"))
        return
    assert _submit(Short(), pixels, None, limit, torch.device("cuda")).result().labels.shape == (4, 4)
    assert limit.frames == 2
    assert len(notes) == 2


def test_queues_are_bounded(fake_model, colour_session):
    taken, gap = [], []
    run_pipeline(
        make_frames(200, taken=taken),
        fake_model,
        colour_session,
        [Recorder()],
        batch=4,
        on_result=lambda frame, _: (time.sleep(0.001), gap.append(len(taken) - frame.index)),
    )
    assert max(gap) <= 2 * 4 + 4 + 3


def test_a_hanging_consumer_does_not_keep_ahead_alive():
    ahead = Ahead(iter(range(10**9)), depth=2, name="count")
    assert next(ahead) == 0
    ahead.close()
    assert list(ahead) == []


def test_what_waits_for_something_that_was_stopped_ends():
    still = threading.Event()
    inner = Ahead((still.wait(0.3) and index for index in range(10**9)), depth=1, name="source")
    outer = Ahead(inner, depth=1, name="backbone")
    inner.close()
    start = time.monotonic()
    outer.close()
    assert time.monotonic() - start < 2
    assert list(outer) == []


def test_a_source_is_closed_when_a_run_ends_early(fake_model, colour_session):
    """By then it has said what it noticed."""
    closed = []

    def frames():
        try:
            yield from make_frames(100)
        finally:
            closed.append(threading.current_thread().name)

    with pytest.raises(Stopped):
        run_pipeline(frames(), fake_model, colour_session, [Recorder(fail_at=3)], annotation_of=first_mask)
    assert closed == ["decode"]


def test_ctrl_c_while_stages_close_still_closes_the_sinks(fake_model, colour_session, monkeypatch):
    presses = [KeyboardInterrupt()]
    close = Ahead.close

    def interrupted(ahead):
        close(ahead)
        if presses:
            raise presses.pop()

    monkeypatch.setattr(Ahead, "close", interrupted)
    sink = Recorder()
    with pytest.raises(Stopped) as stopped:
        run_pipeline(make_frames(6), fake_model, colour_session, [sink], annotation_of=first_mask)
    assert isinstance(stopped.value.__cause__, KeyboardInterrupt)
    assert (sink.names, sink.closed) == (names(6), 1)
