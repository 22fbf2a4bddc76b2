"""Branches of a recording: joined in any case, and on streams of their own."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from segic import branches
from segic.branches import side_by_side
from segic.recorded import Recorded, free_cached

CUDA = torch.device("cuda")


class FakeStream:
    """Knows what it waits for."""

    current: FakeStream

    def __init__(self, _device: object = None, priority: int = 0) -> None:
        self.waited: list[FakeStream] = []

    def wait_stream(self, other: FakeStream) -> None:
        self.waited.append(other)


@pytest.fixture
def fake_gpu(monkeypatch) -> FakeStream:
    """That is recording."""
    FakeStream.current = main = FakeStream()

    @contextmanager
    def within(stream: FakeStream):
        before, FakeStream.current = FakeStream.current, stream
        try:
            yield
        finally:
            FakeStream.current = before

    monkeypatch.setattr(branches, "_beside", branches._Beside())
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: FakeStream.current)
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    return main


def on() -> FakeStream:
    return FakeStream.current


def test_without_a_recording_tasks_run_one_after_the_other():
    done: list[int] = []
    assert side_by_side(torch.device("cpu"), lambda: done.append(1) or "a", lambda: done.append(2) or "b") == ["a", "b"]
    assert done == [1, 2]


def test_each_task_has_a_stream_and_all_are_joined(fake_gpu):
    first, second, third = side_by_side(CUDA, on, on, on)
    assert first is fake_gpu
    assert len({id(first), id(second), id(third)}) == 3
    assert second.waited == third.waited == [fake_gpu]
    assert fake_gpu.waited == [second, third]
    assert side_by_side(CUDA, on, on) == [fake_gpu, second]


def test_branches_within_branches_share_no_stream(fake_gpu):
    def nested() -> list[FakeStream]:
        return [*side_by_side(CUDA, on, on), *side_by_side(CUDA, on, on)]

    (_, a, _, b), (second, c, _, d) = side_by_side(CUDA, nested, nested)
    assert len({id(stream) for stream in (fake_gpu, a, b, second, c, d)}) == 6


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_branches_are_joined_when_a_task_fails(fake_gpu, failing):
    def task(number: int) -> None:
        if number == failing:
            raise MemoryError

    with pytest.raises(MemoryError):
        side_by_side(CUDA, *(lambda n=n: task(n) for n in range(3)))
    assert len(fake_gpu.waited) == 2
    assert on() is fake_gpu
    assert side_by_side(CUDA, on, on)[1] is fake_gpu.waited[0]


@pytest.mark.gpu
def test_branches_of_a_recording_give_what_the_tasks_give():
    def both(x: torch.Tensor) -> torch.Tensor:
        def inner() -> torch.Tensor:
            return sum(side_by_side(x.device, lambda: x * 2, lambda: x * 3))

        return sum(side_by_side(x.device, inner, inner, lambda: x + 1))

    recorded = Recorded(both)
    for value in (1.0, 2.0, 3.0):
        assert recorded(torch.full((3,), value, device="cuda")).tolist() == [11 * value + 1] * 3
    assert all(recorded._recordings.values())


@pytest.mark.gpu
@pytest.mark.parametrize("failing", [0, 1])
def test_a_recording_whose_branch_fails_is_given_up_whole(failing):
    """Memory can be tidied up afterwards, and other functions recorded."""

    def task(x: torch.Tensor, fails: bool) -> torch.Tensor:
        if fails and torch.cuda.is_current_stream_capturing():
            raise torch.cuda.OutOfMemoryError("while recording")
        return x + 1

    def both(x: torch.Tensor) -> torch.Tensor:
        return sum(side_by_side(x.device, *(lambda n=n: task(x, n == failing) for n in range(2))))

    recorded = Recorded(both)
    for value in (1.0, 2.0, 3.0):
        assert recorded(torch.full((3,), value, device="cuda")).tolist() == [2 * value + 2] * 3
    assert list(recorded._recordings.values()) == [False]
    free_cached(torch.device("cuda"))
    other = Recorded(lambda x: x * 5)
    for value in (1.0, 2.0, 3.0):
        assert other(torch.full((3,), value, device="cuda")).tolist() == [5 * value] * 3
    assert all(other._recordings.values())
