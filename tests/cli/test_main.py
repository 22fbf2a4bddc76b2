"""The command tree: quick help, one-line errors, exit statuses."""

from __future__ import annotations

import io
import os
import platform
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import segic_cli
from segic.devices import PRODUCTS
from segic.errors import SegicError, UsageError
from segic_cli.lazy import RootGroup, set_verbosity
from segic_cli.main import COMMANDS, PATIENCE, SAYS_WHAT_IS_KEPT, cli, wait_patiently
from segic_cli.model_options import DTYPES
from segic_cli.streams import settle_streams


def program(*args, **environment):
    return subprocess.run(
        [sys.executable, "-m", "segic_cli", *args],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_needs_none_of_the_heavy_packages(flag):
    code = (
        f"import sys; sys.argv = ['segic', {flag!r}]\n"
        "import segic_cli.main, atexit\n"
        "atexit.register(lambda: print('LOADED', sorted({'torch', 'numpy', 'av', 'cv2', 'onnx'} & set(sys.modules))))\n"
        "segic_cli.main.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "LOADED []" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="the time that a program used is not known there")
def test_help_is_quick():
    seconds = []
    for _ in range(2):  # the first one may compile modules
        before = os.times()
        done = program("--help")
        after = os.times()
        # The processor's time, not the clock's: other programs may run beside.
        used = after.children_user - before.children_user + after.children_system - before.children_system
        seconds.append(used)
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)
    assert min(seconds) < 0.5


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_is_listed_exists(name):
    done = CliRunner().invoke(cli, [name, "--help"])
    assert done.exit_code == 0, done.output


def commands(command=cli, path=()):
    """Every command, with its names: (("models", "list"), ...)."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), (*path, name))


def test_help_is_whole():
    for path, command in commands():
        said = CliRunner().invoke(cli, [*path, "--help"]).stdout
        assert not [line for line in said.splitlines()[1:] if line.endswith("...")], path
        assert not [each.name for each in command.params if isinstance(each, click.Option) and not each.help], path
    assert "112<=x<=2016" in CliRunner().invoke(cli, ["vos", "run", "--help"]).stdout


def test_every_output_has_a_short_name():
    outputs = [option.opts for _, command in commands() for option in command.params if option.name == "out"]
    assert len(outputs) > 5
    assert all(names == ["-o", "--out"] for names in outputs)


def test_precisions_are_those_of_the_model():
    assert ("auto", *PRODUCTS) == DTYPES


def test_training_is_listed_as_soon_as_it_exists():
    assert ("train" in COMMANDS) == (Path(segic_cli.__file__).with_name("train.py")).exists()


def test_unknown_command():
    done = CliRunner().invoke(cli, ["vso"])
    assert done.exit_code == 2
    assert "No such command 'vso'" in done.output


def tree(error):
    @click.command(cls=RootGroup)
    def root():
        pass

    @root.command()
    @click.option("-v", "verbosity", count=True)
    @click.pass_context
    def work(ctx, verbosity):
        set_verbosity(ctx, verbosity)
        raise error

    return root


@pytest.mark.parametrize(("error", "status"), [(SegicError("it broke"), 1), (UsageError("no such file"), 2)])
def test_errors_are_one_line(error, status):
    done = CliRunner().invoke(tree(error), ["work"])
    assert done.exit_code == status
    assert done.output == f"Error: {error}\n"


def test_traceback_on_demand(monkeypatch):
    error = SegicError("it broke")
    assert "Traceback" in CliRunner().invoke(tree(error), ["work", "-vv"]).output
    monkeypatch.setenv("SEGIC_DEBUG", "1")
    assert "Traceback" in CliRunner().invoke(tree(error), ["work"]).output
    monkeypatch.setenv("SEGIC_DEBUG", "0")
    assert "Traceback" not in CliRunner().invoke(tree(error), ["work"]).output


def test_a_file_that_the_system_refuses_is_one_line():
    done = CliRunner().invoke(tree(PermissionError(13, "Permission denied", "secret.png")), ["work"])
    assert done.exit_code == 1
    assert done.output == "Error: secret.png: Permission denied\n"
    # Without a file's name it would say nothing to anybody but a developer.
    assert isinstance(CliRunner().invoke(tree(OSError("odd")), ["work"]).exception, OSError)


def test_interrupt_is_130():
    done = CliRunner().invoke(tree(KeyboardInterrupt()), ["work"])
    assert done.exit_code == 130


def test_a_defect_is_not_hidden():
    done = CliRunner().invoke(tree(ZeroDivisionError()), ["work"])
    assert isinstance(done.exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("users", "expected"),
    [({}, PATIENCE), ({"OMP_WAIT_POLICY": "active"}, None), ({"GOMP_SPINCOUNT": "7"}, "7")],
    ids=["by default", "another policy", "another count"],
)
def test_threads_wait_as_the_user_says(monkeypatch, users, expected):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in users.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    wait_patiently()
    assert os.environ.get("GOMP_SPINCOUNT") == expected


def shell(command):
    """Runs `segic COMMAND` by the shell, with its redirections."""
    line = ["sh", "-c", f'"$0" -m segic_cli {command}', sys.executable]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")


@full
@pytest.mark.parametrize("command", ["--help", "--version", "models list", "models list --json", "vos run --help"])
def test_a_full_standard_output_is_one_line(command):
    assert shell(f"{command} >/dev/full") == (1, "", "Error: standard output: No space left on device\n")


@full
@pytest.mark.parametrize("closed", ["2>/dev/full", "2>&-"])
def test_a_standard_error_that_fails_changes_no_status(closed):
    assert shell(f"models info nonesuch {closed}") == (2, "", "")
    assert shell(f"--version {closed}") == (0, shell("--version")[1], "")


def test_a_closed_output_is_no_error():
    assert shell("--version >&-") == (0, "", "")
    assert shell("--version >&- 2>&- <&-") == (0, "", "")


def test_a_reader_that_leaves_early_ends_the_program_silently():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "segic_cli", "models", "list"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_called_from_python_with_a_stream_that_has_no_name(monkeypatch):
    below = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(below, encoding="utf-8"))
    settle_streams()
    print("told")
    assert below.getvalue() == b"told\n"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize("said", [False, True])
def test_memory_that_is_freed_is_kept_unless_the_user_says_so(said: bool) -> None:
    """Twenty blocks of 20 MB, one after the other: their pages are zeroed once, or each time."""
    program = """
import resource
import numpy as np
from segic_cli.main import keep_freed_memory

keep_freed_memory()
np.ones(20 << 20, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(20 << 20, np.uint8)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize())
"""
    environment = {k: v for k, v in os.environ.items() if k not in SAYS_WHAT_IS_KEPT}
    environment["NUMPY_MADVISE_HUGEPAGE"] = "0"  # where there are huge pages, 2 MB would be one fault, too few to tell
    if said:
        environment["MALLOC_TRIM_THRESHOLD_"] = environment["MALLOC_MMAP_THRESHOLD_"] = str(1 << 20)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert (int(done.stdout) > 40 << 20) == said


def test_the_program_hardly_looks_for_cycles_while_it_starts():
    code = """
import gc
looks = []
gc.callbacks.append(lambda phase, about: looks.append(about["generation"]) if phase == "start" else None)
import segic_cli.main
segic_cli.main.run = lambda _: None
segic_cli.main.main()
before = len(looks)
import torch
import segic_vos.run
assert len(looks) - before < 10, looks
assert 2 not in looks[before:]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
