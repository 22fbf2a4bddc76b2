"""Own results beside the paper's tables: what a report says, before it takes a form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segic.errors import UsageError

from .paper import COLUMNS, OTHER_COLUMNS, SEMANTIC, TABLE_1, TABLE_2, Column, PaperRow
from .result import Result
from .table import percent


@dataclass(frozen=True)
class OwnRow:
    """Results of one model, or of one folder of masks. results: by benchmark."""

    method: str
    results: Mapping[str, Result]


@dataclass(frozen=True)
class Report:
    """columns: the benchmarks that there are results of. own, paper: the rows. remarks: what holds for single cells."""

    columns: tuple[Column, ...]
    own: tuple[OwnRow, ...]
    paper: tuple[PaperRow, ...]
    remarks: tuple[str, ...]

    @property
    def results(self) -> tuple[Result, ...]:
        """All results, row by row."""
        return tuple(row.results[c.benchmark] for row in self.own for c in self.columns if c.benchmark in row.results)

    def header(self) -> list[str]:
        """Heads of the table's columns."""
        return ["method", "trained params", *(column.title for column in self.columns)]

    def cells(self) -> list[list[str]]:
        """The table's rows, own ones first."""
        rows = []
        for row in self.own:
            cells = [_own_cell(row.results.get(column.benchmark)) for column in self.columns]
            rows.append([row.method, "-", *cells])
        paper = (
            [row.method, row.parameters, *(_paper_cell(row, column.benchmark) for column in self.columns)]
            for row in self.paper
        )
        return [*rows, *paper]

    def folds(self) -> list[list[str]]:
        """Table 2 with own rows first: COCO-20i by fold. Empty where no result has folds."""
        own = []
        for row in self.own:
            result = row.results.get("coco20i")
            if result is not None:
                by_fold = [result.figures.get(f"fold {fold}") for fold in range(4)]
                only = result.split.rpartition("folds ")[2]
                if only in ("0", "1", "2", "3"):
                    by_fold[int(only)] = result.value
                own.append([row.method, *map(percent, by_fold), percent(result.value)])
        if not own:
            return []
        paper = [[f"paper: {row.method}", *(f"{v:.1f}" for v in row.folds), f"{row.mean:.1f}"] for row in TABLE_2]
        return own + paper


FOLD_HEADER = ("method", "F0", "F1", "F2", "F3", "mean")


def make_report(results: Sequence[Result]) -> Report:
    """Arrange results: a row for each model (or folder of masks) at each setting, a column for each benchmark.

    Raises UsageError for none, and for two results of one benchmark by the same model at the same setting.
    """
    if not results:
        raise UsageError("no result was given; name the result.json files, or their folders")
    rows: dict[str, dict[str, Result]] = {}
    for result in results:
        method = _method_among(result, results)
        row = rows.setdefault(method, {})
        if result.benchmark in row:
            raise UsageError(f"two results of {result.benchmark} by {method} were given; leave one out")
        row[result.benchmark] = result
    present = {result.benchmark for result in results}
    columns = tuple(column for column in (*COLUMNS, *OTHER_COLUMNS) if column.benchmark in present)
    own = tuple(OwnRow(method, by_benchmark) for method, by_benchmark in rows.items())
    paper = tuple(row for row in TABLE_1 if present & set(row.values))
    return Report(columns, own, paper, _remarks(own, paper, columns))


def method_of(result: Result) -> str:
    """How a row is called: the model with the start of its decoder's sha256, or the folder of masks."""
    if "results" in result.settings:
        return f"masks in {result.settings['results']}"
    model: Mapping[str, Any] = result.settings.get("model", {})
    sha = model.get("weights", {}).get("decoder", {}).get("sha256", "")
    return f"{model.get('name', 'unknown model')}" + (f" ({sha[:8]})" if sha else "")


def _method_among(result: Result, results: Sequence[Result]) -> str:
    """`method_of`, and the settings in which others of that name differ: two sizes of a model are two methods."""
    same = [_setting(other) for other in results if method_of(other) == method_of(result)]
    own = _setting(result)
    told = [own[key] for key in own if any(key in other and other[key] != own[key] for other in same)]
    return ", ".join((method_of(result), *told))


def _setting(result: Result) -> dict[str, str]:
    """In words, how a model was run: what changes its figures and is not its name."""
    model: Mapping[str, Any] = result.settings.get("model", {})
    words = {}
    if "tokens" in result.settings:
        tokens = result.settings["tokens"]
        words["tokens"] = f"{tokens} tokens" if tokens is not None else "whole frames"
    if "size" in model:
        words["size"] = f"{model['size']} px"
    if "dtype" in model:
        words["dtype"] = str(model["dtype"])
    if sha := model.get("weights", {}).get("backbone", {}).get("sha256"):
        words["backbone"] = f"backbone {sha[:8]}"
    return words


def title_of(result: Result) -> str:
    """What was measured, and the headline figure."""
    return f"{result.benchmark}, split {result.split}: {result.metric} {percent(result.value)}"


def row_columns(result: Result) -> list[str]:
    """The names of the figures that a result's rows have."""
    return list(dict.fromkeys(name for figures in result.rows.values() for name in figures))


def _own_cell(result: Result | None) -> str:
    if result is None:
        return "-"
    known = result.benchmark in SEMANTIC and result.settings.get("classes_known")
    return ("#" if known else "") + percent(result.value)


def _paper_cell(row: PaperRow, benchmark: str) -> str:
    if benchmark not in row.values:
        return "-"
    mark = "*" if benchmark in row.fine_tuned else "#" if row.known and benchmark in SEMANTIC else ""
    return f"{mark}{row.values[benchmark]:.1f}"


def _remarks(own: Sequence[OwnRow], paper: Sequence[PaperRow], columns: Sequence[Column]) -> tuple[str, ...]:
    remarks = []
    for row in own:
        for column in columns:
            result = row.results.get(column.benchmark)
            if result is not None:
                said = "; ".join((f"split {result.split}", *result.notes))
                remarks.append(f"{row.method}, {column.title}: {said}")
    if paper:
        remarks.append(
            "the paper's rows are of the full published test sets; a result of another split does not compare with them"
        )
    if any(row.fine_tuned & {c.benchmark for c in columns} for row in paper):
        remarks.append("* with additional fine-tuning")
    if SEMANTIC & {c.benchmark for c in columns}:
        remarks.append("# the classes in each image are known")
    return tuple(remarks)
