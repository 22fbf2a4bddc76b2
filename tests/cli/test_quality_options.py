"""How closely a decoder of the user's looks at frames, if nothing is asked for."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segic.presets import find_preset
from segic.weights.tensors import save_tensors
from segic_cli.model_options import ModelChoice
from segic_cli.quality_options import sized

PRESET = find_preset("segic-s").config


@pytest.mark.parametrize(
    ("changes", "quality"),
    [({}, "balanced"), ({"drift": 0.0}, "balanced"), ({"size": 896}, None), ({"layers": (12,)}, None), (None, None)],
)
def test_a_decoder_trained_by_the_recipe_is_run_as_the_shipped_one(
    tmp_path: Path, changes: dict[str, object] | None, quality: str | None
) -> None:
    file = tmp_path / "mine.safetensors"
    own = {} if changes is None else {"config": json.dumps(replace(PRESET, **changes).as_dict())}  # type: ignore[arg-type]
    save_tensors({"any": torch.zeros(1)}, file, own)
    choice, chosen = sized(ModelChoice("segic-s", file, None, "cpu", "auto", None), None, None)
    shipped = sized(ModelChoice("segic-s", None, None, "cpu", "auto", None), None, None)[1]
    assert chosen.quality == quality
    assert (chosen == shipped) == (quality is not None)
    assert choice.size == chosen.size
