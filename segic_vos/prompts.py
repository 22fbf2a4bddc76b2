"""The meta instruction of a video: nobody is asked for a class, so models that read text get their constant one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segic.text import default_text

if TYPE_CHECKING:
    from torch import Tensor

    from segic.model import SEGIC


def video_meta(model: SEGIC) -> Tensor | None:
    """The text feature (768,) of the model's video prompt, float32 on its device; None for models without text.

    Raises: UsageError where the feature is not stored and no language model is installed.
    """
    if model.config.instructions.meta != "text":
        return None
    return default_text(model.device)([model.config.instructions.instance_text])[0].to(model.device)
