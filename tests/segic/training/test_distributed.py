"""Two processes over gloo train one model."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segic.training.recipe import Recipe
from segic.training.run_folder import RunFolder, load_checkpoint

_PROGRAM = """
import json, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from segic.backbones.dinov2 import CONFIGS, DinoV2, DinoV2Config
CONFIGS["dinov2-tiny"] = DinoV2Config("dinov2-tiny", 32, 2, 2)
from segic.training import feeds, loop
from segic.training.recipe_file import parse_recipe
from segic.training.session import Hooks, Request, train

def backbone(config):
    torch.manual_seed(3)
    out = DinoV2(CONFIGS["dinov2-tiny"])
    for p in out.parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.1)
    if "nan" in sys.argv:
        forward = out.forward
        out.forward = lambda *given: forward(*given) * float("nan")
    return out

drawn = []
real = feeds.LiveFeed.draw
def draw(self, step, index):
    drawn.append([step, index])
    return real(self, step, index)
feeds.LiveFeed.draw = draw
fit = loop.Trainer.fit
def fit_and_tell(self):
    fit(self)
    rank = self.setup.processes.rank
    torch.save(self.decoder.state_dict(), folder / f"weights-{rank}.pt")
    (folder / f"drawn-{rank}.json").write_text(json.dumps(sorted(drawn)))
loop.Trainer.fit = fit_and_tell
step = loop.Trainer._step
def interrupted(self, number, drawn):
    if number == 1 and self.setup.processes.rank == 1:
        signal.raise_signal(signal.SIGINT)
    return step(self, number, drawn)
if "stop" in sys.argv:
    loop.Trainer._step = interrupted
folder = Path(sys.argv[1])
recipe = parse_recipe(json.loads((folder / "recipe.json").read_text()), "test")
train(Request(recipe, folder / "data", folder / "run", device="cpu", quiet=True), Hooks(backbone=backbone))
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def in_two_processes(folder: Path, *arguments: str) -> tuple[list[int], list[str]]:
    """Exit statuses and standard errors of the program in `folder`."""
    port = str(free_port())
    runs = [
        subprocess.Popen(
            [sys.executable, str(folder / "program.py"), str(folder), *arguments],
            env={
                **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_PORT": port,
                "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    errors = [run.communicate(timeout=300)[1] for run in runs]
    return [run.returncode for run in runs], errors


@pytest.mark.usefixtures("folder_data")
def test_two_processes_agree_and_share_the_batch(
    tmp_path: Path, make_recipe: Callable[..., Recipe], fit: Callable[..., RunFolder]
) -> None:
    recipe = make_recipe(schedule__steps=2, episode__reversion=0.5)
    for number in range(6):
        (tmp_path / "data" / "images" / f"{number}.png").write_bytes(b"no picture")
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json())
    (tmp_path / "program.py").write_text(_PROGRAM)
    status, errors = in_two_processes(tmp_path)
    assert status == [0, 0], errors
    a, b = (torch.load(tmp_path / f"weights-{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(a[key], b[key]) for key in a)
    drawn = [(tmp_path / f"drawn-{rank}.json").read_text() for rank in range(2)]
    assert drawn == ["[[0, 0], [1, 0]]", "[[0, 1], [1, 1]]"]
    # And one process does the same work, apart from the order of additions.
    run = fit("alone", recipe=recipe)
    assert sorted(run.skipped.read_text().splitlines()) == sorted(
        (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()
    )
    alone = load_checkpoint(run.checkpoints()[-1])["decoder"]
    worst = max((a[key] - alone[key]).abs().max().item() for key in a)
    assert worst < 2 * recipe.optimizer.lr
    moved = max((a[key] - alone[key]).abs().mean().item() for key in a)
    assert moved < 0.1 * recipe.optimizer.lr


@pytest.mark.usefixtures("folder_data")
def test_both_processes_save_their_batches_of_a_loss_that_is_not_finite(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    (tmp_path / "recipe.json").write_text(make_recipe(schedule__steps=2).model_dump_json())
    (tmp_path / "program.py").write_text(_PROGRAM)
    status, errors = in_two_processes(tmp_path, "nan")
    assert status == [1, 1]
    for rank, error in enumerate(errors):
        assert (
            f"loss of step 1 is not finite. Its batch is saved as {tmp_path}/run/failed-step-00000001-{rank}.pt"
            in error
        )
        assert load_checkpoint(tmp_path / "run" / f"failed-step-00000001-{rank}.pt")["step"] == 1


@pytest.mark.usefixtures("folder_data")
def test_an_interrupt_of_one_process_ends_both_after_the_same_step(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    (tmp_path / "recipe.json").write_text(make_recipe().model_dump_json())
    (tmp_path / "program.py").write_text(_PROGRAM)
    status, errors = in_two_processes(tmp_path, "stop")
    assert all(status), status
    saved = tmp_path / "run" / "checkpoints" / "step-00000002.pt"
    assert all(f"TrainingStopped: stopped after step 2: {saved}" in error for error in errors), errors
    assert RunFolder(tmp_path / "run").checkpoints() == [saved]
    assert load_checkpoint(saved)["step"] == 2
