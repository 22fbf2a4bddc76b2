"""The training loop: draws, predicts, steps, saves."""

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segic.backbones.base import Backbone
from segic.config import ModelConfig
from segic.decoder import Decoder
from segic.devices import choose_dtype, peak_host_memory
from segic.errors import SegicError, UsageError
from segic.training.chains import FIGURES, group_loss
from segic.training.distributed import Processes
from segic.training.feeds import Drawn, Feed
from segic.training.groups import Group, Texts, make_groups
from segic.training.interrupts import Interrupts, TrainingStopped
from segic.training.loader import Loader
from segic.training.optimizer import Average, learning_rate, make_optimizer
from segic.training.plan import StepPlan, Stream, generator, plan_step
from segic.training.recipe import Recipe
from segic.training.reports import Observer, StepReport, Validate
from segic.training.run_folder import CANNOT_WRITE, RunFolder, load_checkpoint, save_checkpoint, write_state

PATIENCE = 20  # steps in a row whose gradient is not finite, before the run is stopped


@dataclass
class Setup:
    """What a run needs beside its recipe. backbone: None where all features are cached. texts: features by prompt.

    validate: called after the steps at which it is due. workers: threads that make samples. note: told, in the first
    process, that the run ends after the step under way.
    """

    recipe: Recipe
    config: ModelConfig
    decoder: Decoder
    backbone: Backbone | None
    feed: Feed
    run: RunFolder
    device: torch.device
    texts: Texts = field(default_factory=dict)
    processes: Processes = field(default_factory=Processes)
    workers: int = 2
    observer: Observer | None = None
    validate: Validate | None = None
    note: Callable[[str], None] = lambda _text: None


@dataclass
class _State:
    """All that a checkpoint holds. seconds: of training, over all sessions. best: of the metric so far."""

    step: int = 0
    seconds: float = 0.0
    best: float | None = None


class Trainer:
    """One run in one process. `resume` before `fit` goes on where the newest checkpoint was written."""

    def __init__(self, setup: Setup):
        self.setup = setup
        self.recipe = setup.recipe
        self.decoder = setup.decoder.to(setup.device).train()
        setup.processes.share_weights(self.decoder)
        self.parameters = [p for p in self.decoder.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(self.decoder, self.recipe.optimizer)
        self.average = Average(self.decoder, self.recipe.optimizer.ema)
        self.precision = choose_precision(self.recipe.precision, setup.device)
        self.scaler = torch.amp.GradScaler(setup.device.type, enabled=self.precision == torch.float16)
        self.state = _State()
        self._saved = 0  # step of the checkpoint that was written or read last
        self.indices = list(setup.processes.share(self.recipe.batch))

    def resume(self, note: Callable[[str], None] = lambda _: None) -> int:
        """Loads the newest checkpoint that the first process can read, and returns the number of steps it has done.
        note: told which newer ones could not be read, and where the best one cannot.

        The data's order and every random number depend on the seed and the step alone (`segic.training.plan`), those
        of the loss's points on the process as well, so the weights, the optimizer, the average and the step are all
        there is to a run; with another number of processes, it goes on with other points. A run without any checkpoint
        starts anew. Raises SegicError where there are some and none can be read, and UsageError for those of another
        model or, since it would not be continued exactly, of another precision.
        """
        first = self.setup.processes.first
        found = self._newest(note) if first else None
        # All go on from the same one: what another process finds newest in a shared folder may be another.
        name = self.setup.processes.gather(found[0].name if found else None)[0]
        if name is not None:
            path = self.setup.run.path / "checkpoints" / name
            self._continue(path, found[1] if found else load_checkpoint(path, self.setup.device))
        if first:
            self.state.best = self._best(note)
        return self.state.step

    def _best(self, note: Callable[[str], None]) -> float | None:
        """The best checkpoint's value, which may be newer than the step's, written before its validation. None where
        there is no such file to be read: the next validation writes one, rather than none being better than a value
        that nothing is left of.
        """
        best = self.setup.run.best
        if not best.is_file():
            return None
        try:
            value: float | None = load_checkpoint(best)["best"]
        except SegicError as error:
            note(f"the next validation chooses the best checkpoint anew: {error}")
            return None
        return value

    def _newest(self, note: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that can be read; None where there is none at all."""
        run, unread = self.setup.run, []
        for path in reversed(run.checkpoints()):
            try:
                saved = load_checkpoint(path, self.setup.device)
            except SegicError as error:
                unread.append(str(error))
                continue
            for reason in unread:
                note(f"going on from {path.name}: {reason}")
            return path, saved
        if unread:
            left = f"{run.best} may have weights to start another run from, with --init" if run.best.is_file() else ""
            raise SegicError("; ".join([f"no checkpoint of {run.path} can be read", *unread, *filter(None, [left])]))
        return None

    def _continue(self, path: Path, saved: Mapping[str, Any]) -> None:
        """Takes everything from a checkpoint, read from `path`."""
        precision = saved.get("precision", str(self.precision))
        if precision != str(self.precision):
            raise UsageError(
                f"{path} was trained in {precision}, this device would go on in {self.precision}; resume on a device "
                "such as the first one, or start a run with a precision that both have"
            )
        try:
            self.decoder.load_state_dict(saved["decoder"])
        except RuntimeError as error:
            raise UsageError(
                f"{path} is of another model than its recipe describes now, since the preset has changed; resume "
                f"with the version of segic that started it ({error})"
            ) from error
        self.optimizer.load_state_dict(saved["optimizer"])
        if saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        for key, value in saved["average"].items():
            self.average.tensors[key].copy_(value)
        self.state = _State(saved["step"], saved["seconds"], saved["best"])
        self._saved = self.state.step

    def fit(self) -> None:
        """Trains to the recipe's last step.

        Raises SegicError for a loss that is not finite (the batch is saved), for data that give nothing usable, and for
        checkpoints that cannot be written; TrainingStopped where it is interrupted, with a checkpoint of the last whole
        step. A second interrupt within one step ends the run as it is, with KeyboardInterrupt.
        """
        with Interrupts(self.setup.processes, self.setup.device, self._tell_of_end) as interrupts:
            try:
                self._fit(interrupts)
            except KeyboardInterrupt:
                if not interrupts.safe:
                    raise
                step = self.state.step
                if step != self._saved:
                    self._save()
                raise TrainingStopped(step, self.setup.run.checkpoint(step) if step else None) from None

    def _tell_of_end(self) -> None:
        if self.setup.processes.first:
            self.setup.note("stopping after this step; interrupted once more, at once and without a checkpoint")

    def _fit(self, interrupts: Interrupts) -> None:
        steps, first = self.recipe.steps, self.setup.processes.first
        if first and self.setup.observer:
            self.setup.observer.begin(self.state.step, steps)
        # A run that was killed in a validation has the step's checkpoint, but not its scores.
        if self.state.step and not self.setup.processes.gather(self._validated())[0]:
            self._validate()
        bad, session, mark = 0, 0.0, time.perf_counter()
        with Loader(self.setup.feed, self.indices, self.state.step, steps, workers=self.setup.workers) as loader:
            for step, drawn in loader:
                with interrupts.step():
                    report = self._step(step, drawn)
                    seconds = time.perf_counter() - mark
                    session += seconds
                    self.state.seconds += seconds
                    self.state.step = step + 1
                    if first and self.setup.observer:
                        self.setup.observer.step(replace(report, seconds=seconds, waited=loader.waited / session))
                    bad = 0 if math.isfinite(report.norm) else bad + 1
                    if bad >= min(PATIENCE, steps):
                        raise SegicError(
                            f"the gradient was not finite for {bad} steps up to step {step + 1}; lower optimizer.lr, "
                            "or set precision to float32"
                        )
                if self.state.step % self.recipe.checkpoint_every == 0 or self.state.step == steps:
                    self._save()
                self._validate()
                mark = time.perf_counter()

    def _step(self, step: int, drawn: list[Drawn]) -> StepReport:
        setup, recipe = self.setup, self.recipe
        plan = plan_step(recipe, step)
        rate = learning_rate(recipe, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        device = setup.device
        points = torch.Generator(device)
        seed = generator(recipe.seed, Stream.POINTS, step, setup.processes.rank).integers(2**62)
        points.manual_seed(int(seed))
        groups = make_groups(drawn, setup.config, setup.backbone, device, setup.texts)
        figures = torch.zeros(len(FIGURES), device=device)
        images = 0
        for one in groups:
            share = one.size / recipe.batch
            with self._autocast():
                terms = group_loss(
                    self.decoder, setup.config, one, plan, recipe.loss,
                    crossed_points=recipe.episode.crossed_points, generator=points,
                )  # fmt: skip
            self.scaler.scale(terms.loss * share).backward()
            figures += terms.figures * share
            images += one.size * one.batch.masks.shape[1]
        norm = self._descend(figures, groups, plan)
        mine = {s.file: s for one in drawn for s in one.skipped}
        counts = figures.new_tensor([images, len(mine)])
        *means, images_of_all, files = setup.processes.sum_(torch.cat([figures, counts])).tolist()
        if files:  # the first process lists what any of them has left out
            mine = {file: s for theirs in setup.processes.gather(mine) for file, s in theirs.items()}
        values, skipped = dict(zip(FIGURES, means, strict=True)), tuple(mine.values())
        return StepReport(step + 1, values, rate, norm, 0.0, int(images_of_all), 0.0, most_memory(device), skipped)

    def _descend(self, figures: Tensor, groups: list[Group], plan: StepPlan) -> float:
        """The optimizer's step, and the gradient's norm before clipping. Stops the run when the loss is not finite."""
        setup = self.setup
        # All processes must agree to stop, or the others would wait for this one for ever.
        broken = setup.processes.sum_((~figures[:1].isfinite()).float()).item()
        if broken:
            step = plan.step + 1  # as the log and the bar count
            where = f"the last checkpoint is {next(reversed(setup.run.checkpoints()), 'none')}"
            what = "Another process has saved its batch"
            if not figures[0].isfinite():
                path = setup.run.path / f"failed-step-{step:08d}-{setup.processes.rank}.pt"
                try:
                    save_batch(path, groups, step)
                    what = f"Its batch is saved as {path}"
                except CANNOT_WRITE as error:
                    what = f"Its batch could not be saved as {path} ({error})"
            setup.processes.wait()  # torchrun ends all processes when the first one fails
            raise SegicError(
                f"the loss of step {step} is not finite. {what}; {where}. Look for broken masks in it, lower "
                "optimizer.lr, or set precision to float32"
            )
        setup.processes.sum_gradients(self.parameters)  # before unscaling, so that all see the same overflow
        self.scaler.unscale_(self.optimizer)
        clip = self.recipe.optimizer.clip or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, clip))
        if math.isfinite(norm):
            self.scaler.step(self.optimizer)
            self.average.update(self.decoder, plan.step + 1)
        self.scaler.update()
        return norm

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(self.setup.device.type, self.precision)

    def _save(self) -> None:
        """Written by the first process; all of them hold the same weights."""
        if self.setup.processes.first:
            save_checkpoint(self.setup.run, self.setup.run.checkpoint(self.state.step), self.saved())
        self.setup.processes.wait()
        self._saved = self.state.step

    def saved(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "step": self.state.step,
            "seconds": self.state.seconds,
            "best": self.state.best,
            "decoder": self.decoder.state_dict(),
            "average": self.average.tensors,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "precision": str(self.precision),
        }

    def _validated(self) -> bool:
        """Whether the log has this step's validation."""
        events = self.setup.run.events()
        return any(e.get("kind") == "validation" and e.get("step") == self.state.step for e in events)

    def _validate(self) -> None:
        setup = self.setup
        if setup.validate is None or not setup.validate.due(self.state.step):
            return
        if setup.processes.first:
            decoder = averaged(self.decoder, self.average)
            scores = dict(setup.validate(decoder, self.state.step))
            value = scores.get(self.recipe.validation.metric)
            better = value is not None and (self.state.best is None or value > self.state.best)
            if better:
                save_checkpoint(setup.run, setup.run.best, {**self.saved(), "best": value})
                self.state.best = value  # after the file, which an interrupt may keep from being written
            if setup.observer:
                setup.observer.validated(self.state.step, scores, better)
        setup.processes.wait()


@torch.no_grad()
def averaged(decoder: Decoder, average: Average) -> Decoder:
    """A copy of the decoder with the averaged weights, in evaluation mode."""
    out = copy.deepcopy(decoder)
    out.load_state_dict(average.tensors)
    return out.eval().requires_grad_(False)


def save_batch(path: Path, groups: list[Group], step: int) -> None:
    """All tensors and file names of a step, to find out what was wrong with it. Raises one of CANNOT_WRITE."""
    content = [
        {
            "features": g.batch.features, "pixels": g.batch.pixels, "masks": g.batch.masks, "meta": g.meta,
            "names": [list(names) for names in g.names], "kinds": list(g.kinds),
        }
        for g in groups
    ]  # fmt: skip
    write_state(path, {"step": step, "groups": content})


def most_memory(device: torch.device) -> int:
    """Bytes: the largest amount held so far on the GPU, else by this process; 0 where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_host_memory() or 0


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """auto: bfloat16 where the device has it in hardware, else float16 on CUDA (with loss scaling), else float32."""
    if device.type != "cuda" and name == "float16":
        raise UsageError(f"precision float16 needs a CUDA device, this is {device}; take bfloat16, float32 or auto")
    if device.type == "mps" and name == "auto":
        return torch.float32
    return choose_dtype(name, device)
