"""The options that choose a model, and the model they choose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from segic.config import SIZES
from segic.presets import DEFAULT_MODEL, PRESETS

if TYPE_CHECKING:
    from segic.model import SEGIC
    from segic.weights import Progress

F = TypeVar("F", bound=Callable[..., Any])

DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")  # as `segic.devices` has them, without importing torch
_DEVICES = "auto, cpu, cuda, cuda:1, mps"


@dataclass(frozen=True)
class ModelChoice:
    """What the options say, in the words of `segic.load_model`."""

    model: str
    weights: Path | None
    backbone_weights: Path | None
    device: str
    dtype: str
    size: int | None


@dataclass(frozen=True)
class LoadedModel:
    """A model, and the files its weights came from by part."""

    model: SEGIC
    files: Mapping[str, Path]


def weights_options(function: F) -> F:
    """Add those of `model_options` that say which model, of which files, and where it runs."""
    path = click.Path(path_type=Path)
    for option in (
        click.option("--device", default="auto", show_default=True, metavar="DEVICE", help=f"One of {_DEVICES}."),
        click.option("--backbone-weights", type=path, help="A local file with the backbone's weights."),
        click.option("--weights", type=path, help="A local file with the decoder's weights."),
        click.option("--model", default=DEFAULT_MODEL, show_default=True, help=f"One of {', '.join(PRESETS)}."),
    ):
        function = option(function)
    return function


def model_options(function: F) -> F:
    """Add the options. The command gets them by the names of `ModelChoice`'s fields."""
    for option in (
        click.option(
            "--size",
            type=click.IntRange(*SIZES),
            help="Pixels at which the model looks at whole pictures.  [default: its own, or by --quality where the "
            "command has that]",
        ),
        click.option(
            "--dtype",
            type=click.Choice(DTYPES),
            default="auto",
            show_default=True,
            help="Precision of the backbone; int8 is for CPUs.",
        ),
    ):
        function = option(function)
    return weights_options(function)


def load(choice: ModelChoice, progress: Progress | None = None) -> LoadedModel:
    """Load the model; what is not in the cache is fetched, which `progress` is told of.

    Raises: UsageError and SegicError as `segic.load_model` does.
    """
    from segic import load_model

    with out_of_memory_said(f"{choice.model} does not fit into this machine's memory"):
        model = load_model(
            choice.model,
            weights=choice.weights,
            backbone_weights=choice.backbone_weights,
            device=choice.device,
            dtype=choice.dtype,
            size=choice.size,
            progress=progress,
        )
    return LoadedModel(model, model.files)


@contextmanager
def out_of_memory_said(sentence: str) -> Iterator[None]:
    """Raises SegicError with this sentence, and what the system said, where memory runs out inside."""
    from segic.errors import SegicError
    from segic_vos.batches import is_out_of_memory

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise SegicError(f"{sentence}: {error}") from error
