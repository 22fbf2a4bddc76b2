"""`segic image segment`: masks for images, from example images and their masks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segic.errors import SegicError, UsageError

from .examples import ExampleSpec, parse_example
from .lazy import Failure, show_traceback
from .model_options import ModelChoice, load, model_options, out_of_memory_said
from .progress import Talker, verbosity_options

if TYPE_CHECKING:
    from segic_vos.images import ShownExample


_MEMORY = "out of memory, of which every id takes some for each pixel: give fewer at a time, or smaller pictures"


@click.group()
def image() -> None:
    """One-shot segmentation of images."""


@image.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--example",
    "specs",
    required=True,
    multiple=True,
    metavar="IMAGE:MASK[:text]",
    help="An image, its mask (index PNG, 0 is background), and the class in words for models that read them. May be "
    "given several times: equal ids of several masks are the same thing.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Output folder.  [default: TARGET-stem_segic]")
@click.option("--overwrite", is_flag=True, help="Replace an earlier result.")
@click.option("--many-ids", is_flag=True, help="Believe a mask that looks anti-aliased or holds very many ids.")
@model_options
@verbosity_options
@click.option("--json", "as_json", is_flag=True, help="Print each target's summary as one line of JSON.")
@click.pass_context
def segment(
    ctx: click.Context,
    /,
    targets: tuple[Path, ...],
    specs: tuple[str, ...],
    out: Path | None,
    overwrite: bool,
    many_ids: bool,
    quiet: bool,
    verbose: int,
    as_json: bool,
    **choice: Any,
) -> None:
    """Find in each TARGET image what the examples' masks show.

    Writes mask.png (the ids, in the example's palette), overlay.png, figure.png (example, propagated mask and result
    side by side) and summary.json. A target that cannot be read does not stop the others.
    """
    from segic import Example
    from segic_vos.images import FIGURE_ROWS, examples_palette, write_image_result
    from segic_vos.masks import describe_renewed
    from segic_vos.sources import read_rgb
    from segic_vos.summary import describe_model, versions

    talker = Talker(quiet=quiet or as_json, verbose=verbose)
    parsed = [parse_example(spec) for spec in specs]
    inputs = [*targets, *(path for each in parsed for path in (each.image, each.mask))]
    folders = _folders(targets, out, inputs, overwrite=overwrite)
    colours: dict[int, int] = {}
    shown = [_read(each, talker, colours, many_ids=many_ids) for each in parsed]
    with talker.bytes() as progress:
        model = load(ModelChoice(**choice), progress).model
    facts = {
        "model": describe_model(model.name, model.config, model.device, model.precision, model.files),
        "examples": [
            {"image": str(each.image_path), "mask": str(each.mask_path), "ids": each.annotation.ids, "text": each.text}
            for each in shown
        ],
        "versions": versions(),
    }
    ids = {key for each in shown for key in each.annotation.ids}
    if len(ids) > FIGURE_ROWS:
        talker.note(f"figure.png shows the first {FIGURE_ROWS} of the {len(ids)} ids")
    if renewed := examples_palette(shown)[1]:
        talker.note(describe_renewed(renewed))
    # Encoded once, however many targets there are.
    with out_of_memory_said(f"the examples: {_MEMORY}"):
        prompt = model.prepare([Example(each.pixels, each.annotation.objects, each.text) for each in shown])
    statuses = []
    with talker.bar(len(targets), "images") as advance:
        for target, folder in zip(targets, folders, strict=True):
            try:
                with out_of_memory_said(f"{target}: {_MEMORY}"):
                    pixels = read_rgb(target)
                    result = write_image_result(folder, target, pixels, model.segment(pixels, prompt), shown, facts)
            except SegicError as error:
                if as_json:
                    click.echo(json.dumps({"target": str(target), "status": "failed", "reason": str(error)}))
                if len(targets) == 1:
                    raise
                show_traceback(ctx)
                talker.error(str(error))
                statuses.append(error.exit_status)
                continue
            finally:
                advance()
            if as_json:
                click.echo(json.dumps(result.as_dict()))
            elif not quiet:
                entities = ", ".join(f"id {e.id}: {e.area} px, score {e.score:.2f}" for e in result.entities)
                click.echo(
                    f"{target}: {entities}\n  mask     {result.mask}\n  overlay  {result.overlay}\n"
                    f"  figure   {result.figure}"
                )
    if statuses:
        raise Failure(f"{len(statuses)} of {len(targets)} targets failed", max(statuses))


def _folders(targets: Sequence[Path], out: Path | None, inputs: Sequence[Path], *, overwrite: bool) -> list[Path]:
    """Each target's output folder: STEM_segic, or `out` (one target), or OUT/STEM (several).

    Raises: UsageError for a target that is missing, two of one name, a result that is there already, and for one of
    `inputs` lying where a result goes.
    """
    missing = [target for target in targets if not target.is_file()]
    if missing:
        raise UsageError(f"{missing[0]}: {'a folder, expected an image' if missing[0].is_dir() else 'no such file'}")
    twice = [stem for stem, count in Counter(target.stem for target in targets).items() if count > 1]
    if twice:
        raise UsageError(f"two targets are called {twice[0]!r}: their outputs would be mixed up")
    from segic_vos.images import OUTPUT_NAMES

    if out is None:
        folders = [Path(f"{target.stem}_segic") for target in targets]
    else:
        folders = [out] if len(targets) == 1 else [out / target.stem for target in targets]
    for folder in folders:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file; --out must name a folder")
        if (folder / "frames.jsonl").exists():
            raise UsageError(f"{folder} holds a video's masks; --out names another folder")
        if any((folder / name).exists() for name in OUTPUT_NAMES) and not overwrite:
            raise UsageError(f"{folder} holds a result already: --overwrite replaces it, --out names another folder")
        written = {(folder / name).resolve() for name in OUTPUT_NAMES}
        lost = [given for given in inputs if given.resolve() in written]
        if lost:
            raise UsageError(f"{lost[0]} lies where the output goes ({folder}); give another folder with --out")
    return folders


def _read(spec: ExampleSpec, talker: Talker, colours: dict[int, int], *, many_ids: bool) -> ShownExample:
    """colours: ids of those in the examples before, which it adds to."""
    from segic_vos.images import ShownExample
    from segic_vos.masks import read_mask
    from segic_vos.sources import read_rgb

    pixels = read_rgb(spec.image)
    mask = read_mask(spec.mask, allow_many=many_ids, colours=colours)
    for text in mask.notes:
        talker.note(text)
    labels = mask.annotation.labels
    if labels.shape != pixels.shape[:2]:
        raise UsageError(
            f"{spec.mask} is {labels.shape[1]}x{labels.shape[0]}, but {spec.image} is "
            f"{pixels.shape[1]}x{pixels.shape[0]} (width x height): a mask must have its image's size"
        )
    if not mask.annotation.ids:
        raise UsageError(f"{spec.mask}: an empty mask shows nothing to look for")
    return ShownExample(pixels, mask.annotation, spec.text, spec.image, spec.mask)
