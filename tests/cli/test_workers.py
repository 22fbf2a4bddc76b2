"""Clips shared by several processes, with a tiny model of random weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch.distributed
from click.testing import CliRunner
from PIL import Image

from segic.errors import UsageError
from segic_cli.main import cli
from segic_cli.model_options import LoadedModel
from segic_cli.workers import Share, processes_for, run_workers

HEIGHT, WIDTH = 48, 64

# `segic` with a tiny model instead of the one that is asked for. SLOW: seconds a frame.
PROGRAM = """
import importlib.util, os, sys, time
spec = importlib.util.spec_from_file_location("shared", {shared!r})
shared = importlib.util.module_from_spec(spec)
sys.modules["shared"] = shared
spec.loader.exec_module(shared)
import segic_cli.vos
from segic_cli.main import main
from segic_cli.model_options import LoadedModel
from segic_vos.session import VideoSession

step = VideoSession.submit

def slow(self, *arguments):
    time.sleep(float(os.environ.get("SLOW", "0")))
    return step(self, *arguments)

VideoSession.submit = slow
segic_cli.vos.load = lambda choice, progress: LoadedModel(shared.build(shared.DENSE), {{}})
if __name__ == "__main__":
    main()
"""


def write_clip(path, seed, frames=4):
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(24))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(noise, index, axis=1), format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture
def folder(tmp_path):
    """Clips a, b, c and d with masks; c's has another size than its frames. `program.py` runs them."""
    (tmp_path / "masks").mkdir()
    for seed, name in enumerate("abcd"):
        write_clip(tmp_path / f"{name}.mp4", seed)
        labels = np.zeros((HEIGHT, WIDTH) if name != "c" else (24, 32), np.uint8)
        labels[8:20, 10:30] = 1 + seed
        Image.fromarray(labels).save(tmp_path / f"masks/{name}.png")
    shared = Path(__file__).parents[1] / "segic/conftest.py"
    (tmp_path / "program.py").write_text(PROGRAM.format(shared=str(shared)))
    return tmp_path


def environment(**more):
    """Without what another torchrun, around the tests, would have set. One thread in each process, for equal sums."""
    ranks = {name: value for name, value in os.environ.items() if "RANK" not in name and "WORLD_SIZE" not in name}
    return {**ranks, "OMP_NUM_THREADS": "1", **more}


def torchrun(folder, *args):
    starter = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [sys.executable, *starter, "program.py", "vos", "run", *args]


def masks_of(out):
    return {path.relative_to(out): path.read_bytes() for path in sorted(out.glob("*/masks/*.png"))}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun has no gloo store there")
def test_two_processes_of_torchrun_write_what_one_writes_and_a_failing_clip_stops_none(folder, monkeypatch):
    clips = ["c.mp4", "a.mp4", "b.mp4", "d.mp4", "--masks", "masks", "--json", "--no-overlay"]
    run = {"cwd": folder, "capture_output": True, "text": True, "check": False, "timeout": 300}
    one = subprocess.run([sys.executable, "program.py", "vos", "run", *clips, "--out", "one"], env=environment(), **run)
    assert one.returncode == 2, one.stderr
    # The process with the failing clip has one more to do, the other two whole ones.
    two = subprocess.run(torchrun(folder, *clips, "--out", "two"), env=environment(SLOW="0.2"), **run)
    assert two.returncode != 0
    assert "c: " in two.stderr
    assert "1 of 2 clips failed" in two.stderr
    assert "clips failed in process 1 of 2, 4 clips in all" in two.stderr
    assert len(masks_of(folder / "one")) == 3 * 4
    assert masks_of(folder / "one") == masks_of(folder / "two")

    def told(done):
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return sorted((Path(line["video"]["path"]).name, line["status"], line["frames"]) for line in lines)

    assert told(one) == told(two)
    summaries = [json.loads((folder / f"two/{name}/summary.json").read_text()) for name in "abd"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert {each["choices"]["threads"] for each in summaries} == {max(1, cores // 2)}


@pytest.fixture
def last_of_two(monkeypatch):
    """This process is the last of two that torchrun started; the list has what it told the store."""
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    told = []

    class Store:
        def add(self, key, count):
            told.append(key)
            return 2  # the other one is there already

    monkeypatch.setattr("segic_cli.workers._store", Store)
    return told


def test_every_process_of_torchrun_refuses_what_one_cannot_do(folder, monkeypatch, last_of_two):
    monkeypatch.chdir(folder)
    (folder / "a.mp4").write_text("no video")  # the other's
    monkeypatch.setattr("segic_cli.vos.load", lambda choice, progress: pytest.fail("loaded"))
    result = CliRunner().invoke(cli, ["vos", "run", "a.mp4", "b.mp4", "--masks", "masks", "--out", "out"])
    assert result.exit_code == 2, result.output
    assert "a.mp4" in result.stderr
    assert not last_of_two  # it did not go on to where all meet


def test_one_of_several_clips_is_followed_as_it_was_opened(folder, monkeypatch, last_of_two):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("segic_cli.vos.load", lambda choice, progress: LoadedModel(None, {}))
    monkeypatch.setattr(Share, "divide_cores", lambda share: None)
    followed = []
    monkeypatch.setattr("segic_cli.vos.follow_clip", lambda each, clip, *_, **__: followed.append((each, clip)))
    result = CliRunner().invoke(cli, ["vos", "run", "a.mp4", "b.mp4", "d.mp4", "--masks", "masks", "-q"])
    assert result.exit_code == 0, result.output
    ((each, clip),) = followed
    assert (each.title, clip.job.video, clip.job.out) == ("b", Path("b.mp4"), Path("b_segic"))
    assert len(last_of_two) == 2  # once where all meet, once at the end


def test_processes_meet(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setattr("segic_cli.workers._POLL", 0.01)
    store = torch.distributed.HashStore()
    monkeypatch.setattr("segic_cli.workers._store", lambda: store)
    early = threading.Thread(target=Share(0, 2, 0, 2).meet)
    early.start()
    early.join(0.1)
    assert early.is_alive()
    Share(1, 2, 1, 2).meet()
    early.join(10)
    assert not early.is_alive()


def test_workers_share_the_clips_and_the_largest_status_counts(folder, monkeypatch, capfd):
    for name, value in environment(WORLD_SIZE="").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setenv("MASTER_ADDR", "localhost")  # left by something else: torchrun would set a port as well
    monkeypatch.delenv("MASTER_PORT", raising=False)
    monkeypatch.chdir(folder)
    command = [sys.executable, "program.py", "vos", "run", "a.mp4", "b.mp4", "c.mp4", "--masks", "masks", "--json"]
    assert run_workers(2, [*command, "--no-overlay", "--out", "out"]) == 2
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert sorted(line["status"] for line in lines) == ["complete", "complete", "failed"]
    assert len(masks_of(folder / "out")) == 2 * 4


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_stops_all_workers_and_keeps_what_is_finished(folder, sent):
    command = [sys.executable, "program.py", "vos", "run", "a.mp4", "b.mp4", "--masks", "masks", "--out", "out"]
    code = f"import sys; from segic_cli.workers import run_workers; sys.exit(run_workers(2, {command!r}))"
    first = [folder / f"out/{name}/masks/00000.png" for name in "ab"]
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=environment(SLOW="1.5"), stderr=subprocess.PIPE, text=True
    ) as running:
        deadline = time.monotonic() + 120
        while not all(path.exists() for path in first) and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(getattr(signal, sent))
        said = running.communicate(timeout=60)[1]
    assert running.returncode == 130, said
    assert said.count("--resume goes on") == 2
    assert "Traceback" not in said
    summaries = [json.loads((folder / f"out/{name}/summary.json").read_text()) for name in "ab"]
    assert [each["status"] for each in summaries] == ["interrupted", "interrupted"]


def test_share():
    ranks = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    share = Share.from_environment(ranks)
    assert share == Share(3, 4, 1, 2)
    assert share.take("abcdefgh") == ["d", "h"]
    assert Share.from_environment({}).take("ab") == ["a", "b"]
    assert [share.device(name) for name in ("cpu", "cuda:5", "mps")] == ["cpu", "cuda:5", "mps"]
    for wrong in ({**ranks, "RANK": "first"}, {**ranks, "RANK": "4"}, {"WORLD_SIZE": "2"}):
        with pytest.raises(UsageError, match="torchrun"):
            Share.from_environment(wrong)


def test_what_other_launchers_say_of_a_host(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert Share.from_environment({"WORLD_SIZE": "1"}) == Share()
    assert Share.on_host({"RANK": "1", "WORLD_SIZE": "2"}).device("auto") == "auto"
    assert Share.on_host({"LOCAL_RANK": "3"}).device("auto") == "cuda:3"
    assert Share.on_host({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}) == Share(1, 2, 1, 2)


def test_each_process_takes_the_gpu_of_its_number(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    share = Share(rank=7, world=8, local_rank=3, local_world=4)
    assert [share.device(name) for name in ("auto", "cuda", "cuda:0", "cpu")] == ["cuda:1", "cuda:1", "cuda:0", "cpu"]
    assert Share().device("auto") == "auto"


def test_clips_are_shared_by_as_many_processes_as_asked_for_or_as_there_are_gpus(monkeypatch):
    assert [processes_for("auto", clips, jobs) for clips, jobs in ((1, 5), (3, 5), (9, 5), (9, None))] == [1, 3, 5, 1]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert [processes_for("auto", clips, None) for clips in (1, 3, 9)] == [1, 3, 4]
    assert [processes_for("cuda:2", 9, jobs) for jobs in (None, 2)] == [1, 2]
    assert processes_for("auto", 9, 1) == 1


@pytest.mark.parametrize(("jobs", "started"), [("2", [2]), ("9", [3]), ("1", [])])
def test_jobs_start_processes_with_the_same_arguments(folder, monkeypatch, jobs, started):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    asked = []
    monkeypatch.setattr("segic_cli.vos.run_workers", lambda count, command: asked.append((count, command)) or 3)
    monkeypatch.setattr("segic_cli.vos.load", lambda choice, progress: pytest.fail("loaded") if started else exit(7))
    arguments = ["vos", "run", "a.mp4", "b.mp4", "d.mp4", "--masks", "masks", "--out", "out", "--jobs", jobs]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == (3 if started else 7), result.output
    assert [count for count, _ in asked] == started
    assert all(command == [sys.executable, "-m", "segic_cli", *arguments] for _, command in asked)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python has no safe path before 3.11")
def test_workers_import_no_files_from_where_the_command_is_given():
    assert run_workers(1, [sys.executable, "-c", "import sys; sys.exit(not sys.flags.safe_path)"]) == 0
