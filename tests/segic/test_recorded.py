"""Functions recorded for a GPU; how their arguments are told apart needs none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from segic.recorded import KEPT, Recorded, filled, tensors_of
from segic.recorded import form as form_and_tensors


@dataclass(frozen=True, eq=False)
class Pair:
    one: Tensor
    name: str
    other: Tensor | None = None


def pair(value: float, size: int = 3, name: str = "a") -> Pair:
    return Pair(torch.full((size,), value), name)


def form(value: object) -> object:
    return form_and_tensors(value, [])


def test_tensors_are_found_in_order_and_replaced():
    value = (pair(1), 7, (Pair(torch.zeros(1), "b", torch.ones(2)),), None)
    found = tensors_of(value)
    assert [len(t) for t in found] == [3, 1, 2]
    new = filled(value, iter([t + 5 for t in found]))
    assert [t.tolist() for t in tensors_of(new)] == [[6] * 3, [5], [6] * 2]
    assert (new[0].name, new[1], new[3]) == ("a", 7, None)
    assert value[0].one.tolist() == [1] * 3


def test_the_form_is_all_but_the_numbers():
    assert form((pair(1), 4)) == form((pair(2), 4))
    assert hash(form((pair(1), 4))) == hash(form((pair(2), 4)))
    others = [(pair(1), 5), (pair(1, 4), 4), (pair(1, name="b"), 4), (Pair(torch.ones(3), "a", torch.ones(3)), 4)]
    assert len({form(other) for other in [(pair(1), 4), *others]}) == 5
    assert form(torch.ones(2)) != form(torch.ones(2).double())


@pytest.mark.gpu
def test_a_recording_is_replayed_with_new_arguments():
    calls = []

    def double(x: Pair, times: int) -> tuple[Tensor, Pair]:
        calls.append(times)
        return x.one * times, x

    recorded = Recorded(double)
    results = []
    for value in (1.0, 2.0, 3.0):
        argument = Pair(torch.full((4,), value, device="cuda"), "a")
        product, same = recorded(argument, 2)
        assert same.one is argument.one
        results.append(product)
    assert [t.tolist() for t in results] == [[2.0] * 4, [4.0] * 4, [6.0] * 4]
    once = len(calls)
    recorded(Pair(torch.zeros(4, device="cuda"), "a"), 2)
    assert len(calls) == once
    recorded(Pair(torch.zeros(4, device="cuda"), "a"), 3)
    assert len(calls) == once + 1


@pytest.mark.gpu
def test_what_cannot_be_recorded_is_run():
    recorded = Recorded(lambda x: x * x.sum().item())
    for value in (1.0, 2.0, 3.0):
        assert recorded(torch.full((2,), value, device="cuda")).tolist() == [2 * value**2] * 2
    assert list(recorded._recordings.values()) == [False]


@pytest.mark.gpu
def test_only_the_last_few_forms_are_kept():
    recorded = Recorded(lambda x: x + 1)
    for size in range(1, KEPT + 3):
        for _ in range(3):
            assert recorded(torch.zeros(size, device="cuda")).tolist() == [1] * size
    assert len(recorded._recordings) == KEPT


class FakeGraph:
    """Records calls of functions that `note` wraps, and runs them again, writing to where they wrote."""

    recording: FakeGraph | None = None

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[[], Tensor], Tensor]] = []

    def capture_begin(self, **_: object) -> None:
        FakeGraph.recording = self

    def capture_end(self) -> None:
        FakeGraph.recording = None

    def replay(self) -> None:
        for call, written in self.calls:
            written.copy_(call())


def note(call: Callable[[], Tensor]) -> Tensor:
    out = call()
    if FakeGraph.recording is not None:
        FakeGraph.recording.calls.append((call, out))
    return out


class FakeStream:
    def __init__(self, priority: int = 0) -> None:
        self.priority = priority

    def wait_stream(self, other: FakeStream) -> None:
        pass


@pytest.fixture
def fake_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "current_stream", FakeStream)
    for name in ("stream", "device"):
        monkeypatch.setattr(torch.cuda, name, lambda _: nullcontext())
    monkeypatch.setattr(Tensor, "record_stream", lambda *_: None)


def test_every_call_has_its_own_result(fake_gpu):
    """The first, which is not recorded, the second, which is, and those that are replayed, with what changes and what
    does not.
    """
    runs = []

    def scaled(x: Pair, factor: Tensor) -> tuple[Pair, Tensor]:
        runs.append(x.name)
        return Pair(x.one, x.name, note(lambda: x.one * factor)), note(lambda: x.one + factor)

    recorded = Recorded(scaled)
    factor, results = torch.tensor(3.0), []
    for value in range(5):
        x = pair(float(value))
        product, total = recorded(x, factor)
        assert product.one is x.one
        results.append((product.other, total))
    assert [(p.tolist(), t.tolist()) for p, t in results] == [([3.0 * v] * 3, [v + 3.0] * 3) for v in range(5)]
    assert len(runs) == 3  # the first call, the second, and the recording
    changed, _ = recorded(pair(1.0), torch.tensor(7.0))
    assert changed.other.tolist() == [7.0] * 3


def test_a_recording_that_fails_leaves_the_function(fake_gpu):
    def wary(x: Tensor) -> Tensor:
        if FakeGraph.recording is not None:
            raise RuntimeError("not while recording")
        return x + 1

    recorded = Recorded(wary)
    assert [recorded(torch.tensor(v)).item() for v in (1, 2, 3)] == [2, 3, 4]
