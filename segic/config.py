"""What makes one SEGIC model differ from another. Saved with its decoder as JSON; every field has a plain value."""

from dataclasses import asdict, dataclass, field, fields
from operator import index
from typing import Any, Literal

from segic.errors import UsageError
from segic.text import RELEASED_CLASS_PROMPT, RELEASED_INSTANCE_PROMPT

# Below, nothing is left to match, above, position embeddings make no sense.
SIZES = (112, 2016)  # what a user may ask for as `size`, pixels


def check_size(size: int) -> int:
    """`size`, where it is a whole number of pixels within SIZES; else UsageError."""
    try:
        whole = index(size)
    except TypeError:
        raise UsageError(f"size {size!r} is a {type(size).__name__}; expected a whole number of pixels") from None
    if not SIZES[0] <= whole <= SIZES[1]:
        raise UsageError(f"size {whole}: expected {SIZES[0]} to {SIZES[1]} pixels")
    return whole


@dataclass(frozen=True)
class MatchingConfig:
    """Dense matching as the propagated mask: beyond the paper, off (None) in the paper's models.

    topk:   how many best matches inside and outside an entity are averaged.
    radius: how far, in tokens, recent frames of a video are searched around each token; examples are searched whole.
    ridge:  above 0, a linear model of each example's tokens (`segic.target_model`), regularised by this, makes one more
            propagated mask.
    ridge_share: the share of a token that an entity must cover for the linear model to count it as the entity's.
    renew:  above 0, in video the linear models are fitted anew every so many frames, to the example and the last frame
            together (`segic.renewal`).
    width:  of the metric in which tokens are compared (`segic.metric`), at most the features'; 0 compares the features
            as they are.
    carry:  above 0, the masks of the last recent frame move along with its tokens (`segic.carrying`), each of which is
            looked for this many tokens around where it was.
    """

    topk: int = 4
    radius: int = 12
    ridge: float = 0.0
    ridge_share: float = 0.5
    renew: int = 0
    width: int = 0
    carry: int = 0

    @property
    def maps(self) -> int:
        """Propagated masks an entity: margins to the examples, to recent frames and, if any, of the linear models."""
        return 2 + (self.ridge > 0)


@dataclass(frozen=True)
class InstructionConfig:
    """Which in-context instructions are extracted (table 4) and how entities serve as each other's negatives.

    geometric: the propagated mask a (eq. 2). points: its largest value p (eq. 2). visual: v (eq. 3). meta: "text" takes
    a language model's feature (eq. 4), "constant" a learned vector in its place, "none" nothing.
    negatives: entities of one frame enter each other's token lists.
    class_text, instance_text: the words that a model which takes text was trained with: for a class, {} being its name,
    and where nobody is asked for one, as in video. By default those of the released models.
    """

    geometric: bool = True
    points: bool = True
    visual: bool = True
    meta: Literal["text", "constant", "none"] = "text"
    negatives: bool = True
    class_text: str = RELEASED_CLASS_PROMPT
    instance_text: str = RELEASED_INSTANCE_PROMPT


@dataclass(frozen=True)
class ModelConfig:
    """backbone: a name of `segic.backbones`. layers: its blocks whose features are concatenated, () for the last only.
    size: pixels; the canvas's side ("square") or shorter side at 16:9 ("frame").
    canvas: "square" pads every picture to size x size; "frame" keeps its own shape, without padding.
    matching: dense matching instead of the similarity to the mask's mean feature.
    residual: the propagated mask is added to the logits with learned gains, so that the decoder learns to correct it.
    detail: channels of a small convolutional branch on the picture itself that sharpens the logits; 0 for none.
    recent: recent frames of a video that are matched as further examples (dense matching). Instance tokens come from
    the given examples and the last recent frame, whatever its value.
    reappear: the score from which an object of a video that was lost is believed to be back, for models whose scores
    were trained; 0 believes at once.
    drift: above 0, an object of a video has drifted off, and is not there, where what its mask covers looks by this
    margin more like the examples' background than like anything that is followed (dense matching), or like that of the
    last frames and, by the linear models, at all; and so has any part that lies apart from the rest of its mask and is
    at all more like the examples' background, a small one by the linear models alone.
    cut: a frame of a video that is less like the last one than this (`segic.shots`) is of another shot (dense
    matching): where things were tells nothing of it, and an object is there where the examples speak for it about as
    much as before. 0 for videos of one shot.
    brighten: of 255, how bright the bright parts of a picture are at least when it is looked at (dense matching): a
    darker one is brightened (`segic.exposure`). 0 to see all as it is.
    """

    backbone: str = "dinov2-l"
    layers: tuple[int, ...] = ()
    size: int = 896
    canvas: Literal["square", "frame"] = "square"
    matching: MatchingConfig | None = None
    residual: bool = False
    detail: int = 0
    recent: int = 1
    reappear: float = 0.0
    drift: float = 0.0
    cut: float = 0.35
    brighten: float = 128.0
    instructions: InstructionConfig = field(default_factory=InstructionConfig)

    @property
    def renew_every(self) -> int:
        """After how many frames of a video the examples' linear models are fitted anew; 0 for never."""
        return self.matching.renew if self.matching is not None and self.matching.ridge else 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The inverse of `as_dict`, also after a trip through JSON. Unknown names raise UsageError."""
        out = _known(cls, values)
        out["layers"] = tuple(out.get("layers", ()))
        if out.get("matching") is not None:
            out["matching"] = MatchingConfig(**_known(MatchingConfig, out["matching"]))
        out["instructions"] = InstructionConfig(**_known(InstructionConfig, out.get("instructions", {})))
        return cls(**out)


def _known(kind: type[ModelConfig | MatchingConfig | InstructionConfig], values: Any) -> dict[str, Any]:
    """A copy of `values`, whose names must all be fields of `kind`."""
    if not isinstance(values, dict):
        raise UsageError(f"model configuration has {values!r} in the place of names with values")
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise UsageError(f"model configuration has unknown entries {unknown}; known are {sorted(known)}")
    return dict(values)
