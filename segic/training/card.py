"""A finished run as a file for users: the decoder's weights, and a model card beside them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from segic.config import ModelConfig
from segic.decoder import Decoder
from segic.errors import SegicError, UsageError
from segic.files import write_whole
from segic.nested import flatten
from segic.skeleton import without_numbers
from segic.training.backbone_file import BackboneFile
from segic.training.export import canonical, export_decoder
from segic.training.recipe import Recipe
from segic.training.recipe_file import parse_recipe
from segic.training.run_folder import RunFolder, load_checkpoint

_FAILURES = (
    "Thin parts (legs, cables, rackets) are cut off: the backbone has one feature for 14 x 14 pixels.",
    "Look-alikes in one picture are taken together, or one for the other.",
    "Tiny objects, below about two features in width, can be lost.",
    "After a long disappearance, a look-alike may be followed instead.",
)


@dataclass(frozen=True)
class Summary:
    """A run's figures, from its log.

    start: circumstances of the first session. steps, seconds: done and taken. figures: of the last logged step.
    validations: (step, scores), oldest first. chosen: the step of the checkpoint.
    """

    start: dict[str, Any]
    steps: int
    seconds: float
    figures: dict[str, Any]
    validations: tuple[tuple[int, dict[str, float]], ...]
    chosen: int


def export_run(run_path: Path, out: Path, *, latest: bool = False, overwrite: bool = False) -> Path:
    """Writes `out` (*.safetensors, half precision) and its card (*.md beside it). Returns the card's path.

    The best checkpoint is taken, the newest where no validation chose one, or with `latest`. Weights are the average.
    Raises UsageError for a folder that is no run, or has no checkpoint, or for files that exist.
    """
    run = RunFolder(run_path)
    recipe = parse_recipe(run.read_recipe(), str(run.recipe), stored=True)
    card = out.with_suffix(".md")
    for path in (out, card):
        if path.exists() and not overwrite:
            raise UsageError(f"{path} exists: choose another name, or add --overwrite")
    state, path = _checkpoint(run, latest)
    config = run.model() or recipe.config
    _check_model(state["average"], config, path)
    summary = summarise(run, state, recipe)
    backbone = run.backbone()
    metadata = {
        "preset": recipe.model.preset,
        "recipe": canonical(recipe.as_dict()),
        "training": canonical({"steps": summary.chosen, "seed": recipe.seed, "seconds": round(summary.seconds)}),
    }
    if backbone is not None:
        metadata["backbone_sha256"] = backbone.sha256
    export_decoder(state["average"], config, out, metadata)
    write_whole(card, card_text(recipe, config.backbone, backbone, summary, out.name, path.name))
    return card


def _check_model(tensors: Mapping[str, Tensor], config: ModelConfig, path: Path) -> None:
    """UsageError where a checkpoint is not of the recipe's model: a recipe names a preset, and presets change, which a
    run of an earlier version did not note.
    """
    with without_numbers():
        width = int(tensors["neck.0.weight"].shape[1])
        expected = {name: t.shape for name, t in Decoder(config, width, width).state_dict().items()}
    found = {name: t.shape for name, t in tensors.items()}
    if different := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)):
        raise UsageError(
            f"{path} holds another model than its recipe describes now, since the preset has changed: {len(different)} "
            f"tensors differ, {different[0]} first; export it with the version of segic that trained it"
        )


def _checkpoint(run: RunFolder, latest: bool) -> tuple[dict[str, Any], Path]:
    if run.best.is_file() and not latest:
        try:
            return load_checkpoint(run.best), run.best
        except SegicError as error:
            raise SegicError(f"{error}; --latest exports the newest one instead") from error
    candidates = list(reversed(run.checkpoints()))
    if not candidates:
        raise UsageError(f"{run.path} has no checkpoint yet; the first one comes after `checkpoint_every` steps")
    for path in candidates:
        try:
            return load_checkpoint(path), path
        except SegicError as error:
            last = error
    raise last


def summarise(run: RunFolder, state: dict[str, Any], recipe: Recipe) -> Summary:
    """The run's log up to the checkpoint; where a step was logged twice (after a resume), the later line counts."""
    start: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    validations: dict[int, dict[str, float]] = {}
    for event in run.events():
        kind = event.pop("kind", "")
        if kind == "start":
            start = event
        elif kind == "step" and event["step"] <= state["step"]:
            figures = event
        elif kind == "validation":
            validations[event["step"]] = event["scores"]
    ordered = tuple(sorted(validations.items()))
    return Summary(start, recipe.steps, float(state["seconds"]), figures, ordered, int(state["step"]))


def card_text(
    recipe: Recipe, backbone: str, weights: BackboneFile | None, summary: Summary, file: str, checkpoint: str
) -> str:
    """The model card, Markdown. weights: of the backbone, None where they are not known."""
    start = summary.start
    lines = [
        f"# {file.removesuffix('.safetensors')}",
        "",
        f"A decoder for in-context segmentation with {backbone}, trained by "
        f"`segic train --recipe {recipe.name}`. {recipe.description[:1].upper()}{recipe.description[1:]}.",
        "",
        "| | |",
        "|---|---|",
        f"| Backbone | {backbone}, frozen; not part of this file |",
        f"| Backbone's weights | {_weights(weights, backbone)} |",
        f"| Steps | {summary.chosen} of {summary.steps}, batches of {recipe.batch} ({checkpoint}) |",
        f"| Seed | {recipe.seed} |",
        f"| First weights | {start.get('init') or 'random'} |",
        f"| Picture size in training | {recipe.data.size} x {recipe.data.size} |",
        f"| Hardware | {start.get('device', 'not recorded')}, {start.get('processes', 1)} process(es), "
        f"{start.get('cores', '?')} cores |",
        f"| Time | {_duration(summary.seconds)}, feature caching not counted |",
        f"| Software | torch {start.get('torch', '?')}, Python {start.get('python', '?')} |",
        "| Licence | yours to choose, as far as the backbone's and the data's licences leave it to you |",
        "",
        "## Data",
        "",
    ]
    lines += [f"- {name}: {_data(one.model_dump())}" for name, one in recipe.data.sets.items() if one.weight > 0]
    lines += [f"- {note}" for note in start.get("notes", [])]
    lines += ["", "## Results", ""]
    lines += _results(summary)
    lines += ["", "## Known failures", "", "Of models of this kind; nothing of it was measured with this file.", ""]
    lines += [*(f"- {text}" for text in _FAILURES), "", "## Recipe", "", "```"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in flatten(recipe.as_dict()).items() if value is not None]
    return "\n".join([*lines, "```", ""])


def _weights(file: BackboneFile | None, backbone: str) -> str:
    """Of the user's file the name alone: nobody else has its folder."""
    if file is None:
        return "not recorded"
    return f"{file.path.name if file.path else f'{backbone} of `segic models`'}, sha256 {file.sha256}"


def _duration(seconds: float) -> str:
    """In the largest unit of which there are two."""
    for unit, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.1f} seconds"


def _data(values: dict[str, Any]) -> str:
    part = {"train": f", images not divisible by {values['holdout']}", "held-out": "", "all": ""}[values["part"]]
    fold = f", without COCO-20i fold {values['exclude_fold']}" if values["exclude_fold"] is not None else ""
    layout = "COCO format" if values["kind"] == "scenes" else values["layout"]
    kind = "synthetic scenes, made of still photographs," if values["kind"] == "scenes" else f"{values['kind']} pairs"
    return f"{kind} from {values['path']} ({layout}){part}{fold}, weight {values['weight']:g}"


def _results(summary: Summary) -> list[str]:
    if not summary.validations:
        return ["No validation was made."]
    names = list(dict.fromkeys(name for _, scores in summary.validations for name in scores if "/" not in name))
    head = ["| steps | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    shown = summary.validations[-12:]
    if summary.chosen not in [step for step, _ in shown]:
        shown = tuple(v for v in summary.validations if v[0] == summary.chosen) + shown
    rows = [
        f"| {step}{' (this file)' if step == summary.chosen else ''} | "
        + " | ".join(f"{scores[name]:.3f}" if name in scores else "" for name in names)
        + " |"
        for step, scores in shown
    ]
    speed = summary.figures.get("seconds_per_step")
    notes = [
        "",
        "`episodes` is the mean IoU over all entities of the validation's episodes, made of what the recipe names for "
        "it; the other names are kinds of episode.",
    ]
    if speed:
        waiting = summary.figures.get("waiting_share", 0)
        rate = summary.figures.get("images_per_second", 0)
        notes += ["", f"{speed:.2f} s a step, {rate:.1f} images/s, {waiting:.1%} of the time spent waiting for data."]
    return head + rows + _by_part(summary) + notes


def _by_part(summary: Summary) -> list[str]:
    """Figures of single sequences ("video/bear") at the file's own validation."""
    scores = dict(summary.validations).get(summary.chosen, {})
    parts = {name: value for name, value in scores.items() if "/" in name}
    if not parts:
        return []
    return ["", "| | |", "|---|---|", *(f"| {name} | {value:.3f} |" for name, value in parts.items())]
