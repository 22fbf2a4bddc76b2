"""What was measured of speed, as text."""

from collections.abc import Sequence
from pathlib import Path

from segic.files import write_whole

from .speed_limits import Limits
from .speed_plot import speed_plot
from .speed_result import STAGES, CellResult, Procedure, SpeedReport, Spread
from .table import percent, text_table

_MEBI = 2**20
_HEADER = (
    ["objects", "size", "dtype", "batch", "procedure"]
    + [f"{stage} ms" for stage in STAGES]
    + ["whole ms", "CPU ms", "frames/s", "spread", "not backbone", "of limit"]
    + ["host MiB", "more", "device MiB", "more", "J&F"]
)


def as_text(report: SpeedReport) -> str:
    """A table of all cells, the ratios to the published procedure, the limits, the notes."""
    rows = [_row(result, procedure) for result in report.cells for procedure in result.procedures]
    first = report.cells[0]
    parts = [
        f"{report.settings.get('model', {}).get('name') or 'model'} on {_machine(report)}",
        f"clip: {first.clip}, {first.frame[1]}x{first.frame[0]}, {first.frames} frames, "
        f"each run {len(first.segic.samples)} times (medians; spread: slowest to quickest)",
        "",
        text_table(_HEADER, rows),
        "",
        "Times are a frame's; stages of segic overlap, so `whole` may be less than their sum. masks: all else that",
        "comes between frames and masks; on a GPU the backbone's time includes preparing its pictures. of limit: the",
        "rate of its operations against a matrix product's in the same run (with int8 attention is none of bytes, but",
        "counts). more: memory beyond that before, when both procedures' models were there already.",
        "",
        *_limits(report),
        *(line for result in report.cells for line in _comparison(result)),
        *_cost_of_objects(report.cells, report.settings.get("tokens")),
        *(f"note: {text}" for text in report.notes),
    ]
    return "\n".join(parts)


def write_report(report: SpeedReport, folder: Path, text_json: str) -> tuple[Path, ...]:
    """Write speed.txt, speed.json (`text_json`) and speed.svg; returns their paths."""
    files = {"speed.txt": as_text(report) + "\n", "speed.json": text_json, "speed.svg": speed_plot(report)}
    for name, text in files.items():
        write_whole(folder / name, text)
    return tuple(folder / name for name in files)


def _row(result: CellResult, procedure: Procedure) -> list[str]:
    own = procedure is result.segic
    peak = procedure.peaks()
    return [
        str(result.cell.objects),
        f"{procedure.canvas[1]}x{procedure.canvas[0]}",
        procedure.dtype,
        str(result.cell.batch) if own else "1",
        procedure.name,
        *(_ms(procedure.stage(name)) for name in STAGES),
        _ms(procedure.wall),
        _ms(procedure.cpu),
        f"{procedure.fps.median:.3g}",
        f"{procedure.fps.low:.3g}-{procedure.fps.high:.3g}",
        percent(procedure.beside_backbone) + " %",
        percent(procedure.backbone_share) + " %",
        _mebibytes(peak.host),
        _mebibytes(_more(peak.host, peak.host_before)),
        _mebibytes(peak.device),
        _mebibytes(_more(peak.device, peak.device_before)),
        percent(procedure.scores),
    ]


def _more(peak: int | None, before: int | None) -> int | None:
    return None if peak is None or before is None else peak - before


def _ms(seconds: Spread) -> str:
    return f"{1000 * seconds.median:.1f}"


def _mebibytes(value: int | None) -> str:
    return "-" if value is None else f"{value / _MEBI:.0f}"


def _machine(report: SpeedReport) -> str:
    found = report.machine
    where = found.get("accelerator") or found["processor"]
    return f"{where} ({found['device']}, {found['threads']} threads, {found['instructions']})"


def _limits(report: SpeedReport) -> list[str]:
    """The best of all measurements, by dtype."""
    products: dict[str, float] = {}
    limits: list[Limits] = []
    for result in report.cells:
        for procedure in result.procedures:
            products[procedure.dtype] = max(products.get(procedure.dtype, 0.0), procedure.product_limit)
            limits += procedure.limits
    copy = max(each.copy for each in limits)
    lines = [f"limit: matrix product in {name} {rate / 1e12:.3g} TFLOP/s" for name, rate in products.items()]
    lines.append(f"limit: copy within memory {copy / 1e9:.3g} GB/s")
    uploads = [each.upload for each in limits if each.upload is not None]
    if uploads:
        lines.append(f"limit: from the host to the device {max(uploads) / 1e9:.3g} GB/s")
    return lines


def _comparison(result: CellResult) -> list[str]:
    compared = result.comparison
    if compared is None:
        return []
    cell = result.cell
    stages = ", ".join(f"{name} {_times(spread)}" for name, spread in compared.stages.items())
    return [
        f"against published, {cell.objects} objects, size {cell.size or 'own'}, {result.segic.dtype}, "
        f"batch {cell.batch}: {_times(compared.wall)}, CPU time {_times(compared.cpu)}; {stages}; "
        f"masks agree with IoU {compared.iou:.3f}"
    ]


def _times(spread: Spread) -> str:
    return f"{spread.median:.2f}x ({spread.low:.2f}-{spread.high:.2f})"


def _cost_of_objects(cells: Sequence[CellResult], tokens: int | None) -> list[str]:
    """What more objects cost, against the cell with the fewest and equal settings otherwise, in CPU time and time.
    tokens: of foveated frames, whose size follows from the objects.
    """
    groups: dict[tuple[object, ...], list[CellResult]] = {}
    for result in cells:
        cell = result.cell
        groups.setdefault((tokens or cell.size, cell.dtype, cell.batch), []).append(result)
    lines = []
    for group in groups.values():
        base, *others = sorted(group, key=lambda result: result.cell.objects)
        for other in others:
            wall = other.segic.wall.median / base.segic.wall.median
            cpu = other.segic.cpu.median / base.segic.cpu.median
            lines.append(
                f"{other.cell.objects} objects cost {wall:.2f}x of {base.cell.objects} ({cpu:.2f}x in CPU time), "
                f"size {other.cell.size or 'own'}, {other.segic.dtype}, batch {other.cell.batch}"
            )
    return lines
