"""What a training run is, in one small file: every value that changes its result.

A recipe is TOML; `segic/training/recipes/` has the named ones. Unknown keys and values of the wrong kind are refused.
How fast a run goes (device, workers, cache folder) is not part of it and is chosen on the command line.
"""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from segic.config import ModelConfig
from segic.errors import UsageError
from segic.presets import find_preset
from segic.text import CLASS_PROMPT, INSTANCE_PROMPT

PATCH = 14
STORED = "stored"  # the context of validation of a run's own recipe, which an earlier version accepted
NotNegative = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    """A table of a recipe."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Instructions(Part):
    """Table 4: which in-context instructions the decoder is given. None: as the preset has it."""

    geometric: bool | None = None
    points: bool | None = None
    visual: bool | None = None
    meta: Literal["text", "constant", "none"] | None = None
    negatives: bool | None = None


class Matching(Part):
    """Dense matching (`segic.config.MatchingConfig`), what differs from the preset's. topk = 0: the paper's similarity
    to the mask's mean feature.
    """

    topk: int | None = Field(default=None, ge=0)
    radius: int | None = Field(default=None, ge=1)
    ridge: float | None = Field(default=None, ge=0)
    ridge_share: float | None = Field(default=None, gt=0, lt=1)
    renew: int | None = Field(default=None, ge=0)
    width: int | None = Field(default=None, ge=0)
    carry: int | None = Field(default=None, ge=0)


class Model(Part):
    """The model to train: a preset, and what differs from it. Fields as in `segic.config.ModelConfig`."""

    preset: str
    backbone: str | None = None
    layers: list[int] | None = None
    size: int | None = Field(default=None, ge=PATCH)
    canvas: Literal["square", "frame"] | None = None
    matching: Matching | None = None
    residual: bool | None = None
    detail: int | None = Field(default=None, ge=0)
    recent: int | None = Field(default=None, ge=1)
    reappear: float | None = Field(default=None, ge=0, le=1)
    drift: float | None = Field(default=None, ge=0, le=2)
    cut: float | None = Field(default=None, ge=0, le=1)
    brighten: float | None = Field(default=None, ge=0, le=255)
    instructions: Instructions = Instructions()

    def config(self) -> ModelConfig:
        """The preset's configuration with these changes. UsageError for a preset that does not exist."""
        values = find_preset(self.preset).config.as_dict()
        values.update(self.model_dump(exclude={"preset", "instructions", "matching"}, exclude_none=True))
        if self.matching is not None and self.matching.topk == 0:
            values["matching"] = None
        elif self.matching is not None:
            values["matching"] = (values["matching"] or {}) | self.matching.model_dump(exclude_none=True)
        values["instructions"].update(self.instructions.model_dump(exclude_none=True))
        return ModelConfig.from_dict(values)


Kind = Literal["scenes", "semantic", "instance"]
Layout = Literal["coco", "lvis", "ade20k", "fss1000", "folder"]


class Composition(Part):
    """Probabilities of what a composite scene may hold; see `segic.training.composites.Composition`."""

    stamps: float = Field(default=0.5, ge=0, le=1)
    wallpaper: float = Field(default=0.2, ge=0, le=1)
    lookalike: float = Field(default=0.35, ge=0, le=1)
    lookalike_labelled: float = Field(default=0.5, ge=0, le=1)
    background_objects: float = Field(default=0.5, ge=0, le=1)
    other_background: float = Field(default=0.2, ge=0, le=1)
    fast: float = Field(default=0.25, ge=0, le=1)
    object_blur: float = Field(default=0.25, ge=0, le=1)
    reordered: float = Field(default=0.3, ge=0, le=1)
    clustered: float = Field(default=0.35, ge=0, le=1)
    beside: float = Field(default=0.0, ge=0, le=1)


class Scenes(Part):
    """Relative weights of the kinds of synthetic scene, and probabilities of a camera's defects; see `SceneMix`."""

    views: float = Field(default=0.40, ge=0)
    composite: float = Field(default=0.45, ge=0)
    classes: float = Field(default=0.15, ge=0)
    blur: float = Field(default=0.12, ge=0, le=1)
    noise: float = Field(default=0.2, ge=0, le=1)
    compression: float = Field(default=0.25, ge=0, le=1)
    softness: float = Field(default=0.15, ge=0, le=1)
    slow: float = Field(default=0.0, ge=0, le=1)
    composition: Composition = Composition()

    @model_validator(mode="after")
    def _some_kind(self) -> "Scenes":
        if not self.views + self.composite + self.classes:
            raise ValueError("scenes: views, composite and classes are all 0; give one of them a weight")
        return self


class DataSet(Part):
    """One data set of the mix.

    kind:   "scenes": three-frame scenes made of photographs. "semantic": the example is another image of the same
            class. "instance": two augmented views of one image are each other's example.
    layout: how it is published; see `segic.training.sources`. Scenes take COCO's format. In a mask of "folder" and
            "ade20k", 255 beside other values is no entity: it is trained as background, not left out of the loss.
    path:   its folder under the data root; images, annotations: under `path`, where they differ from the published
            layout. stamps, backgrounds: of scenes, under the data root; "" for none.
    weight: how often it is drawn, relative to the others; 0 leaves it out.
    part:   "train" leaves out images whose number is divisible by `holdout`, "held-out" takes only those.
    exclude_fold: leaves out the classes of a COCO-20i fold, 0 to 3 (table 2). classes: takes only these, by name.
    scenes: of scenes, instead of the data's. cached, cache_seed: a feature cache of this set's own, as in `data`.
    """

    kind: Kind
    layout: Layout = "coco"
    path: str
    images: str = ""
    annotations: str = ""
    stamps: str = ""
    backgrounds: str = ""
    weight: float = Field(default=1.0, ge=0)
    part: Literal["all", "train", "held-out"] = "all"
    holdout: int = Field(default=10, ge=2)
    exclude_fold: int | None = Field(default=None, ge=0, le=3)
    classes: list[str] = []
    scenes: Scenes | None = None
    cached: int = Field(default=0, ge=0)
    cache_seed: int = Field(default=0, ge=0)

    def refuse_ignored(self, key: str) -> None:
        """What the kind or layout has no use for is refused, not passed over. key: of this table, for messages."""
        scenes = self.kind == "scenes"
        useless = {
            "layout": scenes and self.layout != "coco", "classes": scenes and self.classes,
            "exclude_fold": self.exclude_fold is not None and (scenes or self.layout != "coco"),
            "stamps": not scenes and self.stamps, "backgrounds": not scenes and self.backgrounds,
            "scenes": not scenes and self.scenes is not None,
        }  # fmt: skip
        for name in (name for name, wrong in useless.items() if wrong):
            raise ValueError(f"{key}.{name} does not go with kind {self.kind!r} and layout {self.layout!r}")


class Augmentation(Part):
    """jitter: large-scale jitter of semantic pairs. crop: share of the image that an instance view shows.
    colour, flip: probabilities of colour jitter and a horizontal flip of an instance view."""

    jitter: list[float] = Field(default=[0.1, 2.0], min_length=2, max_length=2)
    crop: list[float] = Field(default=[0.3, 1.0], min_length=2, max_length=2)
    colour: float = Field(default=0.2, ge=0, le=1)
    flip: float = Field(default=0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> "Augmentation":
        for name, (low, high) in (("jitter", self.jitter), ("crop", self.crop)):
            if not 0 < low <= high or (name == "crop" and high > 1):
                most = " up to 1" if name == "crop" else ""
                raise ValueError(f"{name} {[low, high]}: expected a smaller and a larger positive number{most}")
        return self


class Data(Part):
    """size: side of the training pictures in pixels, a multiple of 14. entities: most masks an image.
    cached: samples whose features are computed once and kept; 0 computes features anew at every step. cache_seed: of
    these samples. Data sets with a cache of their own are not among them; a sample's cache is drawn by its size. A
    cache of one set of scenes has all their masks, whatever `entities` says: of them, a step takes as many as
    `episode.entities` and `pair_entities` say.
    least_area: pixels that a mask must cover in an augmented picture."""

    size: int = Field(ge=2 * PATCH, multiple_of=PATCH)
    entities: int = Field(default=10, ge=1, le=100)
    cached: int = Field(default=0, ge=0)
    cache_seed: int = Field(default=0, ge=0)
    least_area: int = Field(default=64, ge=1)
    sets: dict[str, DataSet]
    scenes: Scenes = Scenes()
    augmentation: Augmentation = Augmentation()

    @property
    def caches(self) -> dict[tuple[str, ...], tuple[int, int]]:
        """Which data sets are cached together -> (samples, seed); nothing where features are computed at every step."""
        used = {name: one for name, one in self.sets.items() if one.weight > 0}
        alone = {(name,): (one.cached, one.cache_seed) for name, one in used.items() if one.cached}
        rest = tuple(name for name in used if (name,) not in alone)
        return ({rest: (self.cached, self.cache_seed)} if rest and self.cached else {}) | alone

    @model_validator(mode="after")
    def _nothing_ignored(self) -> "Data":
        for name, one in self.sets.items():
            one.refuse_ignored(f"data.sets.{name}")
        return self

    @model_validator(mode="after")
    def _all_cached_or_none(self) -> "Data":
        used = {name for name, one in self.sets.items() if one.weight > 0}
        cached = {name for names in self.caches for name in names}
        if cached and cached != used:
            raise ValueError(
                f"data.sets.{min(used - cached)} is not cached, {min(cached)} is: give each a number of cached "
                "samples, or data.cached for the rest, or none at all"
            )
        return self


class Episode(Part):
    """How samples become predictions (section 3.4, table 5).

    reversion: probability of context reversion, after a pair of images; video_reversion: after a chain of three frames.
    video_predicted: probability that the recent frame of a chain carries the model's own prediction, the rest being
        its true masks. swap, video_swap: that example and target, or recent frame and target, change places.
    recent: probability that a step of cached scenes takes chains rather than pairs.
    entities, pair_entities: probabilities of a step of cached samples having 1, 2, ... entities, for chains and for
        pairs; empty: 1.
    negatives: probability that the entities of an image are each other's negatives. crossed_points: they also enter
        each other's lists with their points, as in video. text: probability of the text being used, else it is ''.
    class_text, instance_text: the words, {} being the class.
    flip: probability of a step of cached features being mirrored.
    video_disturbed: probability that a chain's recent frame has a part of its masks given to another owner, as happens
        where objects touch: the given example is then the better witness.
    video_first: probability that a chain is a video's first step instead: the recent frame, with its true masks, is the
        example as well.
    video_lost: probability that a chain's recent frame lacks the mask of one of its entities, as if it had been lost
        there: it is then to be found again.
    video_longer: probability that a chain without reversion goes on after its second prediction, by 1 to video_most
        more (equally likely): back and forth between the recent frame and the target, each from the example and the
        prediction before. The last two of a chain are trained; the others bring its own mistakes about, and their
        growth.
    video_renewed: probability that a chain's target models are fitted to its recent frame as well, as they are now and
        then in a video (`matching.renew`).
    """

    reversion: float = Field(default=1.0, ge=0, le=1)
    video_reversion: float = Field(default=0.0, ge=0, le=1)
    video_predicted: float = Field(default=1.0, ge=0, le=1)
    swap: float = Field(default=0.0, ge=0, le=1)
    video_swap: float = Field(default=0.0, ge=0, le=1)
    recent: float = Field(default=1.0, ge=0, le=1)
    entities: list[NotNegative] = []
    pair_entities: list[NotNegative] = []
    negatives: float = Field(default=0.5, ge=0, le=1)
    crossed_points: bool = False
    text: float = Field(default=0.75, ge=0, le=1)
    class_text: str = CLASS_PROMPT
    instance_text: str = INSTANCE_PROMPT
    flip: float = Field(default=0.0, ge=0, le=1)
    video_disturbed: float = Field(default=0.0, ge=0, le=1)
    video_first: float = Field(default=0.0, ge=0, le=1)
    video_lost: float = Field(default=0.0, ge=0, le=1)
    video_longer: float = Field(default=0.0, ge=0, le=1)
    video_most: int = Field(default=1, ge=1)
    video_renewed: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _usable(self) -> "Episode":
        for name, shares in (("entities", self.entities), ("pair_entities", self.pair_entities)):
            if shares and not sum(shares):
                raise ValueError(f"episode.{name} {shares}: expected at least one number above 0, or none at all")
        try:
            told = self.class_text.format("cat") != self.class_text.format("dog")
        except (LookupError, ValueError):
            told = False
        if not told:
            raise ValueError(f"episode.class_text {self.class_text!r}: expected words and {{}} for the class")
        return self


class Loss(Part):
    """Weights of the loss's parts; score: of the squared error of the decoder's own estimate of its IoU.

    points: a mask, by importance sampling; 0 takes the whole map. oversampling, uncertain: as in `sample_points`.
    """

    ce: float = Field(default=1.0, ge=0)
    dice: float = Field(default=1.0, ge=0)
    score: float = Field(default=0.0, ge=0)
    points: int = Field(default=12544, ge=0)
    oversampling: float = Field(default=3.0, ge=1)
    uncertain: float = Field(default=0.75, ge=0, le=1)


class Optimizer(Part):
    """AdamW. decay: which parameters weight decay acts on. clip: largest norm of the gradient, 0 for none.
    ema: decay of the running average of the weights, which is what is validated and exported; 0 for none."""

    lr: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(default=[0.9, 0.999], min_length=2, max_length=2)
    decay: Literal["all", "matrices"] = "all"
    clip: float = Field(default=1.0, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)


class Schedule(Part):
    """Length and learning rate. One of steps and epochs is given; an epoch is `samples` samples.

    shape: "steps" multiplies the rate by `factor` after as many whole epochs as `milestones` says, as the authors do;
    "cosine" falls to `floor` of the rate; "constant". warmup: steps of linear rise.
    """

    steps: int = Field(default=0, ge=0)
    epochs: int = Field(default=0, ge=0)
    samples: int = Field(default=160_000, ge=1)
    shape: Literal["steps", "cosine", "constant"] = "steps"
    milestones: list[Annotated[int, Field(ge=1)]] = []
    factor: float = Field(default=0.1, gt=0, le=1)
    floor: float = Field(default=0.0, ge=0, le=1)
    warmup: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_length(self) -> "Schedule":
        if (self.steps > 0) == (self.epochs > 0):
            raise ValueError("schedule: give either steps or epochs")
        return self


class Validation(Part):
    """Every `every` steps on `samples` fixed episodes of `sets`, and every `video_every` steps on the video folder that
    the command line names; both at the end too, and only there with 0. metric: which of the two chooses the best
    checkpoint. grid: episodes in the picture."""

    every: int = Field(default=0, ge=0)
    samples: int = Field(default=96, ge=1)
    seed: int = Field(default=99, ge=0)
    video_every: int = Field(default=0, ge=0)
    metric: Literal["episodes", "video"] = "episodes"
    grid: int = Field(default=6, ge=0)
    sets: dict[str, DataSet] = {}

    @model_validator(mode="after")
    def _nothing_ignored(self, info: ValidationInfo) -> "Validation":
        if info.context == STORED:
            return self
        for name, one in self.sets.items():
            one.refuse_ignored(f"validation.sets.{name}")
            if one.cached or one.cache_seed:
                raise ValueError(
                    f"validation.sets.{name} has no cache of its own: the held-out episodes are cached where the data "
                    "are, validation.samples of them from validation.seed; leave out cached and cache_seed"
                )
        return self


class Recipe(Part):
    """All of it. batch: samples a step over all processes. checkpoint_every: steps."""

    name: str
    description: str = ""
    seed: int = Field(default=0, ge=0)
    batch: int = Field(ge=1)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    deterministic: bool = False
    checkpoint_every: int = Field(default=500, ge=1)
    model: Model
    data: Data
    episode: Episode = Episode()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule
    validation: Validation = Validation()

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        try:
            config = self.model.config()
        except UsageError as error:
            raise ValueError(f"model: {error}") from error
        if not any(one.weight > 0 for one in self.data.sets.values()):
            raise ValueError("data.sets: every data set has weight 0; nothing is left to train on")
        if (
            config.instructions.meta == "text"
            and self.data.caches
            and any(one.kind == "semantic" for one in self.data.sets.values() if one.weight > 0)
        ):
            raise ValueError("data.cached: cached samples keep no class names; train on text with cached = 0")
        return self

    @property
    def config(self) -> ModelConfig:
        """The model's, with the texts that it is trained with, if it takes any."""
        config = self.model.config()
        if config.instructions.meta != "text":
            return config
        words = self.episode
        told = replace(config.instructions, class_text=words.class_text, instance_text=words.instance_text)
        return replace(config, instructions=told)

    @property
    def steps(self) -> int:
        """Length of the run in optimizer steps."""
        return self.schedule.steps or self.schedule.epochs * self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """An epoch that does not divide evenly drops its rest."""
        return max(1, self.schedule.samples // self.batch)

    def as_dict(self) -> dict[str, Any]:
        return self.model_dump()
