"""`--max-memory`: from bytes to a batch, and what counts as memory that ran out."""

from __future__ import annotations

import platform

import numpy as np
import pytest
import torch

from segic.errors import UsageError
from segic.presets import PRESETS
from segic_vos.batches import BatchLimit, is_out_of_memory
from segic_vos.memory import Workload, choose_batch, parse_bytes, show_bytes, used_memory

CPU = torch.device("cpu")
CONFIG = PRESETS["segic-s"].config


def work(frame=(480, 854), canvas=(476, 840), objects=1, precision=torch.float32):
    return Workload(CONFIG, precision, canvas, frame, objects)


@pytest.fixture
def used(monkeypatch):
    monkeypatch.setattr("segic_vos.memory.used_memory", lambda _device: 400e6)


def test_the_batch_grows_with_the_memory_up_to_what_helps(used):
    batches = [choose_batch(work(), CPU, int(gigabytes * 1e9)) for gigabytes in (0.8, 1.0, 2.0, 100.0)]
    assert batches == sorted(batches)
    assert (batches[0], batches[-1]) == (1, 4)
    assert batches[1] > 1


def test_larger_pictures_and_more_objects_take_more(used):
    cases = [work(precision=torch.bfloat16), work(), work(canvas=(672, 1190)), work((2160, 3840), (672, 1190))]
    needs = [each.fixed_bytes(CPU) + each.bytes_a_frame(CPU) for each in [*cases, work((2160, 3840), (672, 1190), 9)]]
    assert needs == sorted(needs)
    assert len(set(needs)) == len(needs)


def test_beside_products_of_bytes_all_else_may_be_float32():
    assert work(precision=torch.int8).bytes_a_frame(CPU) == work().bytes_a_frame(CPU)


def test_one_frame_that_does_not_fit_is_refused(used):
    with pytest.raises(
        UsageError, match=r"--max-memory 500 MB: .* need \d+ MB, 400 MB .* 1 object in 854x480 .*--quality"
    ):
        choose_batch(work(), CPU, 500_000_000)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked for what it keeps")
def test_what_earlier_work_has_left_behind_is_no_part_of_it():
    """Freed blocks between others that are still there stay with the allocator, which would use them again."""
    blocks = [torch.ones(64 * 1024, dtype=torch.uint8) for _ in range(3000)]
    held = used_memory(CPU)
    del blocks[:-1]
    assert used_memory(CPU) < held - 150e6
    assert len(blocks[0]) == 64 * 1024


def test_what_was_held_before_the_first_clip_counts(used):
    """What earlier clips have set up by now is expected of every clip, and not twice."""
    assert choose_batch(work(), CPU, 800_000_000, held=400e6) == choose_batch(work(), CPU, 800_000_000)
    assert choose_batch(work(), CPU, 800_000_000, held=100e6) > choose_batch(work(), CPU, 800_000_000)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2G", 2 * 10**9),
        ("2gb", 2 * 10**9),
        ("800M", 8 * 10**8),
        ("1.5GiB", 3 * 2**29),
        ("512 MiB", 2**29),
        ("4k", 4000),
        ("123456789", 123456789),
    ],
)
def test_sizes(text, value):
    assert parse_bytes(text) == value


@pytest.mark.parametrize("text", ["", "much", "2T", "-1G", "G", "0", "0.1", "1,5G", "i", "3i"])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match="--max-memory"):
        parse_bytes(text)


def test_errors_of_the_real_allocators_are_known():
    for allocate in (lambda: torch.empty(2**55), lambda: np.empty(2**55), lambda: bytearray(2**60)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate()
        assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("could not create a primitive"))
    assert not is_out_of_memory(RuntimeError("could not create a primitive descriptor for a matmul primitive"))
    assert not is_out_of_memory(RuntimeError("no such kernel"))
    assert not is_out_of_memory(OSError("out of memory"))
    assert not is_out_of_memory(None)


def test_a_batch_is_halved_down_to_one():
    notes = []
    limit = BatchLimit(8, notes.append)
    assert [limit.halve(8), limit.halve(8), limit.halve(4), limit.halve(2), limit.halve(1)] == [True] * 4 + [False]
    assert limit.frames == 1
    assert len(notes) == 3  # two frames' worth of threads that met it together say so once


def test_bytes_for_people():
    values = (1, 999, 12_345, 640_000_000, 1_900_000_000)
    assert [show_bytes(value) for value in values] == ["1 bytes", "999 bytes", "12 kB", "640 MB", "1.9 GB"]
