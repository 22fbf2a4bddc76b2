"""Modules built without numbers: none is computed, and torch's compiler stays out."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from segic.skeleton import without_numbers


def test_nothing_is_initialised():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with without_numbers():
        layer = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv2d(4, 5, 3), nn.Embedding(2, 3))
    assert all(parameter.is_meta for parameter in layer.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    assert not nn.Linear(3, 4).weight.is_meta


def test_initialisation_is_back_afterwards():
    with without_numbers():
        nn.Linear(3, 4)
    weight = torch.full((3,), 7.0)
    assert torch.equal(nn.init.zeros_(weight), torch.zeros(3))


def test_numbers_come_from_a_state():
    source = nn.Linear(3, 4)
    with without_numbers():
        layer = nn.Linear(3, 4)
    layer.load_state_dict(source.state_dict(), assign=True)
    assert torch.equal(layer(torch.ones(3)), source(torch.ones(3)))


def test_building_models_does_not_import_the_compiler():
    """A second of start-up, on the command line's way to the first mask."""
    code = (
        "import sys; from segic.loading import build_decoder; from segic.presets import PRESETS;"
        "from segic.backbones.dinov2 import CONFIGS, DinoV2; from segic.skeleton import without_numbers\n"
        "with without_numbers(): build_decoder(PRESETS['segic-s'].config); DinoV2(CONFIGS['dinov2-s'])\n"
        "print({'torch._dynamo', 'sympy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
