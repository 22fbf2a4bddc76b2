"""`segic bench coco20i`, `fss1000`, `lvis92i`, `coco-sem`, `ade20k`, `pc459`, `ade847` and `spair71k`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from segic.errors import UsageError

from .bench_options import (
    data_option,
    load_model,
    out_option,
    progress_bar,
    refuse_given,
    shard_of,
    shard_option,
    show,
    show_options,
    show_unfinished,
    stacked,
)
from .model_options import model_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from segic.model import SEGIC
    from segic_benchmarks.result import Result
    from segic_benchmarks.shards import Shard

_path = click.Path(path_type=Path)
_common = stacked([out_option("segic_bench/NAME"), model_options, shard_option, show_options])
_seed = click.option("--seed", default=0, show_default=True, help="Decides which examples are drawn.")
_shots = click.option("--shots", default=1, show_default=True, type=click.IntRange(min=1), help="Examples of a class.")
_annotations = click.option("--annotations", type=_path, help="The annotation file.  [default: the published name]")
_folds = click.option("--folds", help="Only these folds, separated by commas.")


def _episodes(count: int) -> Callable[..., Any]:
    return click.option(
        "--episodes", default=count, show_default=True, type=click.IntRange(min=1), help="Episodes a fold."
    )


@click.command()
@data_option
@stacked([_folds, _episodes(1000), _shots, _seed, _annotations])
@click.option("--splits", type=_path, help="Folder with the published val_fold0.json.gz to val_fold3.json.gz.")
@_common
def coco20i(
    data: Path,
    folds: str | None,
    episodes: int,
    shots: int,
    seed: int,
    annotations: Path | None,
    splits: Path | None,
    **rest: Any,
) -> None:
    """Score COCO-20i: one-shot mean IoU over four folds of twenty classes.

    A decoder trained without a fold's classes (the strict setting) is scored with `--folds` on that fold alone.
    Any dataset in COCO's format will do.
    """
    from segic_benchmarks import coco20i as module

    bench = module.coco20i(
        data,
        folds=_numbers(folds, module.FOLDS),
        shots=shots,
        episodes=episodes,
        seed=seed,
        lists=splits,
        annotations=annotations,
    )
    _run(bench, len(bench.episodes), "episode", {"shots": shots, "seed": seed}, **rest)


@click.command()
@data_option
@stacked([_folds, _episodes(2300), _shots, _seed, _annotations])
@_common
def lvis92i(
    data: Path, folds: str | None, episodes: int, shots: int, seed: int, annotations: Path | None, **rest: Any
) -> None:
    """Score LVIS-92i: one-shot mean IoU over ten folds of 92 classes."""
    from segic_benchmarks import lvis92i as module

    chosen = _numbers(folds, module.FOLDS)
    bench = module.lvis92i(data, folds=chosen, shots=shots, episodes=episodes, seed=seed, annotations=annotations)
    _run(bench, len(bench.episodes), "episode", {"shots": shots, "seed": seed}, **rest)


@click.command()
@data_option
@click.option("--split", type=_path, help="List of classes, one a line.  [default: test.txt in DATA]")
@stacked([_shots, _seed])
@_common
def fss1000(data: Path, split: Path | None, shots: int, seed: int, **rest: Any) -> None:
    """Score FSS-1000: one-shot mean IoU; every image of the test classes is a target once."""
    from segic_benchmarks import fss1000 as module

    bench = module.fss1000(data, split=split, shots=shots, seed=seed)
    _run(bench, len(bench.episodes), "episode", {"shots": shots, "seed": seed}, **rest)


_classes = click.option(
    "--classes",
    type=click.Choice(["known", "all"]),
    default="known",
    show_default=True,
    help="Ask for the classes that an image shows (the paper's #), or for all.",
)
_examples = click.option(
    "--examples",
    type=_path,
    help="Examples from this folder, EXAMPLES/CLASS/NAME.jpg and .png. One named like the target is left out.",
)


def _refuse_drawing(examples: Path | None) -> None:
    if examples is not None:
        refuse_given(["seed", "training"], "is about examples drawn from the training set, and --examples brings them")


@click.command("coco-sem")
@data_option
@stacked([_classes, _examples, _shots, _seed, _annotations])
@click.option("--training", type=_path, help="Annotation file of the examples.  [default: the published name]")
@_common
def coco_sem(
    data: Path,
    classes: str,
    examples: Path | None,
    shots: int,
    seed: int,
    annotations: Path | None,
    training: Path | None,
    out: Path | None,
    **rest: Any,
) -> None:
    """Score COCO as semantic segmentation, its instances merged by class."""
    from segic_benchmarks.coco_semantic import coco_semantic

    _refuse_drawing(examples)
    out = out or _default_out("coco-sem")
    bench = coco_semantic(
        data,
        shots=shots,
        seed=seed,
        classes_known=classes == "known",
        examples=examples,
        annotations=annotations,
        training=training,
        cache=_cache(out),
    )
    settings = {"shots": shots, "seed": seed, "examples": str(examples) if examples else "training set"}
    _run(bench, len(bench.images.names), "image", settings, out=out, **rest)


def _label_maps(name: str, title: str) -> click.Command:
    """The command of a dataset of label maps."""

    @data_option
    @stacked([_classes, _examples, _shots, _seed])
    @click.option("--class-names", type=_path, help="List of the classes, one a line, in the labels' order.")
    @_common
    def command(
        data: Path,
        classes: str,
        examples: Path | None,
        shots: int,
        seed: int,
        class_names: Path | None,
        out: Path | None,
        **rest: Any,
    ) -> None:
        from segic_benchmarks.label_maps import LAYOUTS, label_map_benchmark

        _refuse_drawing(examples)
        out = out or _default_out(name)
        bench = label_map_benchmark(
            LAYOUTS[name],
            data,
            shots=shots,
            seed=seed,
            classes_known=classes == "known",
            examples=examples,
            class_names=class_names,
            cache=_cache(out),
        )
        settings = {"shots": shots, "seed": seed, "examples": str(examples) if examples else "training set"}
        _run(bench, len(bench.images.names), "image", settings, out=out, **rest)

    return click.command(name, help=f"Score {title}: mean IoU, with in-context examples.")(command)


ade20k = _label_maps("ade20k", "ADE20K, 150 classes")
pc459 = _label_maps("pc459", "PASCAL Context with 459 classes")
ade847 = _label_maps("ade847", "ADE20K with 847 classes")


@click.command()
@data_option
@click.option("--split", default="test", show_default=True, help="Folder in PairAnnotation.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many pairs.")
@_common
def spair71k(data: Path, split: str, limit: int | None, **rest: Any) -> None:
    """Score the backbone's zero-shot correspondence on SPair-71k: PCK at 0.1 of the bounding box."""
    from segic_benchmarks import spair71k as module
    from segic_benchmarks.matching import feature_matching

    bench = module.spair71k(data, split=split, limit=limit)
    _run(bench, len(bench.pairs), "pair", {}, method=feature_matching, **rest)


class _Benchmark(Protocol):
    @property
    def name(self) -> str: ...

    def run(
        self,
        method: Any,
        out: Path,
        settings: Mapping[str, Any],
        /,
        *,
        shard: Shard | None = None,
        progress: Callable[[str], None] = ...,
    ) -> Result | None: ...


def _run(
    bench: _Benchmark,
    total: int,
    unit: str,
    settings: Mapping[str, Any],
    *,
    out: Path | None,
    shard: str | None,
    as_json: bool,
    quiet: bool,
    method: Callable[[SEGIC], Any] | None = None,
    **model: Any,
) -> None:
    """Load the model, run, show. method: makes of a model what the benchmark asks; segmentation by default."""
    from segic_benchmarks.segmenter import ModelSegment

    part = shard_of(shard)
    out = out or _default_out(bench.name)
    segic, description = load_model(**model)
    with progress_bar(len(range(total)[part.index :: part.count]), unit, quiet) as progress:
        result = bench.run(
            (method or ModelSegment)(segic), out, {**description, **settings}, shard=part, progress=progress
        )
    if result is None:
        show_unfinished(out, part)
    else:
        show(result, as_json=as_json, quiet=quiet)


def _default_out(name: str) -> Path:
    return Path("segic_bench") / name


def _cache(out: Path) -> Path:
    """Where the choice of examples is kept: beside the run, not in it, since it is made before the run starts."""
    return out.parent / f"{out.name}_examples.json"


def _numbers(text: str | None, count: int) -> list[int]:
    """The folds of `--folds`, all of them without it."""
    if text is None:
        return list(range(count))
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UsageError(f"--folds {text!r}: expected numbers from 0 to {count - 1} separated by commas")
    return [int(part) for part in dict.fromkeys(parts)]
