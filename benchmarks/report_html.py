"""A report as one HTML file that needs nothing else: tables, bars, pictures."""

from collections.abc import Mapping, Sequence
from html import escape

from .report import FOLD_HEADER, Report, method_of, row_columns, title_of
from .report_pictures import Picture, worst_frames
from .report_text import settings_lines
from .result import Result
from .table import percent

_BAR, _ROW, _LABEL, _VALUE = 420, 18, 190, 50  # pixels: the longest bar, a row's height, the names', the numbers' width
_MOST_BARS = 60

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5d6675; --line: #d5d9e0; --bar: #3566b8; --own: #eef3fb;
        --paper: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ef; --soft: #9aa4b5; --line: #39414f; --bar: #6c9be8; --own: #1f2a3d; --paper: #14181f; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1080px;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; border-top: 1px solid var(--line);
     padding-top: 1rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid var(--soft); vertical-align: bottom; white-space: normal; }
@media (max-width: 640px) { th, td { padding: .25rem .4rem; } td:first-child { white-space: normal; } }
tr.own { background: var(--own); font-weight: 600; }
ul, dl, details, .by { color: var(--soft); font-size: .9rem; } li { overflow-wrap: anywhere; }
details { margin: .75rem 0; } summary { cursor: pointer; }
svg { display: block; width: 100%; min-width: 540px; height: auto; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg rect { fill: var(--bar); }
svg line { stroke: var(--line); }
figure { margin: 0 0 1.25rem; max-width: 960px; } figure img { width: 100%; border-radius: 4px; display: block; }
figcaption { font-size: .9rem; } figcaption span { color: var(--soft); }
.sides { display: grid; grid-template-columns: 1fr 1fr; }
"""


def as_html(report: Report, *, pictures: int = 6) -> str:
    """The whole page. pictures: how many of the worst frames are shown for each video result."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>segic bench</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body>",
        "<h1>Benchmarks, beside the paper's table 1</h1>",
        _table(report.header(), report.cells(), own=len(report.own)),
        _list(report.remarks),
    ]
    if folds := report.folds():
        parts += ["<h2>COCO-20i by fold</h2>", _table(FOLD_HEADER, folds, own=len(folds) - 6)]
    parts += [_section(result, pictures) for result in report.results]
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _section(result: Result, pictures: int) -> str:
    columns = row_columns(result)
    rows = [[name, *(percent(figures.get(c)) for c in columns)] for name, figures in result.rows.items()]
    parts = [f"<h2>{escape(title_of(result))}</h2>", f'<p class="by">{escape(method_of(result))}</p>', _chart(result)]
    shown = worst_frames(result, pictures) if pictures else []
    if shown:
        parts.append("<h3>The worst frame of each sequence, worst first</h3>")
    parts += [_figure(picture) for picture in shown]
    parts.append(f"<details><summary>All figures</summary>{_table(['', *columns], rows)}</details>")
    parts.append(f"<details><summary>Settings</summary>{_list(settings_lines(result))}</details>")
    return "\n".join(parts)


def _chart(result: Result) -> str:
    """Bars of the headline figure by sequence or class; by object where there is but one sequence."""
    metric = result.metric if any(result.metric in figures for figures in result.rows.values()) else "J"
    values = {name: figures[metric] for name, figures in result.rows.items() if metric in figures}
    whole = {name: value for name, value in values.items() if "/" not in name}
    objects = {name: value for name, value in values.items() if "/" in name}
    return _bars(whole if len(whole) > 1 or not objects else objects, metric) if values else ""


def _figure(picture: Picture) -> str:
    score = f"{picture.sequence}, frame {picture.frame}: J&F {percent(picture.score)}"
    sides = (
        f"{name} {_share(share)}" for name, share in (("truth", picture.truth), ("prediction", picture.prediction))
    )
    captions = "".join(f"<span>{escape(side)}</span>" for side in sides)
    return (
        f'<figure><img src="{picture.data}" alt="{escape(score)}: truth on the left, prediction on the right">'
        f'<figcaption><div class="sides">{captions}</div>{escape(score)}</figcaption></figure>'
    )


def _share(share: float) -> str:
    """How much of the frame is covered, in words."""
    return f"({100 * share:.2g}% of the frame)" if share else "(no object)"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], own: int = 0) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = []
    for number, row in enumerate(rows):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        lines.append(f'<tr class="own">{cells}</tr>' if number < own else f"<tr>{cells}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _bars(values: Mapping[str, float], metric: str) -> str:
    """Horizontal bars on a scale from 0 to 100, worst first; of very many only the worst ones."""
    ordered = sorted(values.items(), key=lambda item: (item[1], item[0]))
    shown = ordered[:_MOST_BARS]
    width, height = _LABEL + _BAR + _VALUE, _ROW * len(shown) + 24
    box = f'viewBox="0 0 {width} {height}" style="max-width: {width}px"'
    parts = [f'<svg {box} role="img" aria-label="{escape(metric)} by item">']
    for tick in range(0, 101, 25):
        x = _LABEL + _BAR * tick / 100
        parts.append(f'<line x1="{x:.0f}" y1="0" x2="{x:.0f}" y2="{height - 20}"/>')
        parts.append(f'<text x="{x:.0f}" y="{height - 6}" text-anchor="middle">{tick}</text>')
    for number, (name, value) in enumerate(shown):
        y = _ROW * number
        label = name if len(name) <= 28 else name[:27] + "…"
        length = max(0.0, value) * _BAR
        parts.append(f'<text x="{_LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(label)}</text>')
        parts.append(f'<rect x="{_LABEL}" y="{y + 3}" width="{length:.1f}" height="{_ROW - 6}" rx="2"/>')
        parts.append(f'<text x="{_LABEL + length + 6:.1f}" y="{y + 13}">{percent(value)}</text>')
    title = f"{metric}, {len(shown)} of {len(ordered)}, worst first" if len(shown) < len(ordered) else metric
    return f'<h3>{escape(title)}</h3><div class="wide">' + "".join(parts) + "</svg></div>"
