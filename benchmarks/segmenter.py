"""What image benchmarks ask of a model: masks of a target image from example images with masks."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from segic.images import Prompt
    from segic.model import SEGIC, Encoded

_KEPT = 64  # examples' features in memory; a few megabytes each


@dataclass(frozen=True)
class Shot:
    """One example.

    image: (H, W, 3) uint8. labels: (H, W) ids, 0 is background. text: the class's name, or None. key: equal for equal
    shots that come again for other targets, None for those that do not.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    text: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Masks:
    """ids: the examples' ids. logits: (len(ids), H, W) float32 at the target's size; above 0 is inside."""

    ids: tuple[int, ...]
    logits: NDArray[np.float32]


class Segment(Protocol):
    """Masks of what the examples show, on the target. Equal ids in several examples mean the same thing."""

    def __call__(self, target: NDArray[np.uint8], shots: Sequence[Shot], /) -> Masks: ...


class ModelSegment:
    """The segic model. A class's name is given to models that take text; what comes again is encoded once."""

    def __init__(self, model: "SEGIC") -> None:
        self._model = model
        self._takes_text = model.config.instructions.meta == "text"
        self._prompts: OrderedDict[str, Prompt] = OrderedDict()
        self._target: tuple[NDArray[np.uint8], Encoded] | None = None

    def __call__(self, target: NDArray[np.uint8], shots: Sequence[Shot]) -> Masks:
        from segic.images import segment_encoded

        found = segment_encoded(self._model, self._encoded(target), self._joined([self._prompt(s) for s in shots]))
        return Masks(found.ids, found.logits)

    def _encoded(self, target: NDArray[np.uint8]) -> "Encoded":
        from segic.images import to_batch

        if self._target is None or self._target[0] is not target:
            self._target = target, self._model.encode(to_batch(target))[0]
        return self._target[1]

    def _prompt(self, shot: Shot) -> "Prompt":
        from segic.images import Example

        if shot.key is not None and shot.key in self._prompts:
            self._prompts.move_to_end(shot.key)
            return self._prompts[shot.key]
        prompt = self._model.prepare([Example(shot.image, shot.labels, shot.text if self._takes_text else None)])
        if shot.key is not None:
            self._prompts[shot.key] = prompt
            if len(self._prompts) > _KEPT:
                self._prompts.popitem(last=False)
        return prompt

    @staticmethod
    def _joined(prompts: Sequence["Prompt"]) -> "Prompt":
        """One prompt of several examples' own."""
        import torch

        from segic.images import Prompt

        first = {id_: (prompt, row) for prompt in reversed(prompts) for row, id_ in enumerate(prompt.ids)}
        ids = tuple(sorted(first))
        rows = [prompt.meta[row] for prompt, row in (first[id_] for id_ in ids) if prompt.meta is not None]
        meta = torch.stack(rows) if rows else None
        return Prompt(tuple(context for prompt in prompts for context in prompt.contexts), ids, meta)
