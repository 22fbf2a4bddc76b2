"""Plain text tables for the terminal."""

from collections.abc import Mapping, Sequence

from .result import Result


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest entry; the first to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def percent(value: float | None) -> str:
    """0..1 as per cent with one decimal; "-" for None."""
    return "-" if value is None else f"{100 * value:.1f}"


def result_table(result: Result) -> str:
    """All figures of a result: one line an item, the global ones last, notes below. In per cent."""
    columns = list(result.figures)
    rows = [_row(name, figures, columns) for name, figures in result.rows.items()]
    rows.append(_row("all", result.figures, columns))
    title = f"{result.benchmark}, {result.split}: {result.metric} {percent(result.value)}"
    notes = [f"note: {note}" for note in result.notes]
    return "\n".join([text_table(["", *columns], rows), *notes, "", title])


def _row(name: str, figures: Mapping[str, float], columns: Sequence[str]) -> list[str]:
    return [name, *(percent(figures.get(column)) for column in columns)]
