"""`segic train` and `segic models export`."""

from __future__ import annotations

import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from segic.signals import ENDING
from segic_cli.main import cli

TINY = [
    "model.backbone=dinov2-tiny", "model.layers=[2]", "model.detail=0", "schedule.steps=2", "schedule.warmup=0",
    "validation.every=2", "validation.samples=1", "precision=float32",
]  # fmt: skip


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in args])


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backbone that is not fetched."""
    from segic.backbones import dinov2
    from segic.training import session

    config = dinov2.DinoV2Config("dinov2-tiny", 32, 2, 2)
    monkeypatch.setitem(dinov2.CONFIGS, "dinov2-tiny", config)  # type: ignore[arg-type]

    def opener(_weights: Path | None) -> session.OpenBackbone:
        torch.manual_seed(0)
        backbone = dinov2.DinoV2(config)
        for parameter in backbone.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        return lambda _config: backbone

    monkeypatch.setattr(session, "_opener", opener)
    monkeypatch.setattr(session.BackboneFile, "kept", lambda _name: None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(3):
        picture = np.random.default_rng(number).integers(80, 120, (60, 80, 3)).astype(np.uint8)
        labels = np.zeros((60, 80), np.uint8)
        picture[10:50, 20:60], labels[10:50, 20:60] = (30, 30, 220), 1
        cv2.imwrite(str(root / "images" / f"{number}.png"), picture)
        cv2.imwrite(str(root / "masks" / f"{number}.png"), labels)
    return root


def davis(root: Path) -> Path:
    """Four frames of a moving square."""
    for kind in ("JPEGImages", "Annotations"):
        (root / kind / "480p" / "square").mkdir(parents=True)
    for number in range(4):
        picture = np.full((60, 80, 3), 100, np.uint8)
        mask = np.zeros((60, 80), np.uint8)
        picture[10:50, 10 + 5 * number : 50 + 5 * number] = (30, 30, 220)
        mask[10:50, 10 + 5 * number : 50 + 5 * number] = 255
        cv2.imwrite(str(root / "JPEGImages/480p/square" / f"{number:05d}.jpg"), picture)
        cv2.imwrite(str(root / "Annotations/480p/square" / f"{number:05d}.png"), mask)
    return root


@pytest.mark.usefixtures("tiny")
def test_train_resume_and_export(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "run"
    sets = [part for value in TINY for part in ("--set", value)]
    videos = davis(tmp_path / "davis")
    result = run("train", "--recipe", "tiny", "--data", data, "--out", out, "--davis", videos, "--device", "cpu", *sets)
    assert result.exit_code == 0, result.output
    assert "video/square" in (out / "log.jsonl").read_text()
    assert list((out / "predictions").glob("*.png"))
    again = run("train", "--data", data, "--out", out, "--resume", "--device", "cpu")
    assert again.exit_code == 0, again.output
    other = run("train", "--recipe", "tiny", "--data", data, "--out", out, "--resume", "--device", "cpu")
    assert other.exit_code == 2
    assert "schedule.steps: 2 -> 20" in other.output
    file = tmp_path / "mine.safetensors"
    result = run("models", "export", out, "-o", file)
    assert result.exit_code == 0, result.output
    assert "video/square" in file.with_suffix(".md").read_text()
    assert run("models", "export", out, "-o", file).exit_code == 2


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("sent", [signal.SIGINT, *ENDING])
def test_an_interrupted_run_says_how_it_goes_on(
    sent: signal.Signals, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segic.training import loop

    real = loop.Trainer._step

    def step(self: loop.Trainer, number: int, drawn: list[loop.Drawn]) -> loop.StepReport:
        if number == 0:
            signal.raise_signal(sent)
        return real(self, number, drawn)

    monkeypatch.setattr(loop.Trainer, "_step", step)
    out = tmp_path / "run"
    sets = [part for value in TINY for part in ("--set", value)]
    given = ["--recipe", "tiny", "--data", data, "--out", out, "--device", "cpu", *sets]
    stopped = run("train", *given)
    assert stopped.exit_code == 130, stopped.output
    saved = out / "checkpoints" / "step-00000001.pt"
    assert "note: stopping after this step" in stopped.output
    last = f"stopped after step 1: {saved}; the same command with --resume goes on from there\n"
    assert stopped.output.endswith(last)
    assert "Error" not in stopped.output
    assert run("train", *given, "--resume").exit_code == 0
    other = ["--recipe", "tiny", "--data", data, "--out", tmp_path / "other", "--device", "cpu", *sets]
    assert "with --resume, but without --init, goes on" in run("train", *other, "--init", saved).output


def test_recipes_are_listed_and_printed(tmp_path: Path) -> None:
    listed = run("train", "--list").output
    assert [line.split()[0] for line in listed.splitlines()] == ["paper-b-ablation", "paper-l", "segic-s", "tiny"]
    printed = run("train", "--recipe", "paper-l", "--print-recipe").output
    assert "[data.sets.lvis]" in printed
    copy = tmp_path / "my.toml"
    copy.write_text(printed)
    result = run("train", "--recipe", copy, "--data", tmp_path, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "data set coco-semantic: the folder" in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--recipe", "papr-l"], "did you mean paper-l"),
        (["--recipe", "tiny", "--set", "optimizer.lrr=1"], "unknown key optimizer.lrr; did you mean lr?"),
        (["--recipe", "tiny", "--set", "batch=many"], "batch is 'many'"),
        ([], "Missing option '--recipe'"),
        (["--resume"], "is not a training run"),
        (["--resume", "--set", "batch=3"], "leave out either"),
        (["--recipe", "tiny", "--print-recipe", "--set", "batch=3"], "prints the file, to be changed by hand"),
        (["--recipe", "tiny", "--davis", "nowhere"], "no such folder"),
    ],
)
def test_bad_requests_say_what_is_wrong(args: list[str], message: str, tmp_path: Path, data: Path) -> None:
    result = run("train", "--data", data, "--out", tmp_path / "run", *args)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
