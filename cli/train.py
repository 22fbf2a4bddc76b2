"""`segic train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segic.errors import INTERRUPTED, UsageError

from .lazy import Failure
from .progress import stoppable, verbosity_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from segic.training.cache import Progress
    from segic.training.recipe import Recipe

_PATH = click.Path(path_type=Path)


@click.command()
@click.option(
    "--recipe",
    "recipe_name",
    metavar="NAME|FILE",
    help="A named recipe (see --list) or a TOML file.  [required without --resume]",
)
@click.option(
    "--data", type=_PATH, help="The folder that holds the data sets; the recipe says which, and where.  [required]"
)
@click.option("-o", "--out", type=_PATH, help="The run's folder: checkpoints, log, pictures.  [required]")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value: --set optimizer.lr=2e-4."
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out, exactly where its last checkpoint was.")
@click.option("--init", type=_PATH, help="Start from the weights of this checkpoint or .safetensors file.")
@click.option("--davis", type=_PATH, help="Videos in DAVIS's layout, seen whole and scored at validations.")
@click.option("--cache", type=_PATH, help="Folder of cached features of this data.  [default: DATA/features]")
@click.option("--backbone-weights", type=_PATH, help="A local file with the backbone's weights.")
@click.option("--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--workers", type=click.IntRange(min=1), default=4, show_default=True, help="Threads that make samples.")
@click.option("--list", "list_", is_flag=True, help="List the named recipes.")
@click.option("--print-recipe", is_flag=True, help="Print the recipe's file, to copy and edit.")
@verbosity_options
def train(
    recipe_name: str | None,
    overrides: tuple[str, ...],
    list_: bool,
    print_recipe: bool,
    davis: Path | None,
    quiet: bool,
    verbose: int,
    **options: Any,
) -> None:
    """Train the decoder from a recipe; the backbone stays frozen.

    With --resume, --recipe can be left out, since the run knows its own; --data and --out cannot. Ctrl-C saves a
    checkpoint of the last whole step; the same command with --resume goes on from there. Under torchrun the batch is
    split among its processes: torchrun --no-python --nproc-per-node 8 segic train --recipe paper-l ... On several
    hosts, --out and --cache must be folders that all of them see.
    """
    from segic.training.recipe_file import load_recipe, recipe_names, recipe_text

    if list_:
        for name in recipe_names():
            click.echo(f"{name:<18}{load_recipe(name).description}")
        return
    if print_recipe:
        if overrides:
            raise UsageError("--set changes a run's recipe; --print-recipe prints the file, to be changed by hand")
        click.echo(recipe_text(_needed(recipe_name, "--recipe")), nl=False)
        return
    from segic.training.interrupts import TrainingStopped
    from segic.training.session import Hooks, Request
    from segic.training.session import train as run_training

    out = _needed(options.pop("out"), "--out")
    data = _needed(options.pop("data"), "--data")
    recipe = _recipe(recipe_name, overrides, out, resume=options["resume"])
    request = Request(recipe, data, out, quiet=quiet, **options)
    video = None
    if davis is not None:
        from .train_video import VideoValidation

        video = VideoValidation(davis)
    first = os.environ.get("RANK", "0") == "0"  # torchrun starts many
    hooks = Hooks(video=video, note=_note(quiet), progress=lambda what: _cache_bar(what, quiet))
    try:
        with stoppable():
            run = run_training(request, hooks)
    except TrainingStopped as stop:
        if not first:
            raise click.exceptions.Exit(INTERRUPTED) from None
        without = ", but without --init," if request.init and stop.checkpoint else ""
        how = "goes on from there" if stop.checkpoint else "begins it"
        raise Failure(f"{stop}; the same command with --resume{without} {how}", INTERRUPTED) from None
    if first and not quiet:
        click.echo(f"done; `segic models export {run.path} -o FILE.safetensors` makes one file of it")


def _needed(value: Any, option: str) -> Any:
    if value is None:
        raise click.UsageError(f"Missing option '{option}'.")
    return value


def _recipe(name: str | None, overrides: tuple[str, ...], out: Path, *, resume: bool) -> Recipe:
    from segic.training.recipe_file import load_recipe, parse_recipe
    from segic.training.run_folder import RunFolder

    if name is not None:
        return load_recipe(name, overrides)
    if not resume:
        raise click.UsageError("Missing option '--recipe'.")
    if overrides:
        raise UsageError("--set changes a recipe and --resume continues one as it is; leave out either")
    run = RunFolder(out)
    return parse_recipe(run.read_recipe(), str(run.recipe), stored=True)


def _note(quiet: bool) -> Callable[[str], None]:
    def note(text: str) -> None:
        if not quiet:
            click.echo(f"note: {text}", err=True)

    return note


def _cache_bar(what: str, quiet: bool) -> Progress | None:
    """A bar over the samples of a feature cache, on a terminal."""
    from tqdm import tqdm

    if quiet or not sys.stderr.isatty():
        return None
    bar = tqdm(desc=what, unit=" samples", file=sys.stderr, dynamic_ncols=True)

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return progress
