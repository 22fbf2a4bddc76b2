"""A report as plain text, Markdown and JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from textwrap import fill

from segic.nested import flatten

from .report import FOLD_HEADER, Report, method_of, row_columns, title_of
from .result import Result
from .table import percent, text_table

_CONFIG = "model.config."


def as_text(report: Report, width: int = 100) -> str:
    """For a terminal of `width` characters: the table, then what was measured."""
    parts = [text_table(report.header(), report.cells(), width), _wrapped(report.remarks, width)]
    if folds := report.folds():
        parts.append("COCO-20i by fold\n" + text_table(FOLD_HEADER, folds, width))
    parts += [_wrapped([_title(result), *settings_lines(result)], width) for result in report.results]
    return "\n\n".join(parts) + "\n"


def as_markdown(report: Report) -> str:
    """For a README or an issue: the same, with each result's rows."""
    parts = [_markdown_table(report.header(), report.cells())]
    parts.append("\n".join(f"- {_escaped(remark)}" for remark in report.remarks))
    if folds := report.folds():
        parts.append("## COCO-20i by fold\n\n" + _markdown_table(FOLD_HEADER, folds))
    for result in report.results:
        columns = row_columns(result)
        rows = [[name, *(percent(figures.get(c)) for c in columns)] for name, figures in result.rows.items()]
        parts.append(f"## {_escaped(_title(result))}")
        parts.append("\n".join(f"- {_escaped(line)}" for line in settings_lines(result)))
        parts.append(_markdown_table(["", *columns], rows))
    return "\n\n".join(parts) + "\n"


def as_json(report: Report) -> str:
    """For scripts: the table's cells as numbers in per cent, and all results."""
    table = [
        {"method": row.method, "paper": False, **{b: round(100 * r.value, 2) for b, r in row.results.items()}}
        for row in report.own
    ]
    present = {column.benchmark for column in report.columns}
    for row in report.paper:
        numbers = {b: v for b, v in row.values.items() if b in present}
        table.append({"method": row.method, "paper": True, **numbers})
    data = {"table": table, "remarks": report.remarks, "results": [asdict(result) for result in report.results]}
    return json.dumps(data, indent=1) + "\n"


def settings_lines(result: Result) -> list[str]:
    """A result's settings and versions, one "name: value" a line, the model's configuration in one."""
    settings = [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else value)
        for name, value in flatten(result.settings).items()
    ]
    config = [(name.removeprefix(_CONFIG), value) for name, value in settings if name.startswith(_CONFIG)]
    lines = [f"{name}: {value}" for name, value in settings if not name.startswith(_CONFIG)]
    if config:
        lines.append("model.config: " + "; ".join(f"{name} {value}" for name, value in config))
    return [*lines, "versions: " + ", ".join(f"{name} {v}" for name, v in result.versions.items())]


def _title(result: Result) -> str:
    return f"{title_of(result)}, {method_of(result)}"


def _wrapped(lines: Sequence[str], width: int) -> str:
    return "\n".join(fill(line, width, subsequent_indent="  ", break_long_words=False) for line in lines)


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)


def _escaped(text: str) -> str:
    for sign in ("\\", "|", "*", "_", "#", "<", "`"):
        text = text.replace(sign, "\\" + sign)
    return text
