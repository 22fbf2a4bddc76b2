"""From a run to one file, and its card."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from segic.decoder import Decoder
from segic.errors import SegicError, UsageError
from segic.images import Example, prepare_examples
from segic.loading import load_decoder
from segic.model import SEGIC
from segic.presets import PRESETS
from segic.training.card import export_run
from segic.training.export import export_decoder
from segic.training.run_folder import RunFolder, load_checkpoint
from segic.training.session import Hooks, OpenBackbone
from segic.weights.tensors import read_header
from segic_vos.prompts import video_meta

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
    assert "licence" not in metadata  # the user's to choose
    assert "MIT" not in card
    assert re.search(r"\| Time \| \d+\.\d seconds, feature", card)
    with pytest.raises(UsageError, match="--overwrite"):
        export_run(run.path, out)
    first = hashlib.sha256(out.read_bytes()).hexdigest()
    export_run(run.path, out, overwrite=True)
    assert hashlib.sha256(out.read_bytes()).hexdigest() == first
    run.best.write_bytes(b"damaged")
    with pytest.raises(SegicError, match=r"best\.pt is damaged.*--latest exports the newest one"):
        export_run(run.path, out, overwrite=True)
    export_run(run.path, out, overwrite=True, latest=True)


@pytest.mark.usefixtures("folder_data")
def test_a_model_is_asked_in_the_words_it_was_trained_with(
    fit: Fit, tmp_path: Path, open_backbone: OpenBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def encoder(prompts: Sequence[str]) -> torch.Tensor:
        asked.extend(prompts)
        return torch.ones(len(prompts), 768)

    run = fit(
        hooks=Hooks(backbone=open_backbone, text=encoder),
        model={"preset": "segic-b", "backbone": "dinov2-tiny", "size": 112},
        episode__instance_text="find all of them",
        episode__class_text="one {}",
        loss__points=64,
    )
    export_run(run.path, tmp_path / "mine.safetensors")
    decoder, config = load_decoder(tmp_path / "mine.safetensors", PRESETS["segic-l-80k"].config)
    model = SEGIC(config, open_backbone(config), decoder)
    asked.clear()
    monkeypatch.setattr("segic_vos.prompts.default_text", lambda _device: encoder)
    assert video_meta(model) is not None
    picture, mask = np.zeros((60, 60, 3), np.uint8), np.eye(60) > 0
    prepare_examples(model, [Example(picture, mask, text="cat")], encoder)
    assert asked == ["find all of them", "one cat"]


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
