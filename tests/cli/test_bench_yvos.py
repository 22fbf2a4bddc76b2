"""`segic bench yvos18` as a user runs it."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import segic_benchmarks.follow
import segic_cli.bench_video
from segic_benchmarks.follow import Follow, stepping
from segic_benchmarks.masks import write_labels
from segic_cli.main import cli
from segic_vos.frames import Annotation, FrameResult


class Copying:
    """Answers with the first mask, always."""

    given: Annotation

    def step(self, frame_pixels: object, annotation: Annotation | None = None) -> FrameResult:
        self.given = annotation or self.given
        return FrameResult(self.given.labels, self.given.ids)


@pytest.fixture
def yvos(tmp_path: Path) -> Path:
    root = tmp_path / "yvos"
    labels = np.zeros((30, 40), np.uint8)
    labels[4:10, 2:8] = 1
    for frame in ("00000", "00005", "00010"):
        for kind in ("Annotations", "JPEGImages"):
            (root / "valid" / kind / "dog").mkdir(parents=True, exist_ok=True)
            write_labels(root / "valid" / kind / "dog" / f"{frame}.png", labels)
    return root


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def following(model: object, **_: object) -> Follow:
        return stepping(Copying)

    monkeypatch.setattr(segic_cli.bench_video, "load_model", lambda **options: (None, {"model": {"name": "fake"}}))
    monkeypatch.setattr(segic_benchmarks.follow, "following", following)


def bench(*args: object) -> Result:
    return CliRunner().invoke(cli, ["bench", *map(str, args)])


def test_run_gives_a_submission_and_a_score(yvos: Path, tmp_path: Path) -> None:
    result = bench("yvos18", "--data", yvos, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["value"] == 1.0
    assert "submission.zip" in result.stderr
    scored = bench("yvos19", "--data", yvos, "--results", tmp_path / "out/Annotations", "-q")
    assert scored.stdout == "yvos19 G 100.0\n"


def test_first_masks_alone_are_no_score(yvos: Path, tmp_path: Path) -> None:
    for frame in ("00005", "00010"):
        (yvos / f"valid/Annotations/dog/{frame}.png").unlink()
    result = bench("yvos18", "--data", yvos, "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert (tmp_path / "out/submission.zip").is_file()
    assert result.stdout == ""
    assert "no score here" in result.stderr
