"""Results that are read later than they are asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segic_vos.frames import FrameResult
from segic_vos.pending import Fetched, Pending


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_tensors_arrive_in_order(device: str) -> None:
    labels = torch.arange(6, dtype=torch.int32, device=device).view(2, 3)
    found, nothing, scores = Fetched(labels, None, torch.ones(2, device=device)).arrays()
    assert nothing is None
    assert found is not None
    assert found.dtype == np.int32
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert scores is not None
    assert scores.tolist() == [1, 1]


def test_a_result_is_made_when_it_is_read() -> None:
    made = []

    def finish(arrays: object) -> FrameResult:
        made.append(arrays)
        return FrameResult(np.zeros((2, 2), np.int32), ())

    pending = Pending(Fetched(torch.ones(1)), finish)
    assert pending.ready
    assert made == []
    assert pending.result().ids == ()
    assert len(made) == 1


def test_a_known_result_is_the_result() -> None:
    result = FrameResult(np.zeros((2, 2), np.int32), (4,))
    assert Pending.known(result).ready
    assert Pending.known(result).result() is result


@pytest.mark.gpu
def test_tensors_that_are_on_their_way_are_waited_for() -> None:
    big = torch.ones(4096, 4096, device="cuda")
    for _ in range(30):
        big = big @ big / 4096
    fetched = Fetched(big[:1024])
    assert not fetched.ready
    (found,) = fetched.arrays()
    assert found is not None
    assert found.min() == found.max() == 1
    assert fetched.ready
    (large,) = Fetched(big).arrays()
    assert large is not None
    assert large.min() == large.max() == 1
