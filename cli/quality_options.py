"""The options that choose how closely a model looks at a video, for the commands that follow objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from segic.presets import DEFAULT_MODEL
from segic_vos.quality import NAMES, describe_qualities

from .model_options import ModelChoice

if TYPE_CHECKING:
    from segic_vos.quality import Quality, SizeChoice

F = TypeVar("F", bound=Callable[..., Any])


def quality_options(*, everywhere: bool = False) -> Callable[[F], F]:
    """Adds --quality and --fovea. everywhere: as for `sized`."""
    quality, fovea = "best on CUDA devices, else balanced", "on CPUs"
    if everywhere:
        quality, fovea = "balanced", "--fovea"

    def decorate(function: F) -> F:
        for option in (
            click.option(
                "--fovea/--no-fovea",
                default=None,
                help=f"See frames at full resolution only around the objects, and larger for it.  [default: {fovea}]",
            ),
            click.option(
                "--quality",
                type=click.Choice(NAMES),
                help=f"Choose the size by what was measured. {DEFAULT_MODEL}: {describe_qualities(DEFAULT_MODEL)}.  "
                f"[default: {quality}]",
            ),
        ):
            function = option(function)
        return function

    return decorate


def sized(
    choice: ModelChoice, quality: Quality | None, fovea: bool | None, *, everywhere: bool = False
) -> tuple[ModelChoice, SizeChoice]:
    """The model at the size that the options ask for, and how that came about. everywhere: what is not asked for is as
    on a CPU, whatever the device, so that figures can be compared.
    """
    from segic.devices import choose_device
    from segic_vos.quality import choose_size

    chosen = choose_size(
        choice.model,
        quality=quality,
        size=choice.size,
        own_weights=choice.weights is not None and not _looks_as(choice.model, choice.weights),
        device="cpu" if everywhere else choose_device(choice.device).type,
        fovea=fovea,
    )
    return replace(choice, size=chosen.size), chosen


def _looks_as(model: str, weights: Path) -> bool:
    """Whether a decoder of the user's looks at pictures as the model that has the name, whose qualities are then its
    own as well: one trained by the model's recipe does."""
    from segic.loading import config_in
    from segic.presets import find_preset

    own, preset = config_in(weights), find_preset(model).config
    return own is not None and all(
        getattr(own, name) == getattr(preset, name) for name in ("backbone", "layers", "canvas", "size")
    )
