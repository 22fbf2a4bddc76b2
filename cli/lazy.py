"""A click group whose commands are imported when they are called, and errors shown as one line."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import IO, Any

import click

from segic.errors import INTERRUPTED, SegicError

_VERBOSITY = "segic_cli.verbosity"  # key of click's context-wide notes


@dataclass(frozen=True)
class LazyCommand:
    """Where a command lives (`module` beside this one, `attribute` in it) and the line that `--help` shows for it."""

    module: str
    attribute: str
    help: str


class LazyGroup(click.Group):
    """Lists its commands without importing them: torch alone would take longer than `--help` may."""

    def __init__(self, *args: Any, lazy: Mapping[str, LazyCommand] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order given, which is the order of use."""
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        entry = self._lazy[cmd_name]
        command = getattr(import_module(f".{entry.module}", __package__), entry.attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.module}.{entry.attribute} is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Names and lines, from the table alone."""
        rows = [(name, entry.help) for name, entry in self._lazy.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class RootGroup(LazyGroup):
    """Turns errors that segic raises on purpose into one line and their exit status, Ctrl-C into status 130."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            raise Failure("stopped", INTERRUPTED) from None
        except Exception as error:
            failure = _as_failure(error)
            if failure is None:
                raise
            show_traceback(ctx)
            raise failure from error


class Failure(click.ClickException):
    """One line on the terminal and an exit status."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_code = exit_status  # type: ignore[misc]

    def show(self, file: IO[Any] | None = None) -> None:
        """Ctrl-C is no error."""
        prefix = "" if self.exit_code == INTERRUPTED else "Error: "
        click.echo(f"{prefix}{self.format_message()}", file=file or sys.stderr)


def _as_failure(error: Exception) -> Failure | None:
    """How a deliberate error is shown; None for a defect, which keeps its traceback.

    A file that the system refuses (no permission, a name that is too long) is the user's business too, wherever it is
    met; what segic itself has to say of files comes as SegicError.
    """
    if isinstance(error, SegicError):
        return Failure(str(error), error.exit_status)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return Failure(f"{os.fsdecode(error.filename)}: {error.strerror}", 1)
    return None


def set_verbosity(ctx: click.Context, verbosity: int) -> None:
    """Remember a command's -q (-1) or -v (1, 2) for the error handler."""
    ctx.meta[_VERBOSITY] = verbosity


def show_traceback(ctx: click.Context) -> None:
    """That of the error in hand, with -vv, or SEGIC_DEBUG=1 in the environment."""
    if int(ctx.meta.get(_VERBOSITY, 0)) >= 2 or os.environ.get("SEGIC_DEBUG", "") not in ("", "0"):
        traceback.print_exc()


def run(command: click.Command, args: Sequence[str] | None = None) -> None:
    """Run the program and leave it."""
    command.main(args=list(args) if args is not None else sys.argv[1:], prog_name="segic")
