"""Segmenting images by in-context examples: one or several examples, any number of entities."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segic.errors import UsageError
from segic.labels import as_ids
from segic.model import SEGIC, Encoded, owners
from segic.propagation import Context
from segic.text import FixedPrompt, TextEncoder, class_prompt


@dataclass(frozen=True, eq=False)
class Example:
    """An image with what is to be found in others.

    image: (H, W, 3) uint8 RGB. mask: (H, W), bool for one entity or integer labels with one id an entity, 0 background,
    up to 2**31 - 1. The same id in several examples, or bool masks in several, is the same entity: two things are
    `mask * 1` and `mask * 2`. Of its texts the last one counts.
    text: class name of the entity, for models that take text.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_] | NDArray[np.integer]
    text: str | None = None


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What was found on a target, N entities.

    masks: (N, H, W) bool, each pixel in at most one of them. logits: (N, H, W) float32. scores: (N,) float32, 0..1.
    propagated: (N, h, w) float32, the propagated mask a (eq. 2) over the picture. ids: the examples' N ids, ascending.
    """

    masks: NDArray[np.bool_]
    logits: NDArray[np.float32]
    scores: NDArray[np.float32]
    propagated: NDArray[np.float32]
    ids: tuple[int, ...]

    @property
    def labels(self) -> NDArray[np.int32]:
        """(H, W) the id at each pixel, 0 for none."""
        out = np.zeros(self.masks.shape[1:], np.int32)
        for mask, key in zip(self.masks, self.ids, strict=True):
            out[mask] = key
        return out


@dataclass(frozen=True)
class Prompt:
    """Examples made ready once, for any number of targets.

    ids: what they show, ascending. meta: (len(ids), 768) text features, None for models without text.
    """

    contexts: tuple[Context, ...]
    ids: tuple[int, ...]
    meta: Tensor | None


def to_batch(image: NDArray[np.uint8], name: str = "the image") -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) tensor; UsageError for anything else. name: what to call it then."""
    if not isinstance(image, np.ndarray):
        raise UsageError(f"{name} is a {type(image).__name__}; expected an array, uint8 of shape (H, W, 3), RGB")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UsageError(f"{name} is {image.dtype} of shape {image.shape}; expected uint8 of shape (H, W, 3), RGB")
    if not image.size:
        raise UsageError(f"{name} has no pixel: its shape is {image.shape}")
    # Read-only ones are copied too, as those of Pillow and of files mapped to memory: torch warns of sharing them.
    return torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)[None]


def prepare_examples(model: SEGIC, examples: Sequence[Example], text: TextEncoder | None = None) -> Prompt:
    """Encodes the examples. An id in several examples is one entity that is shown several times.

    Raises UsageError for no example, a mask of another size than its image or of numbers that are no ids, only empty
    masks, or a text that the model cannot take.
    """
    if isinstance(examples, Example):
        examples = [examples]
    if not examples:
        raise UsageError("no example was given; at least one image with a mask is needed")
    contexts: list[Context] = []
    words: dict[int, str | None] = {}
    for number, example in enumerate(examples, start=1):
        if not isinstance(example, Example):
            raise UsageError(f"example {number} is a {type(example).__name__}; expected a segic.Example")
        picture = to_batch(example.image, f"example {number}: the image")
        if not isinstance(example.mask, np.ndarray):
            raise UsageError(f"example {number}: the mask is a {type(example.mask).__name__}; expected an array")
        if example.mask.dtype.kind not in "bui":
            raise UsageError(
                f"example {number}: the mask is {example.mask.dtype}; expected integer ids, or a boolean mask, such as "
                "soft > 0.5"
            )
        labels = as_ids(example.mask, f"example {number}: the mask")
        if labels.ndim != 2:
            raise UsageError(f"example {number}: the mask has the shape {labels.shape}; expected (H, W)")
        if labels.shape != example.image.shape[:2]:
            raise UsageError(
                f"example {number}: the mask is {labels.shape[1]}x{labels.shape[0]} pixels, its image is "
                f"{example.image.shape[1]}x{example.image.shape[0]}; they must be of one size"
            )
        ids = tuple(int(i) for i in np.unique(labels) if i)
        if not ids:
            continue
        encoded = model.encode(picture)[0]
        masks = torch.from_numpy(np.stack([labels == i for i in ids]))
        contexts.append(model.context(encoded, masks, ids))
        words.update((key, example.text) for key in ids if example.text or key not in words)
    if not contexts:
        raise UsageError(f"all {len(examples)} example masks are empty; nothing says what to segment")
    keys = tuple(sorted(words))
    return Prompt(tuple(contexts), keys, _meta(model, [words[key] for key in keys], text))


def _meta(model: SEGIC, words: Sequence[str | None], text: TextEncoder | None) -> Tensor | None:
    if model.config.instructions.meta != "text":
        asked = list(dict.fromkeys(word for word in words if word))
        return FixedPrompt(model.name or model.config.backbone)(asked) if asked else None
    from segic.text import default_text

    encoder = text or default_text(model.device)
    template = model.config.instructions.class_text
    return encoder([class_prompt(word, template) for word in words]).to(model.device)


def segment_encoded(model: SEGIC, target: Encoded, prompt: Prompt) -> Segmentation:
    """The prompt's entities on an encoded target."""
    prediction = model.predict(target, prompt.contexts, entities=prompt.ids, meta=prompt.meta)
    logits = model.upsample(prediction.logits, target.canvas)
    masks = owners(logits)[None] == torch.arange(1, len(prompt.ids) + 1, device=logits.device)[:, None, None]
    propagated = prediction.propagated
    if target.canvas.valid is not None:
        height = round(propagated.shape[1] * target.canvas.picture[0] / target.canvas.padded[0])
        width = round(propagated.shape[2] * target.canvas.picture[1] / target.canvas.padded[1])
        propagated = propagated[:, :height, :width]
    return Segmentation(
        masks.cpu().numpy(),
        logits.cpu().numpy(),
        prediction.scores.clamp(0, 1).cpu().numpy(),
        propagated.cpu().numpy(),
        prompt.ids,
    )
