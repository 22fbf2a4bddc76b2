"""What the benchmark commands share."""

from types import SimpleNamespace

import pytest
import torch

import segic_benchmarks.models
import segic_cli.model_options
from segic.devices import usable_cores
from segic_benchmarks.shards import Shard
from segic_cli.bench_options import load_model, shard_of
from segic_cli.model_options import ModelChoice


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the last of four processes on two hosts."""
    for name, value in {"RANK": 3, "WORLD_SIZE": 4, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.usefixtures("torchrun")
def test_torchrun_decides_the_part_where_no_shard_is_given() -> None:
    assert shard_of(None) == Shard(3, 4)
    assert shard_of("0/2") == Shard(0, 2)


@pytest.mark.usefixtures("torchrun")
def test_each_process_of_torchrun_takes_its_gpu_and_its_part_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ModelChoice] = []

    def load(choice: ModelChoice) -> SimpleNamespace:
        asked.append(choice)
        return SimpleNamespace(model=None)

    threads: list[int] = []
    monkeypatch.setattr(segic_cli.model_options, "load", load)
    monkeypatch.setattr(segic_benchmarks.models, "model_settings", lambda model: {})
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    names = dict.fromkeys(("weights", "backbone_weights", "size"))
    for device in ("auto", "cpu"):
        load_model(model="segic-s", device=device, dtype="auto", **names)
    assert [choice.device for choice in asked] == ["cuda:1", "cpu"]
    assert threads == [max(1, usable_cores() // 2)] * 2
