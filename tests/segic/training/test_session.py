"""Whole runs of the training loop on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from segic.config import ModelConfig
from segic.decoder import Decoder
from segic.errors import SegicError, UsageError
from segic.loading import config_in
from segic.presets import PRESETS
from segic.training import loop
from segic.training.cache import cache_name
from segic.training.card import export_run
from segic.training.features import CachedScene, write_scene
from segic.training.feeds import CachedFeed, index_cache, load_cached
from segic.training.interrupts import TrainingStopped
from segic.training.recipe import Recipe
from segic.training.recipe_file import load_recipe
from segic.training.run_folder import RunFolder, load_checkpoint, save_checkpoint
from segic.training.session import Hooks, OpenBackbone, Request, load_initial, seed_everything, train
from segic.weights.cache import cached_path, store
from segic.weights.registry import REGISTRY, WeightFile
from segic.weights.tensors import read_header, save_tensors

Fit = Callable[..., RunFolder]


def weights(run: RunFolder) -> dict[str, torch.Tensor]:
    return load_checkpoint(run.checkpoints()[-1])["decoder"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.usefixtures("folder_data")
def test_loss_falls_when_one_sample_is_learnt(fit: Fit, tmp_path: Path) -> None:
    for path in sorted((tmp_path / "data").rglob("*.png"))[1:8]:
        path.unlink()
    run = fit(
        schedule__steps=30, checkpoint_every=30, optimizer__lr=1e-3, episode__reversion=0.0,
        data__augmentation={"crop": [1.0, 1.0], "flip": 0.0},
    )  # fmt: skip
    steps = [event for event in run.events() if event["kind"] == "step"]
    assert [event["step"] for event in steps] == [25, 30]
    assert steps[1]["loss"] < 0.7 * steps[0]["loss"]
    assert steps[1]["iou"] > steps[0]["iou"]


@contextmanager
def killed_at_step(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The training within ends as by a kill, before this step."""

    class Killed(Exception):
        pass

    real = loop.Trainer._step

    def dies(self: loop.Trainer, at: int, drawn: object) -> loop.StepReport:
        if at == step:
            raise Killed
        return real(self, at, drawn)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(loop.Trainer, "_step", dies)
        with pytest.raises(Killed):
            yield


@pytest.mark.usefixtures("folder_data")
def test_resume_is_exact(fit: Fit, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(loss__points=64, checkpoint_every=2, episode__negatives=0.5)
    whole = fit("whole", recipe=recipe, workers=1)

    with killed_at_step(3, monkeypatch):
        fit("broken", recipe=recipe, workers=3)
    resumed = fit("broken", recipe=recipe, resume=True, workers=2)
    a, b = (load_checkpoint(run.checkpoints()[-1]) for run in (whole, resumed))
    assert a["step"] == b["step"] == 4
    assert same(a["decoder"], b["decoder"])
    assert same(a["average"], b["average"])
    assert not same(a["decoder"], load_checkpoint(whole.checkpoint(2))["decoder"])


@pytest.mark.usefixtures("folder_data")
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    fit: Fit, make_recipe: Callable[..., Recipe], open_backbone: OpenBackbone
) -> None:
    recipe = make_recipe(checkpoint_every=2)
    run = fit(recipe=recipe)
    before = weights(run)
    run.checkpoint(4).write_bytes(b"half a file")
    notes: list[str] = []
    hooks = Hooks(backbone=open_backbone, note=notes.append)
    assert same(before, weights(fit(recipe=recipe, resume=True, hooks=hooks)))
    assert any("going on from step-00000002.pt" in note and "step-00000004.pt is damaged" in note for note in notes)


@pytest.mark.usefixtures("folder_data")
def test_a_run_none_of_whose_checkpoints_can_be_read_is_not_begun_anew(
    fit: Fit, make_recipe: Callable[..., Recipe]
) -> None:
    recipe = make_recipe(checkpoint_every=2)
    run = fit(recipe=recipe)
    for path in run.checkpoints():
        path.write_bytes(b"half a file")
    with pytest.raises(SegicError, match=r"no checkpoint of .* can be read; .*00000004\.pt is damaged.*00000002\.pt"):
        fit(recipe=recipe, resume=True)
    assert len(run.checkpoints()) == 2


@pytest.mark.usefixtures("folder_data")
def test_a_run_goes_on_in_its_own_precision_only(fit: Fit, make_recipe: Callable[..., Recipe]) -> None:
    """As with "auto", on a device that has another one."""
    recipe = make_recipe(checkpoint_every=2)
    run = fit(recipe=recipe)
    newest = run.checkpoints()[-1]
    state = load_checkpoint(newest)
    save_checkpoint(run, newest, {**state, "precision": "torch.float16"})
    with pytest.raises(UsageError, match=r"trained in torch\.float16, this device would go on in"):
        fit(recipe=recipe, resume=True)
    save_checkpoint(run, newest, {key: value for key, value in state.items() if key != "precision"})
    fit(recipe=recipe, resume=True)  # of a version that did not note it


@pytest.mark.usefixtures("folder_data")
def test_checkpoints_are_rotated_and_the_best_is_kept(fit: Fit, open_backbone: OpenBackbone) -> None:
    values = iter([0.5, 0.9, 0.7])
    hooks = Hooks(backbone=open_backbone, video=lambda *_: {"video": next(values), "video/one": 0.1})
    run = fit(
        hooks=hooks,
        schedule__steps=6,
        checkpoint_every=2,
        validation={"every": 2, "video_every": 2, "metric": "video", "samples": 1},
    )  # fmt: skip
    assert [path.name for path in run.checkpoints()] == ["step-00000004.pt", "step-00000006.pt"]
    assert load_checkpoint(run.best)["step"] == 4
    assert load_checkpoint(run.best)["best"] == 0.9
    validations = [event for event in run.events() if event["kind"] == "validation"]
    assert [event["best"] for event in validations] == [True, True, False]


@pytest.mark.usefixtures("folder_data")
@pytest.mark.parametrize("left", [None, b"half a file"])
def test_a_best_checkpoint_that_is_lost_is_chosen_anew(
    fit: Fit, tmp_path: Path, open_backbone: OpenBackbone, left: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, notes = iter([0.9, 0.5]), list[str]()
    hooks = Hooks(backbone=open_backbone, video=lambda *_: {"video": next(values)}, note=notes.append)
    changes = {"checkpoint_every": 2, "validation": {"video_every": 2, "metric": "video"}}

    with killed_at_step(3, monkeypatch):
        fit(hooks=hooks, **changes)
    run = RunFolder(tmp_path / "run")
    state = load_checkpoint(run.checkpoint(2))
    save_checkpoint(run, run.checkpoint(2), {**state, "best": 0.9})  # as the step's checkpoint after it would have it
    if left is None:
        run.best.unlink()
    else:
        run.best.write_bytes(left)
    fit(hooks=hooks, resume=True, **changes)
    assert (load_checkpoint(run.best)["step"], load_checkpoint(run.best)["best"]) == (4, 0.5)
    assert [note for note in notes if "best.pt is damaged" in note] == notes[: left is not None]


@pytest.mark.usefixtures("folder_data")
def test_an_interrupt_while_the_best_checkpoint_is_written_claims_no_best_one(
    fit: Fit, open_backbone: OpenBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.save_checkpoint

    def save(run: RunFolder, path: Path, state: dict[str, object]) -> None:
        if path == run.best:
            raise KeyboardInterrupt
        real(run, path, state)

    monkeypatch.setattr(loop, "save_checkpoint", save)
    hooks = Hooks(backbone=open_backbone, video=lambda *_: {"video": 0.5})
    with pytest.raises(TrainingStopped) as stopped:
        fit(hooks=hooks, validation={"video_every": 2, "metric": "video"})
    assert stopped.value.checkpoint is not None
    assert load_checkpoint(stopped.value.checkpoint)["best"] is None


@pytest.mark.usefixtures("folder_data")
def test_validation_scores_held_out_episodes_and_draws_a_picture(fit: Fit) -> None:
    held_out = {"folder": {"kind": "instance", "layout": "folder", "path": "."}}
    run = fit(validation={"every": 4, "samples": 3, "grid": 2, "sets": held_out})
    (event,) = [event for event in run.events() if event["kind"] == "validation"]
    assert 0 <= event["scores"]["episodes"] <= 1
    assert set(event["scores"]) == {"pair", "episodes"}
    picture = cv2.imread(str(run.predictions / "step-00000004.png"))
    assert picture.shape[0] == 2 * 228
    assert run.best.is_file()


def test_scenes_train_from_cached_features(fit: Fit, tmp_path: Path) -> None:
    _scene_data(tmp_path / "data")
    one = {"kind": "scenes", "path": "coco", "part": "train", "holdout": 10}
    changes = {
        "data__cached": 4, "data__sets": {"scenes": one}, "episode__entities": [0.5, 0.5], "episode__flip": 0.5,
        "episode__video_swap": 0.5, "episode__video_reversion": 0.3, "episode__video_predicted": 0.4,
        "data__scenes": {"classes": 0.0, "views": 0.0},
        "validation": {"every": 4, "samples": 2, "sets": {"scenes": {**one, "part": "held-out"}}},
    }  # fmt: skip
    run = fit(schedule__steps=4, **changes)
    folders = sorted((tmp_path / "data" / "features").iterdir())
    assert sorted(len(list(folder.glob("*.npz"))) for folder in folders) == [2, 4]
    times = [path.stat().st_mtime_ns for folder in folders for path in folder.glob("*.npz")]
    again = fit("again", schedule__steps=4, **changes)
    assert times == [path.stat().st_mtime_ns for folder in folders for path in folder.glob("*.npz")]
    assert same(weights(run), weights(again))


def test_features_of_scenes_are_kept_apart_by_the_version_of_the_scenes_code(
    make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = {"kind": "scenes", "path": "coco", "part": "train"}
    pairs = {"kind": "instance", "layout": "folder", "path": "."}
    both = make_recipe(data__sets={"scenes": scenes, "pairs": pairs}).data

    def names() -> list[str]:
        return [
            cache_name({name: both.sets[name] for name in among}, both, 0, "dinov2-s", (2,))
            for among in (["scenes"], ["scenes", "pairs"], ["pairs"])
        ]

    before = names()
    monkeypatch.setattr("segic.training.cache.SCENES", -1)
    assert [old == new for old, new in zip(before, names(), strict=True)] == [False, False, True]


@pytest.mark.usefixtures("folder_data")
def test_pairs_can_be_cached_too(fit: Fit, tmp_path: Path) -> None:
    run = fit(data__cached=3, episode__recent=0.0, episode__pair_entities=[0.5, 0.5])
    assert len(list((tmp_path / "data" / "features").rglob("*.npz"))) == 3
    assert load_checkpoint(run.checkpoints()[-1])["step"] == 4


@pytest.mark.usefixtures("folder_data")
def test_a_cache_does_not_depend_on_other_data_sets(fit: Fit, tmp_path: Path) -> None:
    one = {"kind": "instance", "layout": "folder", "path": "."}
    held_out = {"every": 1, "samples": 2, "sets": {"held": one}}
    for weight in (1.0, 2.0):
        sets = {"one": {**one, "weight": weight}}
        fit(f"run{weight}", schedule__steps=1, data__cached=2, validation=held_out, data__sets=sets)
    assert len(list((tmp_path / "data" / "features").iterdir())) == 3  # of training's one each, and one held-out


@pytest.mark.usefixtures("folder_data")
def test_the_backbones_own_weights_belong_to_the_run(
    tmp_path: Path, make_recipe: Callable[..., Recipe], open_backbone: OpenBackbone
) -> None:
    weights, recipe = tmp_path / "mine.safetensors", make_recipe(data__cached=2, checkpoint_every=2)
    weights.write_bytes(b"one")
    request = Request(recipe, tmp_path / "data", tmp_path / "run", device="cpu", quiet=True)
    hooks = Hooks(backbone=open_backbone)
    train(replace(request, backbone_weights=weights), hooks)
    train(replace(request, out=tmp_path / "registered"), hooks)
    assert len(list((tmp_path / "data" / "features").iterdir())) == 2  # features are not shared
    train(replace(request, resume=True), hooks)
    with pytest.raises(UsageError, match=r"registered was started with other weights of the backbone, the registered"):
        train(replace(request, resume=True, out=tmp_path / "registered", backbone_weights=weights), hooks)
    weights.write_bytes(b"two")
    with pytest.raises(UsageError, match=r"run was started with other weights of the backbone, .*mine\.safetensors"):
        train(replace(request, resume=True), hooks)
    weights.unlink()
    with pytest.raises(UsageError, match=r"mine\.safetensors cannot be read: No such file"):
        train(replace(request, resume=True), hooks)


@pytest.mark.usefixtures("folder_data")
def test_kept_weights_of_the_backbone_that_were_replaced_are_noticed(
    fit: Fit, tmp_path: Path, make_recipe: Callable[..., Recipe], open_backbone: OpenBackbone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    address = "http://127.0.0.1:9/tiny.pth"
    monkeypatch.setenv("SEGIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(REGISTRY, "dinov2-tiny", WeightFile("dinov2-tiny", "backbone", "MIT", "a test", 1, url=address))  # type: ignore[arg-type]
    recipe = make_recipe(data__cached=2, checkpoint_every=2)
    kept = cached_path("dinov2-tiny")
    own_way = Hooks()

    def keep(source: str, sha256: str) -> None:
        tensors = open_backbone(recipe.config).state_dict()  # type: ignore[attr-defined]
        store(kept, lambda path, look: save_tensors(tensors, path, {}, look), "dinov2-tiny", source, sha256)

    keep(address, "aa")
    run = fit(recipe=recipe, hooks=own_way)
    fit("older", recipe=recipe)  # of a backbone of unknown weights: as versions did that noted none
    assert len(list((tmp_path / "data" / "features").iterdir())) == 1  # the key of the registered file is as it was
    fit(recipe=recipe, hooks=own_way, resume=True)
    card = export_run(run.path, tmp_path / "mine.safetensors").read_text()
    assert "| Backbone's weights | dinov2-tiny of `segic models`, sha256 aa |" in card
    assert read_header(tmp_path / "mine.safetensors")[1]["backbone_sha256"] == "aa"

    keep("/home/me/other.pth", "bb")
    with pytest.raises(UsageError, match=r"other weights of the backbone, those kept by .*aa\), than .*sha256 bb"):
        fit(recipe=recipe, hooks=own_way, resume=True)
    fit("older", recipe=recipe, hooks=own_way, resume=True)  # it did not note its backbone's
    assert len(list((tmp_path / "data" / "features").iterdir())) == 2
    card = export_run(tmp_path / "older", tmp_path / "older.safetensors").read_text()
    assert "| Backbone's weights | not recorded |" in card


@pytest.mark.usefixtures("folder_data")
def test_the_papers_model_trains_from_cached_features(fit: Fit, open_backbone: OpenBackbone) -> None:
    one = {"kind": "instance", "layout": "folder", "path": "."}
    run = fit(
        hooks=Hooks(backbone=open_backbone, text=lambda prompts: torch.ones(len(prompts), 768)),
        model={"preset": "segic-b", "backbone": "dinov2-tiny", "size": 112},
        data__cached=3,
        episode={"recent": 0.0},
        loss={"points": 128},
        validation={"every": 4, "samples": 2, "sets": {"held": one}},
    )
    assert load_checkpoint(run.checkpoints()[-1])["step"] == 4
    (event,) = [event for event in run.events() if event["kind"] == "validation"]
    assert 0 <= event["scores"]["episodes"] <= 1


@pytest.mark.usefixtures("coco_data")
def test_the_papers_model_trains_on_classes_and_instances(fit: Fit, open_backbone: OpenBackbone) -> None:
    def encoder(prompts: list[str]) -> torch.Tensor:
        asked.extend(prompts)
        return torch.ones(len(prompts), 768)

    asked: list[str] = []
    sets = {"semantic": {"kind": "semantic", "path": "coco"}, "instance": {"kind": "instance", "path": "coco"}}
    run = fit(
        hooks=Hooks(backbone=open_backbone, text=encoder),
        model={"preset": "segic-b", "backbone": "dinov2-tiny", "size": 112},
        data={"size": 112, "entities": 2, "least_area": 16, "sets": sets},
        episode={"negatives": 0.5},
        loss={"points": 128},
    )
    assert load_checkpoint(run.checkpoints()[-1])["step"] == 4
    assert sorted(asked) == ["", "a photo of a green.", "a photo of a red.", "please segment the instances."]


@pytest.mark.usefixtures("folder_data")
@pytest.mark.parametrize(
    "switch",
    [
        {"model.instructions": {"geometric": False, "points": False}},
        {"model.instructions": {"visual": False}},
        {"model.instructions": {"meta": "none"}},
        {"model.instructions": {"negatives": False}},
        {"episode.reversion": 0.0, "episode.negatives": 0.0},
    ],
)
def test_switches_of_the_ablations_train(fit: Fit, switch: dict[str, object]) -> None:
    assert fit(schedule__steps=1, checkpoint_every=1, **switch).checkpoints()


@pytest.mark.usefixtures("folder_data")
def test_a_run_folder_that_exists_is_refused(fit: Fit) -> None:
    fit(schedule__steps=1)
    with pytest.raises(UsageError, match="--resume"):
        fit(schedule__steps=1)


@pytest.mark.usefixtures("folder_data")
def test_resume_with_another_recipe_shows_the_difference(fit: Fit) -> None:
    fit(schedule__steps=1)
    with pytest.raises(UsageError, match=r"optimizer\.lr: 0\.0003 -> 0\.5"):
        fit(schedule__steps=1, optimizer__lr=0.5, resume=True)


@pytest.mark.usefixtures("folder_data")
def test_resume_of_nothing_is_refused(fit: Fit) -> None:
    with pytest.raises(UsageError, match="is not a training run"):
        fit(resume=True)


@pytest.mark.usefixtures("folder_data")
def test_a_loss_that_is_not_finite_stops_with_the_batch_saved(
    fit: Fit, tmp_path: Path, open_backbone: OpenBackbone
) -> None:
    def broken(config: ModelConfig) -> object:
        backbone = open_backbone(config)
        forward = backbone.forward
        calls = iter(range(100))

        def forward_nan(pixels: torch.Tensor, valid: tuple[int, int] | None = None) -> torch.Tensor:
            out = forward(pixels, valid)
            return out * float("nan") if next(calls) == 2 else out

        backbone.forward = forward_nan  # type: ignore[method-assign]
        return backbone

    with pytest.raises(SegicError, match=r"loss of step 3 is not finite.*failed-step-00000003-0\.pt"):
        fit(hooks=Hooks(backbone=broken), checkpoint_every=2)  # type: ignore[arg-type]
    run = RunFolder(tmp_path / "run")
    saved = load_checkpoint(run.path / "failed-step-00000003-0.pt")
    assert saved["step"] == 3
    assert not saved["groups"][0]["features"].isfinite().all()
    assert saved["groups"][0]["names"][0][0].endswith(".png")
    assert run.checkpoint(2).is_file()  # what was learnt before is there


@pytest.mark.usefixtures("folder_data")
def test_a_loss_that_is_not_finite_is_told_though_the_disk_is_full(
    fit: Fit, open_backbone: OpenBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(config: ModelConfig) -> object:
        backbone = open_backbone(config)
        backbone.forward = lambda pixels, valid=None: torch.full((len(pixels), 32, 4, 4), float("nan"))  # type: ignore[method-assign]
        return backbone

    def full(_state: object, _file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(SegicError, match=r"loss of step 1 is not finite.*could not be saved.*No space left"):
        fit(hooks=Hooks(backbone=broken))  # type: ignore[arg-type]


@pytest.mark.usefixtures("folder_data")
def test_a_full_disk_keeps_the_earlier_checkpoint(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = torch.save, iter(range(100))

    def save(state: object, file: object) -> None:
        if next(calls):
            file.write(b"some of it")  # type: ignore[attr-defined]
            raise OSError(28, "No space left on device")
        real(state, file)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(SegicError, match=r"No space left on device; the last one is .*step-00000002"):
        fit(checkpoint_every=2)
    run = RunFolder(tmp_path / "run")
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-00000002.pt"]
    assert load_checkpoint(run.checkpoint(2))["step"] == 2


@pytest.mark.usefixtures("folder_data")
def test_pictures_that_do_not_decode_are_skipped_and_listed(fit: Fit, tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / "data" / "images" / f"{number}.png").write_bytes(b"no picture")
    run = fit(schedule__steps=8, checkpoint_every=8)
    listed = [json.loads(line) for line in run.skipped.read_text().splitlines()]
    assert {Path(entry["file"]).stem for entry in listed} <= {"0", "1", "2", "3"}
    assert len(listed) == len({entry["file"] for entry in listed}) > 0
    assert all(entry["reason"] == "does not decode as a picture" for entry in listed)


@pytest.mark.usefixtures("folder_data")
def test_masks_of_another_size_are_skipped_and_when_nothing_is_left_the_run_stops(fit: Fit, tmp_path: Path) -> None:
    for path in (tmp_path / "data" / "masks").iterdir():
        cv2.imwrite(str(path), np.ones((50, 60), np.uint8))
    with pytest.raises(SegicError, match="the mask is 60x50 pixels, its image is 120x120"):
        fit()


@pytest.mark.usefixtures("folder_data")
def test_more_processes_than_samples_are_refused() -> None:
    from segic.training.distributed import Processes

    assert [list(Processes(rank, 3).share(7)) for rank in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]
    with pytest.raises(UsageError, match="batch=4"):
        Processes(0, 4).share(2)


@pytest.mark.usefixtures("folder_data")
def test_a_validation_that_was_killed_is_made_up_for(
    fit: Fit, make_recipe: Callable[..., Recipe], open_backbone: OpenBackbone
) -> None:
    recipe = make_recipe(validation={"every": 2, "video_every": 2, "metric": "video"}, checkpoint_every=2)

    def dies(*_: object) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(recipe=recipe, hooks=Hooks(backbone=open_backbone, video=dies))
    run = fit(recipe=recipe, resume=True, hooks=Hooks(backbone=open_backbone, video=lambda *_: {"video": 0.5}))
    assert [event["step"] for event in run.events() if event["kind"] == "validation"] == [2, 4]
    fit(recipe=recipe, resume=True, hooks=Hooks(backbone=open_backbone, video=dies))  # nothing is left to be done
    assert load_checkpoint(run.best)["step"] == 2


@pytest.mark.usefixtures("folder_data")
def test_videos_have_a_rhythm_of_their_own_and_are_scored_at_the_end(fit: Fit, open_backbone: OpenBackbone) -> None:
    hooks = Hooks(backbone=open_backbone, video=lambda *_: {"video": 0.5})
    run = fit(hooks=hooks, schedule__steps=5, validation={"every": 2, "video_every": 3})
    assert [event["step"] for event in run.events() if event["kind"] == "validation"] == [3, 5]
    run = fit("end", hooks=hooks)
    assert [event["step"] for event in run.events() if event["kind"] == "validation"] == [4]
    with pytest.raises(UsageError, match="--davis FOLDER"):
        fit("none", validation={"metric": "video"})


@pytest.mark.usefixtures("folder_data")
def test_what_is_refused_leaves_no_run_behind(
    fit: Fit, tmp_path: Path, make_recipe: Callable[..., Recipe], open_backbone: OpenBackbone
) -> None:
    torch.save({"neck.0.weight": torch.zeros(1)}, tmp_path / "released.pth")
    request = Request(make_recipe(), tmp_path / "data", tmp_path / "run", device="cpu", init=tmp_path / "released.pth")
    with pytest.raises(UsageError, match="segic models convert"):
        train(request, Hooks(backbone=open_backbone))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("folder_data")
def test_a_picture_is_no_checkpoint_to_begin_with(
    tmp_path: Path, make_recipe: Callable[..., Recipe], open_backbone: OpenBackbone
) -> None:
    (tmp_path / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    request = Request(make_recipe(), tmp_path / "data", tmp_path / "run", device="cpu", init=tmp_path / "m.png")
    with pytest.raises(UsageError, match=r"m\.png: neither a checkpoint of a training run") as raised:
        train(request, Hooks(backbone=open_backbone))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("layers", [[0], [1, 3], [-1]])
def test_layers_that_the_backbone_has_not_are_refused_before_the_data_are_read(
    fit: Fit, tmp_path: Path, layers: list[int]
) -> None:
    with pytest.raises(UsageError, match=r"layers \[.*\]: dinov2-tiny has the layers 1 to 2; give some of these"):
        fit(model__layers=layers, hooks=Hooks())
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("folder_data")
def test_a_resume_says_that_the_data_are_elsewhere(
    tmp_path: Path, make_recipe: Callable[..., Recipe], open_backbone: OpenBackbone
) -> None:
    notes: list[str] = []
    hooks = Hooks(backbone=open_backbone, note=notes.append)
    request = Request(make_recipe(schedule__steps=1), tmp_path / "data", tmp_path / "run", device="cpu", quiet=True)
    train(request, hooks)
    train(replace(request, resume=True, data=tmp_path / "run" / ".." / "data"), hooks)
    assert not any("before from" in note for note in notes)
    (tmp_path / "data").rename(tmp_path / "moved")
    train(replace(request, resume=True, data=tmp_path / "moved"), hooks)
    told = f"the data are read from {tmp_path / 'moved'}, before from {tmp_path / 'data'}"
    assert sum(note.startswith(told) for note in notes) == 1
    train(replace(request, resume=True, data=tmp_path / "moved"), hooks)
    assert sum("before from" in note for note in notes) == 1


@pytest.mark.usefixtures("folder_data")
def test_a_run_without_a_checkpoint_resumes_from_its_first_weights(
    fit: Fit, tmp_path: Path, make_recipe: Callable[..., Recipe], open_backbone: OpenBackbone
) -> None:
    recipe = make_recipe(schedule__steps=1)
    first = fit("first").checkpoints()[-1]
    request = Request(recipe, tmp_path / "data", tmp_path / "run", device="cpu", init=first, quiet=True)
    once = weights(train(request, Hooks(backbone=open_backbone)))
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.unlink()
    assert same(once, weights(fit("run", recipe=recipe, resume=True)))


@pytest.mark.usefixtures("folder_data")
def test_a_resume_takes_other_first_weights_only_where_there_is_no_checkpoint(
    fit: Fit, tmp_path: Path, make_recipe: Callable[..., Recipe], open_backbone: OpenBackbone
) -> None:
    first = fit("first").checkpoints()[-1]
    recipe = make_recipe(schedule__steps=1)
    run = fit("run", recipe=recipe)
    request = Request(recipe, tmp_path / "data", run.path, True, device="cpu", init=first, quiet=True)
    events, before = list(run.events()), run.checkpoints()
    with pytest.raises(UsageError, match=rf"goes on from its checkpoint {before[-1].name}.*leave out --init"):
        train(request, Hooks(backbone=open_backbone))
    assert (list(run.events()), run.checkpoints()) == (events, before)
    for path in (run.path / "checkpoints").iterdir():
        path.unlink()
    once = weights(train(replace(request, out=tmp_path / "once", resume=False), Hooks(backbone=open_backbone)))
    assert same(weights(train(request, Hooks(backbone=open_backbone))), once)


@pytest.mark.usefixtures("folder_data")
def test_a_run_of_an_older_version_resumes(fit: Fit, make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe(schedule__steps=1)
    run = fit(recipe=recipe)
    values = json.loads(run.recipe.read_text())
    del values["episode"]["video_disturbed"]  # as if it had not been there yet
    run.recipe.write_text(json.dumps(values))
    assert fit(recipe=recipe, resume=True).checkpoints()


@pytest.mark.usefixtures("folder_data")
def test_steps_without_a_finite_gradient_are_counted_and_stop_the_run(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lost = torch.nn.utils.clip_grad_norm_, iter([True, False, False, False] + 4 * [True])

    def clip(parameters: object, most: float) -> torch.Tensor:
        norm = real(parameters, most)  # type: ignore[arg-type]
        return norm * float("nan") if next(lost) else norm

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    run = fit()
    (event,) = [event for event in run.events() if event["kind"] == "step"]
    assert event["steps_lost"] == 1
    with pytest.raises(SegicError, match="was not finite for 4 steps up to step 4"):
        fit("all")


def test_a_line_after_one_that_was_cut_short(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.append("start", {})
    with run.log.open("a") as file:
        file.write('{"kind": "st')
    run.append("resume", {})
    assert [event["kind"] for event in run.events()] == ["start", "resume"]


def test_broken_pictures_of_scenes_are_left_out_and_listed(
    fit: Fit, tmp_path: Path, open_backbone: OpenBackbone
) -> None:
    _scene_data(tmp_path / "data")
    for number in range(1, 6):
        (tmp_path / "data" / "coco" / "images" / f"{number}.png").write_bytes(b"no picture")
    notes: list[str] = []
    scenes = {"scenes": {"kind": "scenes", "path": "coco", "part": "train"}}
    mix = {"classes": 0.0, "composite": 0.0}
    hooks = Hooks(backbone=open_backbone, note=notes.append)
    fit(schedule__steps=1, hooks=hooks, data__cached=6, data__sets=scenes, data__scenes=mix)
    (listed,) = (tmp_path / "data" / "features").glob("*/skipped.jsonl")
    files = {Path(json.loads(line)["file"]).name for line in listed.read_text().splitlines()}
    assert files
    assert files <= {f"{number}.png" for number in range(1, 6)}
    assert any(f"{len(files)} files cannot be used" in note for note in notes)
    run = fit("live", schedule__steps=6, data__sets=scenes, data__scenes=mix)
    assert run.skipped.is_file()


def test_cached_samples_whose_masks_hide_each_other(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> None:
    """Two masks were counted, one lies under the other: one entity and one prompt are left."""
    labels = np.zeros((3, 112, 112), np.uint8)
    labels[:, 20:60, 20:60] = 2
    for index in range(2):
        scene = CachedScene(
            np.zeros((3, 8, 8, 8), np.float16), np.zeros((3, 3, 64, 64), np.uint8), labels, 2, "pair", False
        )
        write_scene(tmp_path, index, scene)
    paths = sorted(tmp_path.glob("*.npz"))
    recipe = make_recipe(episode__recent=0.0, episode__pair_entities=[0.0, 1.0])
    drawn = CachedFeed(recipe, index_cache(paths)).draw(0, 0)
    assert drawn.masks is not None
    assert drawn.masks.shape[1] == len(drawn.prompts) == 1
    paths[1].write_bytes(paths[1].read_bytes()[:5000])
    with pytest.raises(SegicError, match=r"000001\.npz is broken"):
        index_cache(paths)
    with pytest.raises(SegicError, match=r"000001\.npz is broken"):
        load_cached(paths[1], None, np.random.default_rng(0), flip=False)


def _scene_data(root: Path) -> None:
    """Photographs with one large object each, ids 1..10 (10 is held out)."""
    (root / "coco" / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, 11):
        picture = rng.integers(0, 255, (150, 200, 3)).astype(np.uint8)
        cv2.circle(picture, (100, 75), 45, (0, 0, 250), -1)
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        ring = np.stack([100 + 45 * np.cos(angles), 75 + 45 * np.sin(angles)], 1).ravel().tolist()
        cv2.imwrite(str(root / "coco" / "images" / f"{number}.png"), picture)
        images.append({"id": number, "file_name": f"{number}.png", "width": 200, "height": 150})
        annotations.append({"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "segmentation": [ring]})
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "ball"}]}
    (root / "coco" / "instances.json").write_text(json.dumps(document))


def test_a_decoder_starts_from_a_file_that_fits(tmp_path: Path) -> None:
    config = load_recipe("segic-s").model.config()
    before, after = Decoder(config, 32, 32), Decoder(config, 32, 32)
    save_file({key: value.clone() for key, value in before.state_dict().items()}, tmp_path / "before.safetensors")
    load_initial(after, tmp_path / "before.safetensors", config)
    assert same(before.state_dict(), after.state_dict())
    other = replace(config, detail=0)
    with pytest.raises(UsageError, match="does not hold a decoder of this recipe's model"):
        load_initial(Decoder(other, 32, 32), tmp_path / "before.safetensors", other)
    save_tensors(before.state_dict(), tmp_path / "known.safetensors", {"config": json.dumps(config.as_dict())})
    with pytest.raises(UsageError, match=r"of another .*:\n  detail: 24 -> 0\nGive the file's with --set model\.KEY"):
        load_initial(Decoder(other, 32, 32), tmp_path / "known.safetensors", other)


@pytest.mark.usefixtures("folder_data")
def test_the_metric_is_found_before_the_first_step_and_not_trained(
    fit: Fit, tmp_path: Path, make_recipe: Callable[..., Recipe], open_backbone: OpenBackbone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("segic.training.session.SAMPLES", 3)
    recipe = make_recipe(schedule__steps=2, model__matching__width=12)
    run = fit("first", recipe=recipe)
    found = weights(run)
    assert found["metric.root"].shape == (32, 12)
    seed_everything(recipe)
    assert not torch.equal(found["metric.root"], Decoder(recipe.model.config(), 32, 32).metric.root)
    longer = make_recipe(schedule__steps=3, model__matching__width=12)
    assert torch.equal(weights(fit("longer", recipe=longer))["metric.root"], found["metric.root"])
    # A run that was killed before its first checkpoint finds it again.
    for path in (tmp_path / "longer" / "checkpoints").iterdir():
        path.unlink()
    assert torch.equal(weights(fit("longer", recipe=longer, resume=True))["metric.root"], found["metric.root"])
    # What a run starts from brings its metric along.
    monkeypatch.setattr("segic.training.session.set_metric", None)
    start = run.checkpoints()[-1]
    request = Request(recipe, tmp_path / "data", tmp_path / "second", device="cpu", init=start, quiet=True)
    assert torch.equal(weights(train(request, Hooks(backbone=open_backbone)))["metric.root"], found["metric.root"])


@pytest.mark.usefixtures("folder_data")
def test_a_run_of_a_preset_that_has_changed_is_neither_resumed_nor_exported(
    fit: Fit, tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    run = fit(recipe=make_recipe(schedule__steps=1))
    (run.path / "model.json").unlink()  # as by a version that did not note the model
    values = json.loads(run.recipe.read_text())
    values["model"]["detail"] = 6  # as if the preset had had that when the run was started
    values["schedule"]["steps"] = 2
    run.recipe.write_text(json.dumps(values))
    with pytest.raises(UsageError, match="another model than its recipe describes now"):
        fit(recipe=make_recipe(schedule__steps=2, model__detail=6), resume=True)
    with pytest.raises(UsageError, match=r"tensors differ, detail\.enter\.bias"):
        export_run(run.path, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.usefixtures("folder_data")
def test_a_preset_that_has_changed_without_its_shapes_is_noticed_and_exported_as_it_was(
    fit: Fit, tmp_path: Path, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(schedule__steps=1)
    run = fit(recipe=recipe)
    fit(recipe=recipe, resume=True)
    before = PRESETS["segic-s"]
    assert before.config.matching is not None
    after = replace(before.config, drift=0.3, matching=replace(before.config.matching, topk=7))
    monkeypatch.setitem(PRESETS, "segic-s", replace(before, config=after))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"preset has changed:\n  drift: 0\.1 -> 0\.3\n  matching\.topk: 4 -> 7\n"):
        fit(recipe=recipe, resume=True)
    export_run(run.path, tmp_path / "out.safetensors")
    config = config_in(tmp_path / "out.safetensors")
    assert config is not None
    assert config.matching is not None
    assert (config.drift, config.matching.topk) == (0.1, 4)
    (run.path / "model.json").write_text('{"of_the_future": 1}')
    with pytest.raises(UsageError, match=r"model\.json is none that this version of segic can read .*of_the_future"):
        export_run(run.path, tmp_path / "out.safetensors", overwrite=True)


@pytest.mark.usefixtures("folder_data")
def test_curves_for_tensorboard(fit: Fit) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = fit(schedule__steps=4, checkpoint_every=4)
    events = accumulators.EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"train/loss", "train/iou", "train/lr"} <= set(tags), tags
    logged = [event for event in run.events() if event["kind"] == "step"]
    assert events.Scalars("train/loss")[-1].step == 4
    assert events.Scalars("train/loss")[-1].value == pytest.approx(logged[-1]["loss"], rel=1e-5)
