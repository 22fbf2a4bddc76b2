"""Model configurations as they are saved, and the presets."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import pytest

from segic.config import InstructionConfig, MatchingConfig, ModelConfig
from segic.errors import UsageError
from segic.presets import DEFAULT_MODEL, PRESETS, find_preset
from segic.text import RELEASED_CLASS_PROMPT, RELEASED_INSTANCE_PROMPT
from segic.weights.registry import REGISTRY


@pytest.mark.parametrize("name", PRESETS)
def test_saved_and_read(name):
    config = PRESETS[name].config
    assert ModelConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


def test_changed_values_are_kept():
    config = ModelConfig(
        layers=(3, 1),
        matching=MatchingConfig(topk=7, radius=0),
        instructions=InstructionConfig(geometric=False, points=False, visual=False, meta="none", negatives=False),
    )
    read = ModelConfig.from_dict(json.loads(json.dumps(config.as_dict())))
    assert read == config
    assert read.layers == (3, 1)


def test_nothing_said_is_the_paper():
    assert ModelConfig.from_dict({}) == ModelConfig()


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"colour": 1}, "colour"),
        ({"matching": {"topk": 4, "window": 3}}, "window"),
        ({"instructions": {"text": True}}, "text"),
    ],
)
def test_unknown_entries_are_named(values, word):
    with pytest.raises(UsageError, match=rf"unknown entries \['{word}'\]; known are"):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize("values", [[], 3, "size", {"matching": 3}, {"instructions": []}])
def test_something_else_than_names(values):
    with pytest.raises(UsageError, match="in the place of names with values"):
        ModelConfig.from_dict(values)


def test_reading_leaves_the_values_alone():
    values = ModelConfig(matching=MatchingConfig()).as_dict()
    before = json.dumps(values)
    ModelConfig.from_dict(values)
    assert json.dumps(values) == before


def test_configurations_do_not_change():
    with pytest.raises(FrozenInstanceError):
        ModelConfig().size = 3
    assert hash(replace(ModelConfig(), size=112)) != hash(ModelConfig())


def test_default_preset():
    assert find_preset(DEFAULT_MODEL).config.instructions.meta == "constant"  # no language model at run time


def test_unknown_preset_lists_those_there_are():
    with pytest.raises(UsageError, match=r"no model is named 'sam'; there are segic-s, segic-l-80k"):
        find_preset("sam")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_name_weight_files(name):
    preset = PRESETS[name]
    assert preset.name == name
    assert preset.backbone in REGISTRY
    assert preset.config.instructions.instance_text == RELEASED_INSTANCE_PROMPT
    assert preset.config.instructions.class_text == RELEASED_CLASS_PROMPT
