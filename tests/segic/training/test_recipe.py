"""Recipes: the named ones, overriding, and errors that help."""

from __future__ import annotations

import re
from dataclasses import asdict, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from segic.config import MatchingConfig, ModelConfig
from segic.errors import UsageError
from segic.presets import PRESETS
from segic.training.composites import Composition
from segic.training.optimizer import learning_rate
from segic.training.recipe import Matching, Scenes
from segic.training.recipe_file import difference, load_recipe, parse_recipe, recipe_names, recipe_text
from segic.training.scenes import SceneMix


def test_every_named_recipe_loads() -> None:
    assert recipe_names() == ["paper-b-ablation", "paper-l", "segic-s", "tiny"]
    for name in recipe_names():
        assert load_recipe(name).name == name


def test_the_papers_recipe_is_the_papers() -> None:
    recipe = load_recipe("paper-l")
    assert recipe.model.config() == ModelConfig() == PRESETS["segic-l-160k"].config
    assert (recipe.batch, recipe.data.size, recipe.data.entities) == (32, 896, 10)
    assert (recipe.steps_per_epoch, recipe.steps) == (5000, 60000)
    assert (recipe.loss.ce, recipe.loss.dice, recipe.loss.points) == (1, 1, 12544)
    assert (recipe.loss.oversampling, recipe.loss.uncertain) == (3, 0.75)
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay) == (1e-4, 1e-4)
    assert {one.weight for one in recipe.data.sets.values()} == {1.0}
    assert (recipe.episode.text, recipe.episode.negatives, recipe.episode.reversion) == (0.75, 0.5, 1.0)
    # Epoch 10 of 0 to 11 is the first with a tenth of the rate, as the authors' StepLR(10) makes it.
    assert learning_rate(recipe, 10 * 5000 - 1) == 1e-4
    assert learning_rate(recipe, 10 * 5000) == pytest.approx(1e-5)
    assert learning_rate(recipe, recipe.steps - 1) == pytest.approx(1e-5)
    assert load_recipe("paper-b-ablation").steps == 30000


def test_the_shipped_recipe_trains_the_shipped_preset() -> None:
    recipe = load_recipe("segic-s")
    assert recipe.model.config() == PRESETS["segic-s"].config
    assert learning_rate(recipe, 0) == pytest.approx(recipe.optimizer.lr / recipe.schedule.warmup)
    assert learning_rate(recipe, recipe.steps) == pytest.approx(0.02 * recipe.optimizer.lr)


def test_values_are_overridden() -> None:
    recipe = load_recipe(
        "paper-l",
        [
            "optimizer.lr=2e-4", "data.sets.lvis.weight=0", "model.instructions.meta=none",
            "model.instructions.visual = false",
            "schedule.milestones=[4, 6]",
            "data.sets.coco-semantic.exclude_fold=2",
            "description=my own",
        ],
    )  # fmt: skip
    assert recipe.optimizer.lr == 2e-4
    assert recipe.data.sets["lvis"].weight == 0
    assert recipe.model.config().instructions.meta == "none"
    assert not recipe.model.config().instructions.visual
    assert recipe.schedule.milestones == [4, 6]
    assert recipe.data.sets["coco-semantic"].exclude_fold == 2
    assert recipe.description == "my own"


def test_the_strict_protocol_that_the_papers_recipe_names() -> None:
    """Neither training nor the choice of best.pt sees the fold's classes."""
    header = (resources.files("segic") / "training/recipes/paper-l.toml").read_text("utf-8")
    overrides = re.findall(r"--set (\S+=[0-9.]*[0-9])", header)
    recipe = load_recipe("paper-l", [*overrides, "data.sets.coco-instance.exclude_fold=0"])
    every = [*recipe.data.sets.values(), *recipe.validation.sets.values()]
    used = [one for one in every if one.weight]
    assert len(used) == 3
    assert all(one.exclude_fold == 0 for one in used)


def test_a_preset_can_be_changed_part_by_part() -> None:
    recipe = load_recipe("segic-s", ["model.matching={topk = 0}", "model.detail=0", "model.residual=false"])
    config = recipe.model.config()
    assert config.matching is None
    assert config.detail == 0
    assert config.layers == PRESETS["segic-s"].config.layers


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lrr=3", "unknown key optimizer.lrr; did you mean lr?"),
        ("modl.x=1", "unknown key modl; did you mean model?"),
        ("data.sets.lvis.wieght=1", "unknown key data.sets.lvis.wieght; did you mean weight?"),
        ("model.instructions.visal=true", "unknown key model.instructions.visal; did you mean visual?"),
        ("zzz=1", "unknown key zzz; known are name, description"),
        ("optimizer.lr=fast", "optimizer.lr is 'fast' (a string): input should be a valid number"),
        ("batch=2.5", "batch is 2.5 (a number): input should be a valid integer"),
        ("batch=true", "batch is True (a truth value): input should be a valid integer"),
        ("episode.text=1.5", "episode.text is 1.5 (a number): input should be less than or equal to 1"),
        ("model.instructions.meta=foo", "input should be 'text', 'constant' or 'none'"),
        ("schedule.steps=5", "give either steps or epochs"),
        ("data.size=900", "data.size is 900 (a number): input should be a multiple of 14"),
        ("model.preset=segic-x", "no model is named 'segic-x'"),
        ("data.cached=100", "cached samples keep no class names"),
        ("data.augmentation.crop=[0.5, 0.3]", "crop [0.5, 0.3]: expected a smaller and a larger"),
        (
            "data.augmentation.crop=[0.5, 1.5]",
            "crop [0.5, 1.5]: expected a smaller and a larger positive number up to 1",
        ),
        ("name.x=1", "name is a value, not a table"),
        ("optimizer.betas=[0.9, 1.5]", "optimizer.betas.1 is 1.5 (a number): input should be less than 1"),
        ("episode.entities=[0.0, 0.0]", "episode.entities [0.0, 0.0]: expected at least one number above 0"),
        ("episode.class_text='a {thing}'", "episode.class_text 'a {thing}': expected words and {} for the class"),
        ("episode.class_text=photo", "episode.class_text 'photo': expected words and {} for the class"),
        ("data.scenes={views=0, composite=0, classes=0}", "views, composite and classes are all 0"),
        ("data.sets.ade20k.exclude_fold=1", "data.sets.ade20k.exclude_fold does not go with kind 'semantic'"),
        ("data.sets.lvis.stamps=x", "data.sets.lvis.stamps does not go with kind 'instance' and layout 'lvis'"),
        (
            "validation.sets={x={kind='semantic', path='x', backgrounds='y'}}",
            "validation.sets.x.backgrounds does not go with kind 'semantic' and layout 'coco'",
        ),
        ("validation.sets={x={kind='scenes', path='x', cached=5}}", "validation.sets.x has no cache of its own"),
        ("lr", "expected key=value"),
    ],
)
def test_bad_values_are_named(override: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        load_recipe("paper-l", [override])
    assert message in str(error.value)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text('name = "x"\nbatch = 1\n[schedule]\nsteps = 1\n[data]\nsize = 112\n[data.sets]\n')
    with pytest.raises(UsageError, match="model is missing"):
        load_recipe(str(path))


def test_what_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean paper-l"):
        load_recipe("paper-I")
    path = tmp_path / "my.toml"
    path.write_text("name = = 3")
    with pytest.raises(UsageError, match="is not TOML"):
        load_recipe(str(path))


def test_a_copied_recipe_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "copy.toml"
    path.write_text(recipe_text("segic-s"))
    assert load_recipe(str(path)) == load_recipe("segic-s")


def test_differences_are_shown_by_key() -> None:
    a: dict[str, Any] = {"a": 1, "b": {"c": 2, "d": 3}}
    assert difference(a, {"a": 1, "b": {"c": 4}, "e": 5}) == [
        "b.c: 2 -> 4", "b.d: 3 -> '(not set)'", "e: '(not set)' -> 5",
    ]  # fmt: skip
    assert difference(a, a) == []


def test_data_sets_with_a_cache_of_their_own() -> None:
    recipe = load_recipe("segic-s")
    assert recipe.data.caches == {("scenes",): (800, 31), ("lookalikes",): (1200, 32)}
    shared = load_recipe("segic-s", ["data.sets.scenes.cached=0", "data.cached=50", "data.cache_seed=2"])
    assert shared.data.caches == {("scenes",): (50, 2), ("lookalikes",): (1200, 32)}
    left_out = load_recipe("segic-s", ["data.sets.scenes.cached=0", "data.sets.scenes.weight=0.0"])
    assert left_out.data.caches == {("lookalikes",): (1200, 32)}
    with pytest.raises(UsageError, match=r"data\.sets\.scenes is not cached, lookalikes is: give each"):
        load_recipe("segic-s", ["data.sets.scenes.cached=0"])
    assert recipe.data.sets["lookalikes"].scenes is not None
    assert recipe.data.sets["lookalikes"].scenes.composition.lookalike == 0.8


def test_scenes_have_one_set_of_defaults() -> None:
    """The recipe repeats them, so that reading one does not load what draws scenes."""
    assert SceneMix(**Scenes().model_dump() | {"composition": Composition()}) == SceneMix()
    assert Scenes().composition.model_dump() == asdict(Composition())


def test_recipes_can_change_all_of_matching() -> None:
    assert set(Matching.model_fields) == {part.name for part in fields(MatchingConfig)}
    changed = load_recipe("segic-s", ("model.matching.carry=0",)).model.config().matching
    assert changed is not None
    assert changed.carry == 0


def test_what_a_recipe_says_of_matching_changes_the_presets() -> None:
    whole = load_recipe("segic-s").model.config().matching
    assert whole is not None
    changed = load_recipe("segic-s", ("model.matching.topk=8",))
    assert changed.model.config().matching == replace(whole, topk=8)
    again = parse_recipe(changed.as_dict(), "again")
    assert again.model.config() == changed.model.config()
    assert load_recipe("segic-s", ("model.matching.topk=0",)).model.config().matching is None


def test_a_runs_own_recipe_may_hold_what_is_ignored() -> None:
    """Earlier versions passed over it."""
    values = load_recipe("segic-s").as_dict()
    values["validation"]["sets"]["scenes"]["cached"] = 7
    with pytest.raises(UsageError, match="no cache of its own"):
        parse_recipe(values, "test")
    assert parse_recipe(values, "test", stored=True).validation.sets["scenes"].cached == 7
