"""Tables 1 and 2 of the paper (Meng et al., SEGIC, ECCV 2024), to set own results beside. In per cent."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """benchmark: the name that results carry. title: the head of the column, as in table 1."""

    benchmark: str
    title: str


@dataclass(frozen=True)
class PaperRow:
    """One method. kind: table 1's group. values: by benchmark, where the paper has a number.

    fine_tuned: benchmarks whose number needed more training (the table's *). known: whether semantic segmentation was
    told the classes of each image (the table's #).
    """

    method: str
    kind: str
    parameters: str
    values: Mapping[str, float]
    fine_tuned: frozenset[str] = frozenset()
    known: bool = False


COLUMNS = (
    Column("coco20i", "COCO-20i"),
    Column("fss1000", "FSS-1000"),
    Column("lvis92i", "LVIS-92i"),
    Column("davis17", "DAVIS-17 J&F"),
    Column("yvos18", "YVOS-18 G"),
    Column("coco-sem", "COCO mIoU"),
    Column("ade20k", "ADE20k mIoU"),
    Column("pc459", "PC-459 mIoU"),
    Column("ade847", "A-847 mIoU"),
)
# Benchmarks of ours that table 1 has no column for.
OTHER_COLUMNS = (
    Column("davis16", "DAVIS-16 J&F"),
    Column("yvos19", "YVOS-19 G"),
    Column("spair71k", "SPair-71k PCK"),
)

_FEW_SHOT, _VOS, _SEMANTIC = "few-shot specialist", "VOS specialist", "semantic specialist"
_GENERALIST, _IN_CONTEXT = "generalist", "in-context generalist"


def _row(
    method: str, kind: str, parameters: str, numbers: str, *, fine_tuned: tuple[str, ...] = (), known: bool = False
) -> PaperRow:
    """numbers: table 1's nine columns in order, "-" where it has none."""
    values = {
        column.benchmark: float(number)
        for column, number in zip(COLUMNS, numbers.split(), strict=True)
        if number != "-"
    }
    return PaperRow(method, kind, parameters, values, frozenset(fine_tuned), known)


TABLE_1 = (
    _row("HSNet (RN50)", _FEW_SHOT, "28M", "41.7 86.5 17.4 - - - - - -"),
    _row("VAT (RN50)", _FEW_SHOT, "52M", "42.9 90.3 18.5 - - - - - -"),
    _row("FPTrans (B)", _FEW_SHOT, "101M", "56.5 - - - - - - - -"),
    _row("AGAME (RN101)", _VOS, "-", "- - - 70.0 66.0 - - - -"),
    _row("SWEM (RN50)", _VOS, "58M", "- - - 84.3 82.8 - - - -"),
    _row("XMem (RN50)", _VOS, "62M", "- - - 87.7 86.1 - - - -"),
    _row("MaskFormer (L)", _SEMANTIC, "212M", "- - - - - 64.8 54.1 - -"),
    _row("Mask2Former (L)", _SEMANTIC, "216M", "- - - - - 67.4 56.1 - -"),
    _row("MaskDINO (L)", _SEMANTIC, "225M", "- - - - - - 56.6 - -"),
    _row("OneFormer (L)", _GENERALIST, "237M", "- - - - - 67.4 57.7 - -"),
    _row("UNINEXT (L)", _GENERALIST, "340M", "- - - 77.2 78.1 - - - -"),
    _row("X-decoder (L)", _GENERALIST, "341M", "- - - - - 67.5 58.1 29.6 9.2"),
    _row("SEEM (L)", _GENERALIST, "341M", "- - - 58.9 50.0 67.6 - - -"),
    _row("Painter (L)", _IN_CONTEXT, "354M", "33.1 61.7 10.5 34.6 24.1 - 49.9 - -"),
    _row("SegGPT (L)", _IN_CONTEXT, "354M", "56.1 85.6 18.6 75.6 74.7 - 39.6 - -", fine_tuned=("ade20k",)),
    _row("PerSAM (H)", _IN_CONTEXT, "0", "23.0 71.2 11.5 60.3 - - - - -"),
    _row("PerSAM-F (H)", _IN_CONTEXT, "2", "23.5 75.6 12.3 71.9 - - - - -"),
    _row("Matcher (H+G)", _IN_CONTEXT, "0", "52.7 87.0 33.0 79.5 - - - - -"),
    _row("SEGIC (L)", _IN_CONTEXT, "5M", "76.1 86.8 44.6 71.4 62.7 72.9 55.5 33.5 18.9", known=True),
    _row("SEGIC (G)", _IN_CONTEXT, "5M", "74.5 88.4 47.8 73.7 65.4 74.0 59.0 34.9 20.1", known=True),
)

SEMANTIC = frozenset({"coco-sem", "ade20k", "pc459", "ade847"})


@dataclass(frozen=True)
class FoldRow:
    """A row of table 2: one-shot COCO-20i with the scored fold's classes held out of training."""

    method: str
    folds: tuple[float, float, float, float]
    mean: float


TABLE_2 = (
    FoldRow("HSNet", (37.2, 44.1, 42.4, 41.3), 41.2),
    FoldRow("VAT", (39.0, 43.8, 42.6, 39.7), 41.3),
    FoldRow("FPTrans", (44.4, 48.9, 50.6, 44.0), 47.0),
    FoldRow("MSANet", (47.8, 57.4, 48.7, 50.5), 51.1),
    FoldRow("SEGIC", (55.8, 54.7, 52.4, 51.4), 53.6),
    FoldRow("SEGIC, jointly trained on data without COCO", (62.3, 62.5, 63.3, 60.9), 62.3),
)
