"""Where a model runs: what "auto" means, and what a machine without the device says."""

import os
import platform
from functools import partial
from pathlib import Path

import pytest
import torch

from segic import devices
from segic.devices import DTYPES, choose_device, choose_dtype, choose_products
from segic.errors import UsageError


@pytest.fixture
def machine(monkeypatch):
    """machine(cuda=1): a machine with so many GPUs, and with MPS or without."""

    def pretend(cuda=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(("cuda", "mps", "found"), [(1, True, "cuda"), (0, True, "mps"), (0, False, "cpu")])
def test_auto_takes_the_fastest_there_is(machine, cuda, mps, found):
    machine(cuda, mps)
    assert choose_device().type == found


def test_devices_by_name(machine):
    machine(cuda=2, mps=True)
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        assert str(choose_device(name)) == name


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:x", "cpu:0", "", "mps:1"])
def test_names_that_are_no_device(machine, name):
    machine(cuda=2, mps=True)
    with pytest.raises(UsageError, match="expected one of auto, cpu, cuda, mps"):
        choose_device(name)


@pytest.mark.parametrize(
    ("name", "said"), [("cuda", "no CUDA device"), ("cuda:0", "no CUDA device"), ("mps", "no MPS")]
)
def test_a_machine_without_it(machine, name, said):
    machine()
    with pytest.raises(UsageError, match=f"{said}.*--device cpu"):
        choose_device(name)


def test_a_gpu_that_is_not_there(machine):
    machine(cuda=2)
    with pytest.raises(UsageError, match=r"'cuda:2': there are 2 CUDA devices"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", DTYPES)
def test_a_named_precision_is_taken(name):
    assert choose_dtype(name, torch.device("cpu")) == getattr(torch, name)


def test_an_unknown_precision():
    with pytest.raises(UsageError, match=r"'int8': expected one of auto, float32"):
        choose_dtype("int8", torch.device("cpu"))


def test_auto_precision_follows_the_hardware(monkeypatch):
    for bf16 in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda bf16=bf16, **_: bf16)
        assert choose_dtype("auto", torch.device("cuda")) == (torch.bfloat16 if bf16 else torch.float16)
        for feature in ("avx512_bf16", "amx_tile"):
            monkeypatch.setattr(torch.cpu, f"_is_{feature}_supported", lambda bf16=bf16: bf16, raising=False)
        assert choose_dtype("auto", torch.device("cpu")) == (torch.bfloat16 if bf16 else torch.float32)
    assert choose_dtype("auto", torch.device("mps")) == torch.float16


@pytest.mark.parametrize(
    ("features", "vectors", "bytes_", "expected"),
    [
        (["avx512_bf16", "amx_tile"], "AVX512", 127, torch.bfloat16),
        (["avx512_bf16"], "AVX512", 127, torch.int8),
        (["avx512_bf16"], "AVX512", None, torch.bfloat16),  # a torch that has no such products
        ([], "AVX512", 127, torch.int8),
        ([], "AVX2", 64, torch.int8),
        ([], "AVX2", None, torch.float32),
        ([], "DEFAULT", 127, torch.float32),  # where they were not measured
    ],
)
def test_products_of_bytes_where_they_are_the_fastest(monkeypatch, features, vectors, bytes_, expected):
    monkeypatch.setattr(devices, "cpu_has", lambda feature: feature in features)
    monkeypatch.setattr(devices, "largest_weight", lambda: bytes_)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: vectors)
    choose = partial(choose_products, int8=True)
    assert choose("auto", torch.device("cpu")) == expected
    if bytes_ is not None:
        assert choose("int8", torch.device("cpu")) == torch.int8
    assert choose("float32", torch.device("cpu")) == torch.float32
    assert choose("auto", torch.device("mps")) == torch.float16
    unmeasured = torch.bfloat16 if features else torch.float32
    assert choose_products("auto", torch.device("cpu"), int8=False) == unmeasured


def test_products_of_bytes_are_for_cpus():
    with pytest.raises(UsageError, match=r"dtype 'int8': it is for CPUs, and the device is cuda:1"):
        choose_products("int8", torch.device("cuda:1"), int8=True)


def test_a_torch_without_products_of_bytes(monkeypatch):
    monkeypatch.setattr(devices, "largest_weight", lambda: None)
    with pytest.raises(UsageError, match="this version of torch has no products of bytes for this CPU; give auto"):
        choose_products("int8", torch.device("cpu"), int8=True)


def test_products_of_another_kind():
    with pytest.raises(UsageError, match=r"'int4': expected one of auto, float32, bfloat16, float16, int8"):
        choose_products("int4", torch.device("cpu"), int8=True)


def test_a_torch_that_cannot_tell_its_cpu(monkeypatch):
    for feature in ("avx512_bf16", "amx_tile"):
        monkeypatch.delattr(torch.cpu, f"_is_{feature}_supported", raising=False)
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32


def test_what_is_known_of_the_machine(monkeypatch):
    assert 1 <= devices.usable_cores() <= os.cpu_count()
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert devices.usable_cores() == os.cpu_count()
    assert devices.peak_host_memory() > 10_000_000
    named = "processor\t: 0\nmodel name\t: A Fine CPU @ 3 GHz\nprocessor\t: 1\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: named)
    assert devices.processor_name() == "A Fine CPU @ 3 GHz"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "Hardware: none\n")
    assert devices.processor_name() == platform.processor()
