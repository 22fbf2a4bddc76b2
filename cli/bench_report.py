"""`segic bench report`."""

from __future__ import annotations

from pathlib import Path
from shutil import get_terminal_size

import click

from segic.errors import UsageError
from segic.files import write_whole

_SUFFIXES = {".txt": "text", ".md": "markdown", ".json": "json", ".html": "html", ".htm": "html"}


@click.command()
@click.argument("results", metavar="RESULT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="File to write.  [default: the terminal]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "json", "html"]),
    help="Form of the report.  [default: by the suffix of --out (.txt, .md, .json, .html), else text]",
)
@click.option(
    "--pictures", type=click.IntRange(min=0), default=6, show_default=True, help="Worst frames shown in HTML."
)
def report(results: tuple[Path, ...], out: Path | None, form: str | None, pictures: int) -> None:
    """Set results beside the paper's table.

    Each RESULT is a result.json that a benchmark wrote, or its folder. HTML has bars by sequence or class, and pictures
    of the worst frames.
    """
    from segic_benchmarks.report import make_report
    from segic_benchmarks.report_html import as_html
    from segic_benchmarks.report_text import as_json, as_markdown, as_text
    from segic_benchmarks.result import load_result

    if out is not None and out.is_dir():
        raise UsageError(f"--out {out} is a folder; give the file that the report is to be")
    made = make_report([load_result(path) for path in results])
    form = form or _SUFFIXES.get(out.suffix.lower() if out else "", "text")
    if form == "html":
        text = as_html(made, pictures=pictures)
    elif form == "text":
        text = as_text(made) if out else as_text(made, get_terminal_size(fallback=(100, 0)).columns)
    else:
        text = {"markdown": as_markdown, "json": as_json}[form](made)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_whole(out, text)
        click.echo(str(out), err=True)
