"""The text features that a run needs, encoded before its first step."""

from collections.abc import Sequence

from torch import Tensor

from segic.config import ModelConfig
from segic.text import TextEncoder
from segic.training.feeds import prompt
from segic.training.recipe import Recipe
from segic.training.sources import Source
from segic.training.sources.pairs import SemanticPairs
from segic.training.sources.sample import INSTANCES


def encode_texts(
    recipe: Recipe, config: ModelConfig, sources: Sequence[tuple[Source, float]], encoder: TextEncoder | None
) -> dict[str, Tensor]:
    """(768,) features by prompt; none for models that take no text. encoder: by default CLIP with its stored prompts.

    Raises UsageError and SegicError when a prompt is not stored and there is no language model to encode it.
    """
    if config.instructions.meta != "text":
        return {}
    words = {"", prompt(INSTANCES, recipe.episode)}
    for source, _ in sources:
        if isinstance(source, SemanticPairs):
            words |= {prompt("" if c.startswith("#") else c, recipe.episode) for c in source.classes}
    if encoder is None:
        from segic.text import default_text

        encoder = default_text()
    ordered = sorted(words)
    return dict(zip(ordered, encoder(ordered), strict=True))
