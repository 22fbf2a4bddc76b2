"""`segic bench davis16|davis17` as a user runs it."""

import json
import shutil
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
def davis(tmp_path: Path) -> Path:
    root = tmp_path / "DAVIS"
    for name in ("still", "moving"):
        masks, frames = root / "Annotations/480p" / name, root / "JPEGImages/480p" / name
        masks.mkdir(parents=True)
        frames.mkdir(parents=True)
        for frame in range(4):
            labels = np.zeros((30, 40), np.uint8)
            shift = 6 * frame if name == "moving" else 0
            labels[4:10, 2 + shift : 8 + shift] = 1
            write_labels(masks / f"{frame:05d}.png", labels)
            write_labels(frames / f"{frame:05d}.png", labels)
    return root


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def following(model: object, **_: object) -> Follow:
        return stepping(Copying)

    description = {"model": {"name": "fake", "weights": {"decoder": {"sha256": "ab" * 32}}}}
    monkeypatch.setattr(segic_cli.bench_video, "load_model", lambda **options: (None, description))
    monkeypatch.setattr(segic_benchmarks.follow, "following", following)


def bench(*args: object) -> Result:
    return CliRunner().invoke(cli, ["bench", *map(str, args)])


def test_run_writes_masks_and_the_result(davis: Path, tmp_path: Path) -> None:
    result = bench("davis17", "--data", davis, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    # "still" is right everywhere; the square of "moving" is 6 pixels on in frame 1, so J is 0 and so is F's recall.
    assert "davis17, all: J&F" in result.stdout
    data = json.loads((tmp_path / "out/result.json").read_text())
    assert data["rows"]["still"]["J&F"] == 1.0
    assert data["rows"]["moving"]["J mean"] == 0.0
    assert data["settings"]["model"]["weights"]["decoder"]["sha256"] == "ab" * 32
    assert len(list((tmp_path / "out/masks/moving").iterdir())) == 4


def test_the_saved_masks_score_the_same(davis: Path, tmp_path: Path) -> None:
    run = bench("davis16", "--data", davis, "--out", tmp_path / "out", "--json")
    masks, again = tmp_path / "out/masks", tmp_path / "again"
    scored = bench("davis16", "--data", davis, "--results", masks, "--out", again, "--json")
    assert scored.exit_code == 0, scored.output
    first, second = json.loads(run.stdout), json.loads(scored.stdout)
    assert (first["figures"], first["rows"]) == (second["figures"], second["rows"])
    assert json.loads((again / "result.json").read_text()) == second


def test_scores_of_saved_masks_do_not_replace_a_models_result(davis: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert bench("davis17", "--data", davis, "--out", out).exit_code == 0
    before = (out / "result.json").read_bytes()
    refused = bench("davis17", "--data", davis, "--results", out / "masks", "--out", out)
    assert refused.exit_code == 2
    assert "holds a model's run" in refused.stderr
    assert (out / "result.json").read_bytes() == before


def test_scores_of_saved_masks_are_written_where_asked_for_alone(
    davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    scored = bench("davis17", "--data", davis, "--results", davis / "Annotations/480p", "-q")
    assert scored.stdout == "davis17 J&F 100.0\n", scored.output
    assert not list((tmp_path / "here").iterdir())
    assert "with --results nothing is written" in " ".join(bench("davis17", "--help").output.split())


@pytest.mark.parametrize(
    "option",
    [
        ("--quality", "fast"),
        ("--size", "476"),
        ("--fovea",),
        ("--no-fovea",),
        ("--model", "segic-s"),
        ("--device", "auto"),
    ],
)
def test_what_chooses_a_model_is_refused_where_none_runs(davis: Path, option: tuple[str, ...]) -> None:
    refused = bench("davis17", "--data", davis, "--results", davis / "Annotations/480p", *option)
    assert refused.exit_code == 2
    assert option[0] in refused.stderr
    assert "--results runs none" in refused.stderr


def test_shards(davis: Path, tmp_path: Path) -> None:
    first = bench("davis17", "--data", davis, "--out", tmp_path / "out", "--shard", "0/2", "-q")
    assert first.exit_code == 0
    assert first.stdout == ""
    assert "part 0/2 is done and others are not" in first.stderr
    second = bench("davis17", "--data", davis, "--out", tmp_path / "out", "--shard", "1/2", "-q")
    assert second.stdout.startswith("davis17 J&F ")


def test_torchrun_ranks_are_shards(davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        result = bench("davis17", "--data", davis, "--out", tmp_path / "out", "-q")
        assert result.exit_code == 0
    assert sorted(p.name for p in (tmp_path / "out/masks").iterdir()) == ["moving", "still"]
    assert result.stdout.startswith("davis17 J&F")


def test_half_of_torchruns_environment_is_no_part(davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = bench("davis17", "--data", davis, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "expected the numbers that torchrun sets" in result.stderr
    assert not (tmp_path / "out").exists()


def test_sequences(davis: Path, tmp_path: Path) -> None:
    result = bench("davis17", "--data", davis, "--out", tmp_path / "out", "--sequences", "still", "-q")
    assert result.stdout == "davis17 J&F 100.0\n"


def test_errors_are_one_line_with_status_2(davis: Path, tmp_path: Path) -> None:
    shutil.copytree(davis / "Annotations/480p", tmp_path / "results")
    (tmp_path / "results/moving/00001.png").unlink()
    result = bench("davis17", "--data", davis, "--results", tmp_path / "results")
    assert result.exit_code == 2
    assert "moving/00001.png is missing" in result.stderr
    assert "Traceback" not in result.stderr
    assert bench("davis17", "--data", davis, "--results", tmp_path / "results", "--shard", "0/2").exit_code == 2
    assert bench("davis17", "--data", tmp_path / "nowhere", "--results", tmp_path).exit_code == 2
    assert bench("davis17", "--data", davis, "--shard", "2/2").exit_code == 2
