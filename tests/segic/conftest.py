"""Small models of random weights, in the two shapes that the presets have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from segic.backbones.dinov2 import DinoV2, DinoV2Config
from segic.config import InstructionConfig, MatchingConfig, ModelConfig
from segic.decoder import Decoder
from segic.model import SEGIC

TINY = DinoV2Config("tiny", width=32, depth=2, heads=2)

# 8 x 14 tokens for 16:9; like the default model.
DENSE = ModelConfig(
    backbone="tiny",
    layers=(1, 2),
    size=112,
    canvas="frame",
    matching=MatchingConfig(topk=3, radius=3, ridge=0.02, ridge_share=0.3, width=24, carry=2),
    residual=True,
    detail=8,
    recent=3,
    instructions=InstructionConfig(meta="constant"),
)
# 8 x 8 tokens; like the released models.
RELEASED = ModelConfig(backbone="tiny", size=112)


def build(config: ModelConfig, seed: int = 0) -> SEGIC:
    """A model of random weights; those too that start as zero or as nothing in particular."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = DinoV2(TINY, config.layers)
        torch.nn.init.normal_(backbone.pos_embed, std=0.3)
        decoder = Decoder(config, backbone.width, backbone.width)
        if decoder.detail is not None:
            torch.nn.init.normal_(decoder.detail.leave.weight)
        if decoder.metric is not None:
            torch.nn.init.normal_(decoder.metric.middle, std=0.05)
            torch.nn.init.normal_(decoder.metric.root)
    return SEGIC(config, backbone, decoder, name="tiny")


@pytest.fixture(scope="session")
def dense_config() -> ModelConfig:
    return DENSE


@pytest.fixture(scope="session")
def released_config() -> ModelConfig:
    return RELEASED


@pytest.fixture(scope="session")
def build_model() -> Callable[..., SEGIC]:
    """build_model(config, seed): a small model."""
    return build


@pytest.fixture(scope="session")
def dense_model() -> SEGIC:
    return build(DENSE)


@pytest.fixture(scope="session")
def released_model() -> SEGIC:
    return build(RELEASED)


@pytest.fixture(scope="session")
def textless_model() -> SEGIC:
    """As released, but without text features."""
    return build(replace(RELEASED, instructions=InstructionConfig(meta="none")))
