"""`--quality`: sizes by name."""

from __future__ import annotations

import pytest

from segic.errors import UsageError
from segic.presets import PRESETS
from segic_vos.quality import (
    LARGE,
    NAMES,
    QUALITIES,
    SIZES,
    SizeChoice,
    choose_size,
    describe_qualities,
    foveated_sizes,
)

BALANCED, BEST = (QUALITIES["segic-s"][name] for name in ("balanced", "best"))


def test_the_table_names_presets_and_balanced_is_their_own_size():
    for model, settings in QUALITIES.items():
        assert tuple(settings) == NAMES
        assert settings["balanced"].size == PRESETS[model].config.size
        sizes = [setting.size for setting in settings.values()]
        assert sizes == sorted(set(sizes))
        assert all(f"{size} px" in describe_qualities(model) for size in sizes)


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ({}, SizeChoice(476, "balanced", "the default on a CPU", tokens=BALANCED.tokens)),
        ({"fovea": False}, SizeChoice(476, "balanced", "the default on a CPU")),
        ({"device": "cuda"}, SizeChoice(672, "best", "the default on CUDA")),
        ({"device": "cuda", "fovea": True}, SizeChoice(672, "best", "the default on CUDA", tokens=BEST.tokens)),
        ({"device": "mps"}, SizeChoice(476, "balanced", "the default on MPS")),
        ({"quality": "fast", "device": "cuda"}, SizeChoice(336, "fast", "--quality")),
        ({"size": 448}, SizeChoice(448, None, "--size")),
        ({"own_weights": True, "device": "cuda"}, SizeChoice(None, None, "the model's own")),
        ({"own_weights": True, "quality": "best"}, SizeChoice(672, "best", "--quality", tokens=BEST.tokens)),
    ],
)
def test_what_is_chosen_and_why(given, chosen):
    assert choose_size("segic-s", **given) == chosen


def test_other_models_keep_their_own_size():
    assert choose_size("segic-l-80k", device="cuda").size is None


def test_what_cannot_be_chosen():
    with pytest.raises(UsageError, match="--quality fast and --size 300 exclude"):
        choose_size("segic-s", quality="fast", size=300)
    with pytest.raises(UsageError, match=r"no sizes are measured for the model segic-l-80k, only for segic-s"):
        choose_size("segic-l-80k", quality="fast")
    with pytest.raises(UsageError, match="--fovea and --size 300 exclude each other"):
        choose_size("segic-s", size=300, fovea=True)
    with pytest.raises(UsageError, match="--fovea: no sizes are measured for these weights"):
        choose_size("segic-s", own_weights=True, fovea=True)


def test_sizes_of_foveated_frames_have_no_odd_token():
    assert all(size % 28 == 0 for size in SIZES)
    assert {setting.size for setting in QUALITIES["segic-s"].values()} <= set(SIZES)
    tokens = [setting.tokens for setting in QUALITIES["segic-s"].values()]
    assert tokens == sorted(set(tokens))


def test_only_the_best_quality_takes_the_largest_frames():
    assert max(foveated_sizes(BALANCED.tokens)) == max(foveated_sizes(BEST.tokens - 1)) == LARGE
    assert foveated_sizes(BEST.tokens) == SIZES
    assert max(SIZES) > LARGE
