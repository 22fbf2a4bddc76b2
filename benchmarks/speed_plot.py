"""The time of a frame by stage as bars: an SVG file that needs nothing else."""

from html import escape

from .speed_result import STAGES, CellResult, Procedure, SpeedReport

_LABEL, _BAR, _ROW, _TOP, _RIGHT = 270, 520, 26, 58, 110  # pixels
_COLOURS = {"decode": "#8a6fb3", "backbone": "#3566b8", "masks": "#d9822b", "write": "#4b9a62"}
_INK, _SOFT, _LINE, _PAPER = "#1d2430", "#5d6675", "#d5d9e0", "#ffffff"
_TICKS = 5


def speed_plot(report: SpeedReport) -> str:
    """One bar for each procedure of each cell: milliseconds of work by stage, and a mark at the time that passed.

    Where the mark lies left of the bar's end, stages overlapped.
    """
    rows = [(result, procedure) for result in report.cells for procedure in result.procedures]
    longest = max(max(_busy(procedure), procedure.wall.high) for _, procedure in rows)
    step = _round_step(1000 * longest / _TICKS)
    scale = _BAR / (step * _TICKS)
    height = _TOP + _ROW * len(rows) + 34
    width = _LABEL + _BAR + _RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="Time of a frame by stage" font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="{_PAPER}"/>',
        _text(12, 20, "Time of a frame by stage, milliseconds; the mark is the time that passed", size=14),
        *_legend(),
    ]
    bottom = _TOP + _ROW * len(rows)
    for tick in range(_TICKS + 1):
        x = _LABEL + tick * step * scale
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{bottom}" stroke="{_LINE}"/>')
        parts.append(_text(x, bottom + 16, f"{tick * step:g}", anchor="middle", colour=_SOFT))
    for number, (result, procedure) in enumerate(rows):
        parts += _bar(result, procedure, _TOP + _ROW * number, scale)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(result: CellResult, procedure: Procedure, y: float, scale: float) -> list[str]:
    cell = result.cell
    label = f"{procedure.name}, {cell.objects} obj., {procedure.canvas[1]}x{procedure.canvas[0]}, {procedure.dtype}"
    parts = [_text(_LABEL - 8, y + 16, label, anchor="end")]
    x = float(_LABEL)
    for stage in STAGES:
        length = 1000 * procedure.stage(stage).median * scale
        parts.append(
            f'<rect x="{x:.1f}" y="{y + 4}" width="{length:.1f}" height="{_ROW - 9}" fill="{_COLOURS[stage]}"/>'
        )
        x += length
    wall = procedure.wall
    low, mark, high = (_LABEL + 1000 * seconds * scale for seconds in (wall.low, wall.median, wall.high))
    middle = y + 4 + (_ROW - 9) / 2
    parts.append(
        f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" stroke="{_INK}" stroke-width="1.5"/>'
        f'<line x1="{mark:.1f}" y1="{y + 1}" x2="{mark:.1f}" y2="{y + _ROW - 2}" stroke="{_INK}" stroke-width="2.5"/>'
    )
    parts.append(_text(max(x, high) + 6, y + 16, f"{procedure.fps.median:.3g} frames/s"))
    return parts


def _busy(procedure: Procedure) -> float:
    """Seconds of work of all stages together."""
    return sum(procedure.stage(stage).median for stage in STAGES)


def _legend() -> list[str]:
    parts, x = [], 12
    for stage, colour in _COLOURS.items():
        parts.append(f'<rect x="{x}" y="32" width="12" height="12" fill="{colour}"/>')
        parts.append(_text(x + 17, 42, stage))
        x += 92
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = _INK, size: int = 12) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}" font-size="{size}">{escape(text)}</text>'


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is at least `least`."""
    power = 1e-6
    while power * 10 < least:
        power *= 10
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= least)
