"""Ctrl-C while a run trains."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
import torch

from segic.training import loop
from segic.training.feeds import Drawn, LiveFeed
from segic.training.interrupts import TrainingStopped
from segic.training.recipe import Recipe
from segic.training.reports import StepReport
from segic.training.run_folder import RunFolder, load_checkpoint
from segic.training.session import Hooks, OpenBackbone

Fit = Callable[..., RunFolder]


def equal(a: object, b: object) -> bool:
    """Whether two values of a checkpoint are the same to the last bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return a == b


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Ctrl-C, `times` over, in the middle of the step with that index: the optimizer has moved, the average not yet."""

    def arrange(index: int, times: int = 1) -> None:
        real = loop.Average.update

        def update(self: loop.Average, decoder: loop.Decoder, step: int) -> None:
            for _ in range(times if step == index + 1 else 0):
                signal.raise_signal(signal.SIGINT)
            real(self, decoder, step)

        monkeypatch.setattr(loop.Average, "update", update)

    return arrange


@pytest.mark.usefixtures("folder_data")
def test_a_checkpoint_of_the_last_whole_step_is_a_regular_one(
    fit: Fit, make_recipe: Callable[..., Recipe], interrupt: Callable[..., None], open_backbone: OpenBackbone
) -> None:
    notes: list[str] = []
    recipe = make_recipe(loss__points=64, episode__negatives=0.5, schedule__steps=3)
    regular = fit("regular", recipe=recipe.model_copy(update={"checkpoint_every": 2}))
    interrupt(1)
    with pytest.raises(TrainingStopped, match=r"stopped after step 2: .*stopped/checkpoints/step-00000002\.pt") as stop:
        fit("stopped", recipe=recipe, hooks=Hooks(backbone=open_backbone, note=notes.append))
    assert notes == ["stopping after this step; interrupted once more, at once and without a checkpoint"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert stop.value.checkpoint is not None
    a, b = load_checkpoint(regular.checkpoint(2)), load_checkpoint(stop.value.checkpoint)
    assert a.pop("seconds") > 0
    assert b.pop("seconds") > 0
    assert equal(a, b)
    interrupt(-1)
    run = fit("stopped", recipe=recipe, resume=True)
    assert [path.name for path in run.checkpoints()] == ["step-00000002.pt", "step-00000003.pt"]
    a, b = load_checkpoint(regular.checkpoint(3)), load_checkpoint(run.checkpoint(3))
    assert all(equal(a[key], b[key]) for key in ("decoder", "average", "optimizer"))


@pytest.mark.usefixtures("folder_data")
def test_a_second_interrupt_saves_no_half_step(fit: Fit, tmp_path: object, interrupt: Callable[..., None]) -> None:
    interrupt(1, times=2)
    with pytest.raises(KeyboardInterrupt) as stop:
        fit()
    assert not isinstance(stop.value, TrainingStopped)
    assert RunFolder(tmp_path / "run").checkpoints() == []  # type: ignore[operator]


@pytest.mark.usefixtures("folder_data")
def test_between_steps_it_ends_at_once(
    fit: Fit, make_recipe: Callable[..., Recipe], open_backbone: OpenBackbone
) -> None:
    """Here in a validation, which may take minutes, and is made up for."""
    recipe = make_recipe(validation={"every": 2, "video_every": 3, "metric": "video"}, checkpoint_every=2)

    def dies(*_: object) -> dict[str, float]:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("went on")

    with pytest.raises(TrainingStopped, match=r"after step 3: .*step-00000003\.pt"):
        fit(recipe=recipe, hooks=Hooks(backbone=open_backbone, video=dies))
    run = fit(recipe=recipe, resume=True, hooks=Hooks(backbone=open_backbone, video=lambda *_: {"video": 0.5}))
    assert [event["step"] for event in run.events() if event["kind"] == "validation"] == [3, 4]


@pytest.mark.usefixtures("folder_data")
def test_before_the_first_step_there_is_nothing_to_save(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(_self: LiveFeed, _step: int, _index: int) -> Drawn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LiveFeed, "draw", dies)
        with pytest.raises(TrainingStopped, match="stopped before the first step") as stop:
            fit()
    assert stop.value.checkpoint is None
    assert fit(resume=True).checkpoints()


@pytest.mark.usefixtures("folder_data")
def test_the_users_own_signal_handler_stays(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    real = loop.Trainer._step

    def step(self: loop.Trainer, number: int, drawn: list[Drawn]) -> StepReport:
        signal.raise_signal(signal.SIGINT)
        return real(self, number, drawn)

    monkeypatch.setattr(loop.Trainer, "_step", step)
    before = signal.signal(signal.SIGINT, lambda number, _frame: heard.append(number))
    try:
        fit()
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT] * 4
