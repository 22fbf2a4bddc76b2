"""Plain text tables for the terminal."""

from collections.abc import Mapping, Sequence

from .result import Result


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Columns padded to their widest entry; the first to the left, numbers to the right.

    A table of more than `width` characters goes on below itself: columns that find no room follow in a table of their
    own, beside the first column again.
    """
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    blocks: list[list[int]] = [[]]
    for column in range(1, len(header)):
        taken = widths[0] + sum(2 + widths[i] for i in (*blocks[-1], column))
        if width is not None and blocks[-1] and taken > width:
            blocks.append([])
        blocks[-1].append(column)
    return "\n\n".join(_block(lines, widths, block) for block in blocks)


def _block(lines: Sequence[Sequence[str]], widths: Sequence[int], columns: Sequence[int]) -> str:
    """The first column and those given."""
    padded = ["  ".join([line[0].ljust(widths[0]), *(line[i].rjust(widths[i]) for i in columns)]) for line in lines]
    rule = "  ".join("-" * widths[i] for i in (0, *columns))
    return "\n".join(line.rstrip() for line in [padded[0], rule, *padded[1:]])


def percent(value: float | None) -> str:
    """0..1 as per cent with one decimal; "-" for None."""
    return "-" if value is None else f"{100 * value:.1f}"


def result_table(result: Result) -> str:
    """All figures of a result: one line an item, the global ones last, notes below. In per cent."""
    columns = list(dict.fromkeys([*result.figures, *(name for row in result.rows.values() for name in row)]))
    rows = [_row(name, figures, columns) for name, figures in result.rows.items()]
    rows.append(_row("all", result.figures, columns))
    title = f"{result.benchmark}, {result.split}: {result.metric} {percent(result.value)}"
    notes = [f"note: {note}" for note in result.notes]
    return "\n".join([text_table(["", *columns], rows), *notes, "", title])


def _row(name: str, figures: Mapping[str, float], columns: Sequence[str]) -> list[str]:
    return [name, *(percent(figures.get(column)) for column in columns)]
