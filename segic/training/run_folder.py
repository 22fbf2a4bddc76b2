"""A run's folder: recipe, log, checkpoints, pictures. Everything in it is complete or absent, whenever the run ends."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from segic.config import ModelConfig
from segic.errors import SegicError, UsageError
from segic.files import whole, write_whole, writing
from segic.training.backbone_file import BackboneFile
from segic.training.recipe_file import difference, parse_recipe

KEEP = 2  # newest checkpoints; the best one is kept beside them
CANNOT_WRITE = (OSError, RuntimeError)  # what torch raises for a full disk, among others


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run.

    recipe.json: the resolved recipe. init.json: the file of its first weights, if any. backbone.json: that of the
    backbone's, with its sha256. model.json: the configuration that the recipe's model had at the start, since presets
    change between versions. log.jsonl: a line an event.
    checkpoints/step-00000500.pt and best.pt.
    predictions/: a picture a validation. skipped.jsonl: files that could not be used.
    """

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.json"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def skipped(self) -> Path:
        return self.path / "skipped.jsonl"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions"

    @property
    def _init(self) -> Path:
        return self.path / "init.json"

    @property
    def _backbone(self) -> Path:
        return self.path / "backbone.json"

    @property
    def _model(self) -> Path:
        return self.path / "model.json"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.pt"

    def checkpoints(self) -> list[Path]:
        """The numbered checkpoints, oldest first."""
        return sorted((self.path / "checkpoints").glob("step-*.pt"))

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint after `step` steps lies."""
        return self.path / "checkpoints" / f"step-{step:08d}.pt"

    def refuse_existing(self) -> None:
        """UsageError when the folder holds something already."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            what = "holds a run; go on with --resume, or" if self.recipe.is_file() else "is not empty;"
            raise UsageError(f"{self.path} {what} give another folder with --out")

    def create(
        self, recipe: Mapping[str, Any], init: Path | None = None, backbone: BackboneFile | None = None,
        model: ModelConfig | None = None,
    ) -> None:  # fmt: skip
        """A new run, which starts from the weights `init`, with a backbone's, of the recipe's `model`. UsageError when
        the folder holds something already.
        """
        self.refuse_existing()
        try:
            (self.path / "checkpoints").mkdir(parents=True)
        except OSError as error:
            raise UsageError(f"the run folder {self.path} cannot be made: {error}") from error
        if init is not None:
            write_whole(self._init, json.dumps(str(init.resolve())) + "\n")
        if backbone is not None:
            write_whole(self._backbone, json.dumps(backbone.as_dict()) + "\n")
        if model is not None:
            write_whole(self._model, json.dumps(model.as_dict(), indent=2) + "\n")
        write_whole(self.recipe, json.dumps(recipe, indent=2) + "\n")

    def started_from(self) -> Path | None:
        """The weights that the run started from; a resume without any checkpoint needs them again."""
        if self.checkpoints() or not self._init.is_file():
            return None
        return Path(json.loads(self._init.read_text(encoding="utf-8")))

    def backbone(self) -> BackboneFile | None:
        """The weights of the backbone that the run was started with; None where that was not noted, of a backbone that
        a Python user brought, and by versions that noted the user's own files alone.
        """
        if not self._backbone.is_file():
            return None
        return BackboneFile.from_dict(json.loads(self._backbone.read_text(encoding="utf-8")))

    def data_root(self) -> str | None:
        """The folder of data that the last session read; None for a run of a version that did not note it."""
        roots = [event["data"] for event in self.events() if "data" in event]
        return roots[-1] if roots else None

    def model(self) -> ModelConfig | None:
        """The model as it was when the run was started; None for a run of a version that did not note it. UsageError
        where this version cannot read it.
        """
        if not self._model.is_file():
            return None
        try:
            return ModelConfig.from_dict(json.loads(self._model.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, UsageError) as error:
            raise UsageError(
                f"{self._model} is none that this version of segic can read ({error}); take the version that started "
                "the run"
            ) from error

    def refuse_other_model(self, config: ModelConfig) -> None:
        """UsageError, with the differences, where the run's model was another than the recipe gives now."""
        before = self.model()
        if before is not None and (lines := difference(before.as_dict(), config.as_dict())):
            raise UsageError(
                f"{self.path} was started with another model than its recipe describes now, since the preset has "
                "changed:\n  " + "\n  ".join(lines) + "\nResume with the version of segic that started it"
            )

    def resume(self, recipe: Mapping[str, Any] | None) -> dict[str, Any]:
        """The recipe that the run was started with. UsageError when there is none or `recipe` differs, showing how."""
        # Values that did not exist when the run was started are what they are by default.
        before = parse_recipe(self.read_recipe(), str(self.recipe), stored=True).as_dict()
        if recipe is not None and (lines := difference(before, recipe)):
            raise UsageError(
                f"{self.path} was started with another recipe, so that --resume would not continue it:\n  "
                + "\n  ".join(lines)
                + "\nGive the same recipe and values, or another folder with --out"
            )
        return before

    def read_recipe(self) -> dict[str, Any]:
        """The values of the run's recipe. UsageError when the folder is no run."""
        try:
            values = json.loads(self.recipe.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UsageError(f"{self.path} is not a training run: it has no {self.recipe.name}") from None
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.recipe} is broken: {error}") from error
        return dict(values)

    def append(self, kind: str, values: Mapping[str, Any]) -> None:
        """One line of the log."""
        append_line(self.log, {"kind": kind, **values})

    def events(self) -> Iterator[dict[str, Any]]:
        """The log's lines in order."""
        yield from read_lines(self.log)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """What `append_line` wrote, nothing where there is no file. A line that was cut short is passed over."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):
            yield json.loads(line)


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """One JSON object on a line of its own. SegicError when it cannot be written."""
    with writing(path, "Make room and go on with --resume"), path.open("ab+") as file:
        ended = True
        if file.tell():  # a full disk may have cut the last line short
            file.seek(-1, os.SEEK_END)
            ended = file.read(1) == b"\n"
        file.write((b"" if ended else b"\n") + json.dumps(values).encode() + b"\n")


def save_checkpoint(run: RunFolder, path: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint, whole or not at all, then removes numbered ones but the newest KEEP, and what a kill left.

    Raises SegicError when it cannot be written (a full disk); every earlier checkpoint is still there then.
    """
    try:
        write_state(path, state)
    except CANNOT_WRITE as error:
        newest = next(reversed(run.checkpoints()), None)
        left = f"the last one is {newest}; make room and go on with --resume" if newest else "there is no earlier one"
        raise SegicError(f"the checkpoint {path} cannot be written: {error}; {left}") from error
    for old in (*run.checkpoints()[:-KEEP], *path.parent.glob(".*.part")):
        if old != path:  # a run that goes on from an earlier checkpoint has later ones
            with suppress(OSError):
                old.unlink()


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """A file for `load_checkpoint`, whole or not at all. Raises one of CANNOT_WRITE."""
    with whole(path) as part, part.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state that `save_checkpoint` wrote. SegicError for a file that is damaged, or none of these."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such checkpoint") from None
    except Exception as error:  # torch raises whatever unpickling raises
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise SegicError(
            f"the checkpoint {path} is damaged, or none ({reason}); delete it and resume from the one before"
        ) from error
    return dict(state)
