"""Measuring speed: the clip, the limits, the report, the command. No test asks how fast anything is."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import segic_cli.bench_speed
from segic.backbones.dinov2 import DinoV2, DinoV2Config
from segic.config import InstructionConfig, MatchingConfig, ModelConfig
from segic.decoder import Decoder
from segic.errors import SegicError, UsageError
from segic.model import SEGIC
from segic_benchmarks import speed_limits
from segic_benchmarks.masks import write_labels
from segic_benchmarks.speed_backbone import backbone_alone
from segic_benchmarks.speed_clip import given_clip, made_clip
from segic_benchmarks.speed_limits import backbone_operations, measure_limits
from segic_benchmarks.speed_memory import peak_memory
from segic_benchmarks.speed_result import SpeedReport, Spread
from segic_benchmarks.speed_run import SpeedPlan, measure_speed
from segic_cli.lazy import LazyCommand, RootGroup
from segic_cli.model_options import LoadedModel, ModelChoice
from segic_vos.quality import SIZES
from segic_vos.timings import Timings

TINY = DinoV2Config("tiny", width=32, depth=2, heads=2)
CONFIG = ModelConfig(
    backbone="tiny",
    size=56,
    canvas="frame",
    matching=MatchingConfig(topk=2, radius=2),
    residual=True,
    instructions=InstructionConfig(meta="none"),
)


def tiny(size: int | None = None) -> SEGIC:
    config = CONFIG if size is None else ModelConfig(**{**vars(CONFIG), "size": size})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = DinoV2(TINY)
        return SEGIC(config, backbone, Decoder(config, 32, 32), name="tiny")


PLAN = SpeedPlan(objects=(1, 3), frame=(48, 64), frames=4, repeat=2, batches=(2,), published=True)


@pytest.fixture(scope="module", autouse=True)
def brief_limits() -> Iterator[None]:
    """The rates themselves are tested nowhere, so they need not be good."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed_limits, "SECONDS", 0.01)
        yield


@pytest.fixture(scope="module")
def report() -> SpeedReport:
    return measure_speed(PLAN, lambda size, dtype: tiny(size))


def test_made_clip_shows_its_objects(tmp_path: Path) -> None:
    clip = made_clip(tmp_path, objects=10, frames=5, size=(96, 160))
    frames = list(clip.frames())
    assert [frame.name for frame in frames] == list(clip.names)
    assert frames[0].size == clip.size == (96, 160)
    assert clip.first.ids == tuple(range(1, 11))
    assert clip.truth is not None
    for frame, labels in zip(frames, clip.truth(), strict=True):
        assert np.unique(labels).tolist() == list(range(11))
        inside = [frame.pixels[labels == key].astype(float).mean(0) for key in (1, 2)]
        assert np.abs(inside[0] - inside[1]).max() > 5  # textures differ
    moved = list(clip.truth())
    assert (moved[0] != moved[4]).any()
    assert len(list(clip.frames(2))) == 2


@pytest.mark.parametrize(("objects", "size"), [(0, (96, 160)), (1000, (96, 160)), (2, (95, 160)), (2, (16, 16))])
def test_made_clip_refuses(tmp_path: Path, objects: int, size: tuple[int, int]) -> None:
    with pytest.raises(UsageError):
        made_clip(tmp_path, objects=objects, frames=2, size=size)


def test_a_full_disk_under_a_made_clip(tmp_path: Path, room: Callable[[int], AbstractContextManager[None]]) -> None:
    with room(2000), pytest.raises(SegicError, match=r"made_2\.mp4: cannot be written: File too large"):
        made_clip(tmp_path, objects=2, frames=30, size=(96, 160))


def test_given_clip(tmp_path: Path) -> None:
    made = made_clip(tmp_path, objects=3, frames=4, size=(48, 64))
    assert made.truth is not None
    (tmp_path / "masks").mkdir()
    for name, labels in zip(made.names, made.truth(), strict=True):
        write_labels(tmp_path / "masks" / f"{name}.png", labels)
    clip = given_clip(made.video, tmp_path / "masks", frames=3, objects=2)
    assert clip.names == made.names[:3]
    assert clip.first.ids == (1, 2)
    assert clip.truth is not None
    assert [np.unique(labels).tolist() for labels in clip.truth()] == [[0, 1, 2]] * 3
    alone = given_clip(made.video, tmp_path / "masks" / "00000.png", frames=10)
    assert (alone.count, alone.first.ids, alone.truth) == (4, (1, 2, 3), None)
    with pytest.raises(UsageError, match="holds 3"):
        given_clip(made.video, tmp_path / "masks" / "00000.png", frames=10, objects=4)


@pytest.mark.parametrize(
    "precision", [torch.float32, torch.bfloat16, pytest.param(torch.int8, marks=pytest.mark.bytes)]
)
def test_operations_of_a_backbone(precision: torch.dtype) -> None:
    """Those with packed weights among them, where a CPU multiplies bfloat16, and those of bytes."""
    model = tiny()
    if precision == torch.int8:
        assert isinstance(model.backbone, DinoV2)
        model.backbone = model.backbone.to_int8()
    else:
        model.backbone = model.backbone.to(device=torch.device("cpu"), dtype=precision)
    assert model.precision == precision
    height, width = model.canvas((48, 64)).padded
    tokens = height // 14 * (width // 14) + 1
    layer = 2 * tokens * 12 * 32**2 + 2 * 2 * tokens**2 * 32  # qkv, proj and MLP; then the attention's two products
    patches = 2 * (tokens - 1) * 3 * 14**2 * 32
    assert backbone_operations(model, (48, 64)) == 2 * layer + patches


def test_foveated_frames_are_measured_at_the_size_that_fits() -> None:
    """Another size than the whole frames of the published procedure, with fewer operations than it takes whole."""
    plan = replace(PLAN, objects=(1,), frame=(96, 160), frames=3, repeat=1, tokens=900)
    cell = measure_speed(plan, lambda size, dtype: tiny(size)).cells[0]
    canvas = cell.segic.canvas
    assert cell.published is not None
    assert cell.published.canvas[0] < canvas[0]
    whole = backbone_operations(
        tiny(next(size for size in SIZES if tiny(size).canvas((96, 160)).padded == canvas)), (96, 160)
    )
    assert cell.segic.operations < whole


def test_the_backbone_is_timed_by_itself() -> None:
    """What else was done in the stage of its name counts as masks; the sum stays."""
    model = tiny()

    def run(timed: SEGIC) -> Timings:
        start = time.perf_counter()
        encoded = timed.encode(torch.zeros(1, 3, 56, 100, dtype=torch.uint8))[0]
        time.sleep(0.05)
        assert torch.equal(encoded.features, model.encode(torch.zeros(1, 3, 56, 100, dtype=torch.uint8))[0].features)
        return Timings(backbone=time.perf_counter() - start, masks=1.0, frames=1)

    timings = backbone_alone(model, run)
    assert timings.backbone > 0
    assert timings.masks > 1.05


@pytest.mark.parametrize("products", [torch.float32, pytest.param(torch.int8, marks=pytest.mark.bytes)])
def test_limits(products: torch.dtype) -> None:
    limits = measure_limits(torch.device("cpu"), products)
    assert limits.product > 1e8
    assert limits.copy > 1e7
    assert limits.upload is None


def test_peak_memory() -> None:
    with peak_memory(torch.device("cpu")) as peak:
        np.ones(2**23)  # 64 MiB that are gone before the end
    if peak.host is None:
        pytest.skip("this system does not tell a process's peak memory")
    assert peak.host_before is not None
    assert 0.95 * 2**26 < peak.host - peak.host_before < 2**28  # the kernel counts pages in batches


def test_spread() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)


def test_every_cell_is_measured(report: SpeedReport) -> None:
    assert [result.cell.objects for result in report.cells] == [1, 3]
    for result in report.cells:
        assert result.published is not None
        assert result.comparison is not None
        assert len(result.segic.samples) == len(result.published.samples) == PLAN.repeat
        for procedure in result.procedures:
            assert all(sample.timings.frames == PLAN.frames for sample in procedure.samples)
            assert procedure.fps.low <= procedure.fps.median <= procedure.fps.high
            assert procedure.scores is not None
            assert 0 <= procedure.scores <= 1
        assert result.published.canvas[0] == result.published.canvas[1] == max(result.segic.canvas)
        assert 0 <= result.comparison.iou <= 1
        pairs = zip(result.segic.samples, result.published.samples, strict=True)
        ratios = [other.timings.wall / own.timings.wall for own, other in pairs]
        assert result.comparison.wall == Spread.of(ratios)


def command(*args: object) -> Result:
    group = RootGroup("segic", lazy={"speed": LazyCommand("bench_speed", "speed", "Speed.")})
    return CliRunner().invoke(group, ["speed", *map(str, args)])


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[ModelChoice]:
    """Models that the command asked for; it gets tiny ones."""
    choices: list[ModelChoice] = []

    def load(choice: ModelChoice) -> LoadedModel:
        choices.append(choice)
        return LoadedModel(tiny(choice.size), {})

    monkeypatch.setattr(segic_cli.bench_speed, "load", load)
    return choices


def test_command(loaded: list[ModelChoice], tmp_path: Path) -> None:
    settings = ["--clip-size", "64x48", "--frames", 3, "--repeat", 1, "--out", tmp_path / "out"]
    result = command(*settings, "--size", "56,70", "--batch", "1,2", "--objects", "2", "--against", "published")
    assert result.exit_code == 0, result.output
    assert [choice.size for choice in loaded] == [56, 70]
    assert result.stdout.count("against published") == 4
    assert "matrix product in float32" in result.stdout
    data = json.loads((tmp_path / "out/speed.json").read_text())
    assert [(cell["cell"]["size"], cell["cell"]["batch"]) for cell in data["cells"]] == [
        (56, 1), (56, 2), (70, 1), (70, 2)
    ]  # fmt: skip
    assert data["settings"]["frames"] == 3
    assert data["versions"]["torch"]
    assert data["machine"]["threads"] == torch.get_num_threads()
    assert set(data["cells"][0]["segic"]["seconds_a_frame"]) == {"decode", "backbone", "masks", "write", "whole", "cpu"}
    assert (tmp_path / "out/speed.txt").read_text().strip() in result.stdout
    picture = ET.fromstring((tmp_path / "out/speed.svg").read_text())
    bars = [rect for rect in picture.iter("{http://www.w3.org/2000/svg}rect") if rect.get("height") == "17"]
    assert len(bars) == 4 * 8  # four stages for each procedure of each cell


def test_command_on_a_given_clip(loaded: list[ModelChoice], tmp_path: Path) -> None:
    clip = made_clip(tmp_path, objects=2, frames=3, size=(48, 64))
    write_labels(tmp_path / "first.png", clip.first.labels)
    given = ["--video", clip.video, "--masks", tmp_path / "first.png", "--out", tmp_path / "out", "--repeat", 1]
    result = command(*given, "--json")
    assert result.exit_code == 0, result.output
    (cell,) = json.loads(result.stdout)["cells"]
    assert (cell["clip"], cell["frames"], cell["segic"]["scores"]) == ("made_2.mp4", 3, None)
    assert cell["published"] is None


def test_command_with_foveated_frames(loaded: list[ModelChoice], tmp_path: Path) -> None:
    settings = ["--clip-size", "160x96", "--frames", 3, "--repeat", 1, "--out", tmp_path / "out"]
    result = command(*settings, "--tokens", 900, "--objects", "1", "--json")
    assert result.exit_code == 0, result.output
    (cell,) = json.loads(result.stdout)["cells"]
    assert (cell["cell"]["objects"], cell["frames"]) == (1, 3)
    assert cell["cell"]["batch"] == 1
    assert cell["cell"]["size"] in SIZES


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--masks", "first.png"], "belong together"),
        (["--objects", "two"], "expected numbers"),
        (["--dtype", "float8"], "expected some of"),
        (["--tokens", "900", "--batch", "1,4"], "one by one"),
        (["--clip-size", "854"], "WIDTHxHEIGHT"),
        (["--clip-size", "65x47"], "even sides"),
    ],
)
def test_command_refuses(loaded: list[ModelChoice], tmp_path: Path, args: list[str], words: str) -> None:
    result = command(*args, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
