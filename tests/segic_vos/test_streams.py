"""Threads that share a GPU; without one they do nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from segic_vos.batches import BatchLimit
from segic_vos.streams import RecordedEncoder, awaited, on_own_stream, taking_turns


class Halver:
    """Encodes an image as half of it."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)

    def encode(self, images: torch.Tensor, /) -> list[torch.Tensor]:
        return list((images.to(self.device).float() / 2).unbind())


def test_on_a_cpu_items_pass_as_they_are():
    items = [object(), object()]
    assert list(awaited(on_own_stream(items, torch.device("cpu")), torch.device("cpu"))) == items


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_turns_are_short_for_a_gpu_only_and_only_meanwhile(device):
    before = sys.getswitchinterval()

    def fail() -> None:
        with taking_turns(torch.device(device)):
            assert (sys.getswitchinterval() < before) == (device == "cuda")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert sys.getswitchinterval() == before


@pytest.mark.gpu
def test_what_another_stream_makes_is_there_when_it_is_used():
    device = torch.device("cuda")

    def made():
        for number in range(20):
            big = torch.full((4096, 4096), float(number), device=device)
            yield (big @ torch.eye(4096, device=device)).sum()

    for number, total in enumerate(awaited(on_own_stream(made(), device), device)):
        assert total.item() == number * 4096**2


@pytest.mark.gpu
def test_a_recorded_encoder_is_the_model():
    model = Halver("cuda")
    encoder = RecordedEncoder(model, BatchLimit(3))
    for seed, count in enumerate((3, 3, 3, 2)):
        images = torch.randint(
            0, 256, (count, 8, 10, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
        )
        batch = images.permute(0, 3, 1, 2)
        for found, expected in zip(encoder.encode(batch), model.encode(batch), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.gpu
def test_a_recorded_encoder_fills_up_what_is_left_but_never_beyond_what_fits():
    sizes = []

    class Counting(Halver):
        def encode(self, images: torch.Tensor, /) -> list[torch.Tensor]:
            sizes.append(len(images))
            return super().encode(images)

    limit = BatchLimit(4)
    encoder = RecordedEncoder(Counting("cuda"), limit)
    for count in (4, 3, 1):
        assert len(encoder.encode(torch.zeros(count, 3, 8, 10, dtype=torch.uint8))) == count
    assert set(sizes) == {4}
    limit.halve(4)
    assert len(encoder.encode(torch.zeros(1, 3, 8, 10, dtype=torch.uint8))) == 1
    assert sizes[-1] == 2


@pytest.mark.parametrize("left", [1, 3])
def test_what_is_left_is_not_filled_up_where_that_runs_out_of_memory(monkeypatch, left):
    """Its frames are then fewer than those that did not fit: it cannot be halved by them."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr("segic_vos.streams.Recorded", Unrecorded)
    sizes = []

    class Short(Halver):
        def encode(self, images: torch.Tensor, /) -> list[torch.Tensor]:
            sizes.append(len(images))
            if len(images) > left and len(sizes) > 1:
                raise torch.cuda.OutOfMemoryError("out of memory")
            return super().encode(images)

    notes: list[str] = []
    encoder = RecordedEncoder(Short("cpu"), BatchLimit(8, notes.append))
    assert len(encoder.encode(torch.zeros(8, 3, 8, 10, dtype=torch.uint8))) == 8
    assert len(encoder.encode(torch.full((left, 3, 8, 10), 6, dtype=torch.uint8))) == left
    assert sizes == [8, 8, left]
    with pytest.raises(torch.cuda.OutOfMemoryError):
        encoder.encode(torch.zeros(left + 1, 3, 8, 10, dtype=torch.uint8))
    assert not notes


class Unrecorded:
    """Stands for a recording on a machine without a GPU."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def forget(self) -> None:
        pass
