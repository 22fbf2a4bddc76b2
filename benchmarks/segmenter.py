"""What image benchmarks ask of a model: masks of a target image from example images with masks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from segic.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from segic.model import SEGIC, Encoded
    from segic.propagation import Context
    from segic.text import TextEncoder

K = TypeVar("K")
V = TypeVar("V")

_LIMIT = 768 * 2**20  # bytes of encoded images, and of examples; segic-s has about 12 MB an image and 3 an example


@dataclass(frozen=True)
class Picture:
    """An image of a dataset. name: equal names are equal images. read: gives (H, W, 3) uint8 RGB."""

    name: str
    read: Callable[[], NDArray[np.uint8]]


@dataclass(frozen=True)
class Shot:
    """One example of a class: a picture, and where it shows the class. mask: gives (H, W) bool."""

    picture: Picture
    category: str
    mask: Callable[[], NDArray[np.bool_]]


class Segment(Protocol):
    """Find on the target what is asked for: N things, each with its examples.

    Returns (N, H, W) float32 logits at the target's size; above 0 is inside.
    """

    def __call__(self, target: Picture, asked: Sequence[Sequence[Shot]], /) -> NDArray[np.float32]: ...


class ModelSegment:
    """The segic model. A class's name is given to models that take text; what comes again is encoded once."""

    def __init__(self, model: "SEGIC", text: "TextEncoder | None" = None) -> None:
        """text: for models that take text; without it, the one that belongs to them."""
        self._model = model
        self._text = text
        self._encodings: _Kept[str, Encoded] = _Kept(_LIMIT)
        self._contexts: _Kept[tuple[str, str], Context] = _Kept(_LIMIT)
        self._latest: tuple[str, Encoded] | None = None  # many classes are asked of one target in several calls

    def __call__(self, target: Picture, asked: Sequence[Sequence[Shot]]) -> NDArray[np.float32]:
        from segic.images import Prompt, segment_encoded

        contexts = [self._context(shot, id_) for id_, shots in enumerate(asked, start=1) for shot in shots]
        ids = tuple(range(1, len(asked) + 1))
        meta = self._meta([shots[0].category for shots in asked])
        return segment_encoded(self._model, self._encoded(target), Prompt(tuple(contexts), ids, meta)).logits

    def _encoded(self, picture: Picture) -> "Encoded":
        from segic.images import to_batch

        if self._latest is not None and self._latest[0] == picture.name:
            return self._latest[1]
        encoded = self._encodings.get(picture.name, lambda: self._model.encode(to_batch(picture.read()))[0])
        self._latest = picture.name, encoded
        return encoded

    def _context(self, shot: Shot, id_: int) -> "Context":
        """The example, as one of the entity `id_`."""
        made = self._contexts.get((shot.picture.name, shot.category), lambda: self._new_context(shot))
        return replace(made, entities=(id_,))

    def _new_context(self, shot: Shot) -> "Context":
        import torch

        encoded, mask = self._encoded(shot.picture), shot.mask()
        check_size(shot.picture.name, mask.shape, encoded.canvas.frame)
        if not mask.any():
            raise UsageError(f"{shot.picture.name} is an example of {shot.category} and its mask shows nothing of it")
        return self._model.context(encoded, torch.from_numpy(mask)[None], (1,))

    def _meta(self, categories: Sequence[str]) -> "Tensor | None":
        """(N, 768) text features, None for models that take none."""
        if self._model.config.instructions.meta != "text":
            return None
        from segic.text import class_prompt, default_text

        self._text = self._text or default_text(self._model.device)
        template = self._model.config.instructions.class_text
        return self._text([class_prompt(category.replace("_", " "), template) for category in categories])


def check_size(name: str, labels: tuple[int, ...], image: tuple[int, ...]) -> None:
    """Raises UsageError where the labels of a picture are not of its (height, width)."""
    if labels != image:
        raise UsageError(f"the labels of {name} are {labels[1]}x{labels[0]} pixels and the image {image[1]}x{image[0]}")


class _Kept(Generic[K, V]):
    """Dataclasses of tensors by key, until they take `limit` bytes; what comes later is made anew each time.

    Nothing makes room for the new: examples come in the same order for every target, so that each would be thrown out
    just before it is wanted again.
    """

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._values: dict[K, V] = {}

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of `key`, made where it is not kept."""
        if key in self._values:
            return self._values[key]
        value = make()
        size = sum(getattr(part, "nbytes", 0) for part in vars(value).values())
        if size <= self._left:
            self._left -= size
            self._values[key] = value
        return value
