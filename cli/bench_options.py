"""What the benchmark commands share: options, the progress bar, how a result is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from segic.errors import UsageError

if TYPE_CHECKING:
    from segic.model import SEGIC
    from segic_benchmarks.result import Result
    from segic_benchmarks.shards import Shard

F = TypeVar("F", bound=Callable[..., Any])


def stacked(options: list[Callable[[F], F]]) -> Callable[[F], F]:
    """Several options as one decorator, shown in this order by --help."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def refuse_given(names: Sequence[str], reason: str) -> None:
    """UsageError for options of the current command, by their parameters' names, that the user gave. reason: goes on
    after the option.
    """
    ctx = click.get_current_context()
    for parameter in ctx.command.params:
        if parameter.name in names and ctx.get_parameter_source(parameter.name) is not ParameterSource.DEFAULT:
            option = " or ".join((*parameter.opts, *parameter.secondary_opts))
            raise UsageError(f"{option} {reason}: leave out one of them")


data_option = click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="The dataset's folder, in its published layout."
)


def out_option(default: str) -> Callable[[F], F]:
    """--out, the folder of a run. default: what is written without it, for --help."""
    return click.option(
        "-o", "--out", type=click.Path(path_type=Path), help=f"Folder for the run and its result.  [default: {default}]"
    )


show_options = stacked(
    [
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        click.option("-q", "--quiet", is_flag=True, help="No progress bar, and only the headline figure."),
    ]
)
shard_option = click.option(
    "--shard", metavar="i/n", help="Do part i (from 0) of n. Under torchrun its ranks are the parts."
)


def names_in(text: str | None) -> list[str]:
    """The entries of a list separated by commas."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def load_model(**options: Any) -> tuple[SEGIC, dict[str, Any]]:
    """The model that the options choose, and what a result says of it.

    Under torchrun, or a launcher that says as much of this host, every process takes the GPU of its own number, or its
    part of the cores.
    """
    from segic_benchmarks.models import model_settings

    from .model_options import ModelChoice, load
    from .workers import Share

    share = Share.on_host()
    share.divide_cores()
    choice = ModelChoice(**options)
    model = load(replace(choice, device=share.device(choice.device))).model
    return model, model_settings(model)


def shard_of(text: str | None) -> Shard:
    """The part named by `--shard`, else by torchrun, else the whole."""
    from segic_benchmarks.shards import Shard

    return Shard.parse(text) if text else Shard.from_environment()


@contextmanager
def progress_bar(total: int, unit: str, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A bar on standard error that the given function moves on; none when quiet or not on a terminal."""
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, disable=True if quiet else None) as bar:

        def advance(name: str) -> None:
            bar.set_postfix_str(name, refresh=False)
            bar.update()

        yield advance


def show(result: Result, *, as_json: bool, quiet: bool) -> None:
    """Print a result: JSON, or a table, or the headline alone."""
    from segic_benchmarks.table import percent, result_table

    if as_json:
        click.echo(result.to_json(), nl=False)
    elif quiet:
        click.echo(f"{result.benchmark} {result.metric} {percent(result.value)}")
    else:
        click.echo(result_table(result))


def show_unfinished(out: Path, shard: Shard) -> None:
    """Say on standard error that other parts of the work are not done yet."""
    click.echo(
        f"part {shard.index}/{shard.count} is done and others are not; the one that ends last writes the result. "
        f"The same command without --shard does what is left of {out}",
        err=True,
    )
