"""From a run to one file, and its card."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segic.decoder import Decoder
from segic.errors import SegicError, UsageError
from segic.loading import load_decoder
from segic.presets import PRESETS
from segic.training.card import export_run
from segic.training.export import export_decoder
from segic.training.run_folder import RunFolder, load_checkpoint
from segic.weights.tensors import read_header

Fit = Callable[..., RunFolder]


@pytest.mark.usefixtures("folder_data")
def test_a_run_becomes_a_file_that_loads(fit: Fit, tmp_path: Path) -> None:
    held_out = {"folder": {"kind": "instance", "layout": "folder", "path": "."}}
    run = fit(validation={"every": 2, "samples": 2, "sets": held_out})
    out = tmp_path / "mine.safetensors"
    card = export_run(run.path, out).read_text()
    decoder, config = load_decoder(out, PRESETS["segic-l-80k"].config)  # the file's own configuration counts
    assert config.backbone == "dinov2-tiny"
    best = load_checkpoint(run.best)
    for key, value in decoder.state_dict().items():
        assert torch.allclose(value, best["average"][key], atol=2e-3)
    _, metadata = read_header(out)
    assert metadata["format"] == "segic"
    assert metadata["preset"] == "segic-s"
    assert f"| Steps | {best['step']} of 4, batches of 2 (best.pt) |" in card
    for text in ("Seed | 0", "(this file)", "instance pairs from ."):
        assert text in card
    for heading in ("## Data", "## Results", "## Known failures", "## Recipe", "Licence"):
        assert heading in card
    with pytest.raises(UsageError, match="--overwrite"):
        export_run(run.path, out)
    first = hashlib.sha256(out.read_bytes()).hexdigest()
    export_run(run.path, out, overwrite=True)
    assert hashlib.sha256(out.read_bytes()).hexdigest() == first


@pytest.mark.usefixtures("folder_data")
def test_without_validation_the_newest_checkpoint_is_taken(fit: Fit, tmp_path: Path) -> None:
    run = fit()
    export_run(run.path, tmp_path / "mine.safetensors")
    card = (tmp_path / "mine.md").read_text()
    assert "step-00000004.pt" in card
    assert "No validation was made." in card


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a training run"):
        export_run(tmp_path, tmp_path / "x.safetensors")


def test_weights_that_half_precision_cannot_hold(tmp_path: Path) -> None:
    config = PRESETS["segic-s"].config
    state = Decoder(config, 32, 32).state_dict()
    state["neck.0.weight"] = state["neck.0.weight"] + 1e6
    with pytest.raises(SegicError, match=r"neck\.0\.weight is not finite in half precision"):
        export_decoder(state, config, tmp_path / "x.safetensors", {})
    with pytest.raises(UsageError, match=r"ends in \.safetensors"):
        export_decoder(state, config, tmp_path / "x.pth", {})
    assert not list(tmp_path.iterdir())
