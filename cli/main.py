"""`segic`: the commands by name. Each one's module is imported when it is called."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from importlib.metadata import PackageNotFoundError, version

import click

from .lazy import LazyCommand, RootGroup, run
from .streams import settle_streams

# How often a thread of GNU's OpenMP looks whether the others are done before it sleeps. Looking is work to the system,
# which lets a thread that looks for long wait its turn where another program wants the same core: then everything takes
# many times as long. So 5 % are given for less of it where no other program does (docs/options.md).
PATIENCE = "2500"

# Bytes: blocks that glibc takes from its heap instead of from the system, and what it keeps of that heap's free end. By
# default it learns the first from what is freed, and has the same pages zeroed again for every frame until then.
FROM_HEAP, KEPT = 32 << 20, 64 << 20
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h
SAYS_WHAT_IS_KEPT = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"}

# Objects made until Python looks for cycles among them, and how many such looks until it looks among older ones. Its
# own 700 are made 300 times while torch is imported, of which nothing is garbage; a look among all takes 0.1 s.
LOOK_AFTER = (100_000, 20, 20)

COMMANDS = {
    "vos": LazyCommand("vos", "vos", "Masks for every frame of a video, from masks of its first frame."),
    "image": LazyCommand("image", "image", "Masks for images, from example images and their masks."),
    "models": LazyCommand("models", "models", "Named models: list, info, fetch, verify, convert, export."),
    "train": LazyCommand("train", "train", "Train the decoder from a recipe."),
    "bench": LazyCommand("bench", "bench", "The paper's benchmarks, speed, and reports."),
    "demo": LazyCommand("demo", "demo", "Make a sample clip and follow its objects."),
}


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"segic {installed_version()}")
        ctx.exit()


@click.command(cls=RootGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version and leave."
)
def cli() -> None:
    """In-context segmentation: show one masked example, get masks for images and videos."""


def installed_version() -> str:
    """The distribution's version, "unknown" where segic runs from a folder that was not installed."""
    try:
        return version("segic")
    except PackageNotFoundError:
        return "unknown"


def wait_patiently() -> None:
    """Makes torch's threads on CPUs sleep sooner, unless the user has said how they wait. Before torch is imported."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = PATIENCE


def keep_freed_memory() -> None:
    """Makes glibc keep what a frame has freed for the next one, unless the user has said what it keeps."""
    if sys.platform != "linux" or SAYS_WHAT_IS_KEPT & os.environ.keys():
        return
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option is not None:  # it is glibc
        option(M_MMAP_THRESHOLD, FROM_HEAP)
        option(M_TRIM_THRESHOLD, KEPT)


def main() -> None:
    """Entry point of the `segic` program."""
    gc.set_threshold(*LOOK_AFTER)
    settle_streams()
    wait_patiently()
    keep_freed_memory()
    run(cli)
