"""From a recipe and folders to a run that goes: everything is opened and checked before the first step."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from segic.backbones import Backbone, build_backbone, check_backbone
from segic.config import ModelConfig
from segic.decoder import Decoder
from segic.devices import choose_device, choose_dtype
from segic.errors import SegicError, UsageError
from segic.loading import config_in
from segic.text import TextEncoder
from segic.training.backbone_file import BackboneFile
from segic.training.cache import Progress, cache_name, fill_cache, left_out
from segic.training.distributed import Processes, join, leave
from segic.training.episodes import Batch
from segic.training.feeds import CachedFeed, Feed, LiveFeed, index_cache, load_cached
from segic.training.groups import Texts, make_groups
from segic.training.journal import Journal, circumstances
from segic.training.loop import Setup, Trainer
from segic.training.plan import Stream, generator
from segic.training.recipe import DataSet, Recipe
from segic.training.recipe_file import difference
from segic.training.run_folder import RunFolder, append_line, load_checkpoint
from segic.training.sources import Source, open_sources
from segic.training.texts import encode_texts
from segic.training.validation import Episodes
from segic.training.whitening import SAMPLES, set_metric
from segic.weights.tensors import load_tensors

# (config, backbone, decoder) -> scores on videos, "video" among them.
VideoScores = Callable[[ModelConfig, Backbone, Decoder], Mapping[str, float]]
OpenBackbone = Callable[[ModelConfig], Backbone]


@dataclass(frozen=True)
class Request:
    """What the command line, or a Python user, asks for.

    data: root of the data sets. out: the run's folder. resume: go on with it. device, workers: where and how fast; no
    result depends on the workers. cache: folder for cached features, by default data/features; of one data root.
    backbone_weights: a local file, which a resume need not name again. init: a decoder's weights to start from, a
    checkpoint or safetensors file; refused for a resume that has a checkpoint.
    """

    recipe: Recipe
    data: Path
    out: Path
    resume: bool = False
    device: str = "auto"
    workers: int = 2
    cache: Path | None = None
    backbone_weights: Path | None = None
    init: Path | None = None
    quiet: bool = False


@dataclass(frozen=True)
class Hooks:
    """What a caller may put in place of the defaults. video: scores on video folders, which `segic` knows nothing of.
    note: told what was left out of the data, and when an interrupted run ends. progress: of the feature cache, by what
    it is for."""

    video: VideoScores | None = None
    text: TextEncoder | None = None
    backbone: OpenBackbone | None = None
    note: Callable[[str], None] = lambda _text: None
    progress: Callable[[str], Progress | None] = field(default=lambda _what: None)


def train(request: Request, hooks: Hooks | None = None) -> RunFolder:
    """Runs a recipe to its end. Under torchrun every process calls this.

    Raises UsageError for a request that cannot be carried out, SegicError for a run that fails, and TrainingStopped
    (`segic.training.interrupts`) for one that Ctrl-C ends between its first step and its last.
    """
    hooks = hooks or Hooks()
    device = choose_device(request.device)
    processes, device = join(device)
    try:
        return _train(request, hooks, processes, device)
    finally:
        leave()


def _train(request: Request, hooks: Hooks, processes: Processes, device: torch.device) -> RunFolder:
    recipe = request.recipe
    run = RunFolder(request.out)
    processes.share(recipe.batch)
    # Reading the data takes minutes: what is refused at once comes first.
    if hooks.backbone is None:
        check_backbone(recipe.config.backbone, recipe.config.layers)
    if recipe.validation.metric == "video" and hooks.video is None:
        raise UsageError('validation.metric is "video", but no folder of videos is given; give --davis FOLDER')
    init = request.init
    if request.resume:
        run.resume(recipe.as_dict())
        run.refuse_other_model(recipe.config)
        if init is not None and (saved := run.checkpoints()):
            raise UsageError(
                f"{run.path} goes on from its checkpoint {saved[-1].name}, not from the weights {init}; leave out "
                "--init, or start another run from them, without --resume and with another --out"
            )
        init = init or run.started_from()
    elif processes.first:
        run.refuse_existing()
    sources = open_sources(recipe.data.sets, recipe.data, request.data)
    held_out = open_sources(recipe.validation.sets, recipe.data, request.data)
    config = recipe.config
    texts = encode_texts(recipe, config, [*sources, *held_out], hooks.text)
    seed_everything(recipe)
    weights = _backbone_weights(request, hooks, run, config)
    backbone = (hooks.backbone or _opener(weights.path if weights else None))(config)
    backbone = backbone.to(device=device, dtype=choose_dtype("auto", device))
    decoder = Decoder(config, backbone.width, backbone.width)
    if init is not None:
        load_initial(decoder, init, config)
    # After what may be refused, before any long work, and before another process can look for it.
    if not request.resume and processes.first:
        run.create(recipe.as_dict(), init, weights, config)
    processes.wait()
    notes = [f"{source.name}: {note}" for source, _ in sources for note in source.notes]
    notes += [f"held-out {source.name}: {note}" for source, _ in held_out for note in source.notes]
    root = str(request.data.resolve())
    if request.resume and (before := run.data_root()) not in (None, root):
        notes.append(f"the data are read from {root}, before from {before}: the run is the same if the files are")
    if processes.first:
        for note in notes:
            hooks.note(note)
    opening = _Opening(request, hooks, processes, backbone, config, weights.cache_key if weights else "")
    feed = opening.feed(sources)
    episodes = opening.episodes(held_out, device, texts) if held_out else None
    for note in opening.left_out:
        if processes.first:
            hooks.note(note)
    notes += opening.left_out
    # The other processes are given it with the weights.
    fresh = init is None and not (request.resume and run.checkpoints())
    if decoder.metric is not None and fresh and processes.first:
        set_metric(decoder.metric, _samples(recipe, feed, config, backbone, device, texts))
    journal = Journal(run, quiet=request.quiet) if processes.first else None
    validate = _Validation(recipe, config, backbone, run, episodes, hooks.video)
    setup = Setup(
        recipe, config, decoder, None if recipe.data.caches else backbone, feed, run, device, texts, processes,
        request.workers, journal, validate, hooks.note,
    )  # fmt: skip
    trainer = Trainer(setup)
    start = trainer.resume(hooks.note) if request.resume else 0
    if processes.first:
        run.append("resume" if request.resume else "start", {
            "step": start, "data": root, "notes": notes, "init": init.name if init else None,
            **circumstances(device, processes.count),
        })  # fmt: skip
    try:
        trainer.fit()
    finally:
        if journal is not None:
            journal.close()
    if processes.first:
        run.append("end", {"step": trainer.state.step, "seconds": trainer.state.seconds, "best": trainer.state.best})
    return run


def _samples(
    recipe: Recipe, feed: Feed, config: ModelConfig, backbone: Backbone, device: torch.device, texts: Texts
) -> Iterator[Batch]:
    """The samples of the run's first steps, or as many of a cache, for what is found in them before training. Cached
    ones come with all their entities, since what a step leaves out is no background.
    """
    count = min(SAMPLES, recipe.steps * recipe.batch)
    for index in range(count):
        if isinstance(feed, CachedFeed):
            paths = feed.index.paths
            rng = generator(recipe.seed, Stream.SAMPLE, index)
            path = paths[index * len(paths) // count]
            drawn = load_cached(path, None, rng, flip=False, whole=config.matching is None)
        else:
            drawn = feed.draw(*divmod(index, recipe.batch))
        (group,) = make_groups([drawn], config, backbone, device, texts)
        yield group.batch


@dataclass(frozen=True)
class _Opening:
    """Makes feeds, cached or not. weights: sha256 of the backbone's file where that is not the registered one, else "".
    left_out: of the caches, in words.
    """

    request: Request
    hooks: Hooks
    processes: Processes
    backbone: Backbone
    config: ModelConfig
    weights: str = ""
    left_out: list[str] = field(default_factory=list)

    def feed(self, sources: list[tuple[Source, float]]) -> Feed:
        recipe = self.request.recipe
        paths: list[Path] = []
        for names, (count, seed) in recipe.data.caches.items():
            sets = {name: recipe.data.sets[name] for name in names}
            among = [(source, weight) for source, weight in sources if source.name in names]
            paths += self._cached(sets, among, LiveFeed(recipe, among), count, seed, f"features of {', '.join(names)}")
        return CachedFeed(recipe, index_cache(paths)) if paths else LiveFeed(recipe, sources)

    def episodes(
        self, sources: list[tuple[Source, float]], device: torch.device, texts: Mapping[str, torch.Tensor]
    ) -> Episodes:
        recipe, how = self.request.recipe, self.request.recipe.validation
        live = LiveFeed(recipe, sources)
        cached: list[Path] = []
        if recipe.data.caches:
            cached = self._cached(how.sets, sources, live, how.samples, how.seed, "held-out features")
        return Episodes(recipe, self.config, self.backbone, device, texts, cached, live)

    def _cached(
        self, sets: dict[str, DataSet], sources: list[tuple[Source, float]], live: LiveFeed, count: int, seed: int,
        what: str,
    ) -> list[Path]:  # fmt: skip
        data = self.request.recipe.data
        root = self.request.cache or self.request.data / "features"
        folder = root / cache_name(sets, data, seed, self.config.backbone, self.config.layers, self.weights)
        progress = self.hooks.progress(what) if self.processes.first else None
        paths = fill_cache(folder, sets, sources, live, self.backbone, data, count, seed, self.processes, progress)
        self.left_out.extend(left_out(paths))
        return paths


@dataclass(frozen=True)
class _Validation:
    """Held-out episodes every `every` steps, videos every `video_every` steps; what there is of both at the end."""

    recipe: Recipe
    config: ModelConfig
    backbone: Backbone
    run: RunFolder
    episodes: Episodes | None
    video: VideoScores | None

    def due(self, step: int) -> bool:
        how = self.recipe.validation
        return (self.episodes is not None and self._now(step, how.every)) or (
            self.video is not None and self._now(step, how.video_every)
        )

    def __call__(self, decoder: Decoder, step: int) -> dict[str, float]:
        how = self.recipe.validation
        scores: dict[str, float] = {}
        if self.episodes is not None and self._now(step, how.every):
            known = set(self.episodes.left_out)
            scores |= self.episodes(decoder, self.run.predictions / f"step-{step:08d}.png")
            for file in self.episodes.left_out.keys() - known:
                append_line(self.run.skipped, {"file": file, "reason": self.episodes.left_out[file]})
        if self.video is not None and self._now(step, how.video_every):
            scores |= self.video(self.config, self.backbone, decoder)
        return scores

    def _now(self, step: int, every: int) -> bool:
        return step == self.recipe.steps or (every > 0 and step % every == 0)


def _backbone_weights(request: Request, hooks: Hooks, run: RunFolder, config: ModelConfig) -> BackboneFile | None:
    """The backbone's weights: those that the user names, else those that the run to be continued was started with,
    else the registered ones; None for a backbone of the hooks'. UsageError for a resume with others.
    """
    given = BackboneFile.at(request.backbone_weights) if request.backbone_weights is not None else None
    before = run.backbone() if request.resume else None
    if given is None and before is not None and before.path is not None:
        given = BackboneFile.at(before.path)
    now = given or (BackboneFile.kept(config.backbone) if hooks.backbone is None else None)
    if not request.resume:
        return now
    # Of the registered ones, runs of earlier versions noted nothing.
    if (given is not None) if before is None else (now is not None and now.sha256 != before.sha256):
        was = before or "the registered ones, without --backbone-weights"
        raise UsageError(
            f"{run.path} was started with other weights of the backbone, {was}, than {now}; give the same file with "
            f"--backbone-weights, or leave that out: `segic models fetch --force {config.backbone}` gets the registered"
        )
    return now


def _opener(weights: Path | None) -> OpenBackbone:
    def open_(config: ModelConfig) -> Backbone:
        from segic.weights.resolve import resolve

        return build_backbone(config.backbone, config.layers, resolve(config.backbone, weights))

    return open_


def seed_everything(recipe: Recipe) -> None:
    """The decoder's first weights come from this seed; nothing after them draws from the global random states."""
    random.seed(recipe.seed)
    np.random.seed(recipe.seed)  # noqa: NPY002 - other libraries draw from it
    torch.manual_seed(recipe.seed)
    if recipe.deterministic:
        # Some GPU kernels (the gradient of bilinear sampling) have no deterministic twin: torch warns about those.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


def load_initial(decoder: Decoder, path: Path, config: ModelConfig) -> None:
    """Weights to start from: a run's checkpoint (its average) or an exported file. UsageError when they do not fit
    `config`, the decoder's, with what differs where the file says what model it is of.
    """
    own = None
    if path.suffix == ".safetensors":
        own = config_in(path)
        tensors = {key: value.float() for key, value in load_tensors(path).items()}
    else:
        try:
            state = load_checkpoint(path)
        except UsageError:
            raise
        except SegicError as error:
            raise UsageError(
                f"{path}: neither a checkpoint of a training run (.pt) nor a decoder (.safetensors), or damaged"
            ) from error
        if "average" not in state:
            raise UsageError(
                f"{path} is no checkpoint of a run; `segic models convert` makes a .safetensors file of a released one"
            )
        tensors = state["average"]
    try:
        decoder.load_state_dict(tensors)
    except RuntimeError as error:
        other = f"{path} does not hold a decoder of this recipe's model"
        if own is None or not (lines := difference(own.as_dict(), config.as_dict())):
            raise UsageError(f"{other}: {error}") from error
        raise UsageError(
            f"{other}, but of another (the file's -> the recipe's):\n  " + "\n  ".join(lines) + "\nGive the file's "
            "with --set model.KEY=VALUE, or start without --init"
        ) from error
