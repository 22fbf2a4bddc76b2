"""Reports: own rows beside the paper's, in every form, with pictures of the worst frames."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segic.errors import UsageError
from segic_benchmarks.davis import DavisBenchmark
from segic_benchmarks.davis_layout import find_davis
from segic_benchmarks.follow import Session, stepping
from segic_benchmarks.paper import COLUMNS, TABLE_1, TABLE_2
from segic_benchmarks.report import make_report
from segic_benchmarks.report_html import as_html
from segic_benchmarks.report_pictures import worst_frames
from segic_benchmarks.report_text import as_json, as_markdown, as_text
from segic_benchmarks.result import Result, load_result
from segic_benchmarks.table import text_table

MODEL = {"model": {"name": "segic-s", "weights": {"decoder": {"sha256": "0123456789abcdef"}}}}


def result(benchmark: str, value: float, **changes: object) -> Result:
    made = Result(
        benchmark=benchmark,
        metric="mIoU",
        value=value,
        figures={"mIoU": value},
        rows={"cat": {"mIoU": value}, "<dog>": {"mIoU": 1.0}},
        split="val",
        settings=MODEL,
        versions={"python": "3.10"},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_the_papers_numbers() -> None:
    by_name = {row.method: row for row in TABLE_1}
    assert len(TABLE_1) == 20
    assert by_name["SEGIC (L)"].values["davis17"] == 71.4
    assert by_name["SEGIC (G)"].values == dict(
        zip((c.benchmark for c in COLUMNS), (74.5, 88.4, 47.8, 73.7, 65.4, 74.0, 59.0, 34.9, 20.1), strict=True)
    )
    assert by_name["Matcher (H+G)"].values["lvis92i"] == 33.0
    assert by_name["X-decoder (L)"].values == {"coco-sem": 67.5, "ade20k": 58.1, "pc459": 29.6, "ade847": 9.2}
    # Most rows of table 2 state a mean that the folds confirm; FPTrans states 47.0 (sum 187.9 / 4).
    for row in TABLE_2:
        assert row.mean == pytest.approx(sum(row.folds) / 4, abs=0.06)


def test_rows_by_model_columns_by_benchmark() -> None:
    other = {"model": {"name": "segic-l-80k", "weights": {}}}
    report = make_report([result("fss1000", 0.8), result("coco20i", 0.5), result("fss1000", 0.9, settings=other)])
    assert report.header()[2:] == ["COCO-20i", "FSS-1000"]
    cells = report.cells()
    assert cells[0] == ["segic-s (01234567)", "-", "50.0", "80.0"]
    assert cells[1] == ["segic-l-80k", "-", "-", "90.0"]
    assert ["SEGIC (L)", "5M", "76.1", "86.8"] in cells
    assert all("XMem" not in row[0] for row in cells)  # it has neither


def test_known_classes_are_marked_on_both_sides() -> None:
    known = result("ade20k", 0.4, settings={**MODEL, "classes_known": True})
    cells = make_report([known]).cells()
    assert cells[0][2] == "#40.0"
    assert ["SEGIC (G)", "5M", "#59.0"] in cells
    assert ["SegGPT (L)", "354M", "*39.6"] in cells
    assert make_report([result("ade20k", 0.4)]).cells()[0][2] == "40.0"


def test_folds_beside_table_2() -> None:
    four = result("coco20i", 0.5, figures={"mIoU": 0.5, **{f"fold {i}": 0.35 + 0.1 * i for i in range(4)}})
    folds = make_report([four]).folds()
    assert folds[0] == ["segic-s (01234567)", "35.0", "45.0", "55.0", "65.0", "50.0"]
    assert folds[-1][-1] == "62.3"
    alone = make_report([result("coco20i", 0.5, split="instances.json, folds 2")]).folds()
    assert alone[0][1:] == ["-", "-", "50.0", "-", "50.0"]
    assert make_report([result("fss1000", 0.5)]).folds() == []


def test_settings_of_one_model_are_rows_of_their_own() -> None:
    def at(tokens: int | None, size: int = 476) -> dict[str, object]:
        return {"model": {**MODEL["model"], "size": size}, "tokens": tokens}

    fast = result("davis17", 0.5, settings=at(900))
    whole = [result("davis17", 0.6, settings=at(None)), result("davis16", 0.7, settings=at(None))]
    pictures = result("fss1000", 0.8)  # says nothing of tokens
    report = make_report([fast, *whole, pictures])
    assert [row.method for row in report.own] == [
        "segic-s (01234567), 900 tokens",
        "segic-s (01234567), whole frames",
        "segic-s (01234567)",
    ]
    assert set(report.own[1].results) == {"davis17", "davis16"}
    assert [row.method for row in make_report([whole[0], pictures]).own] == ["segic-s (01234567)"]  # nothing differs
    sizes = make_report([whole[0], result("davis17", 0.6, settings=at(None, 672))])
    assert [row.method for row in sizes.own] == ["segic-s (01234567), 476 px", "segic-s (01234567), 672 px"]


def test_the_split_and_the_notes_are_said() -> None:
    report = make_report([result("fss1000", 0.5, split="mine", notes=("2 classes",))])
    assert report.remarks[0] == "segic-s (01234567), FSS-1000: split mine; 2 classes"
    assert "does not compare" in report.remarks[1]


def test_nothing_and_twice_the_same() -> None:
    with pytest.raises(UsageError, match="no result was given"):
        make_report([])
    with pytest.raises(UsageError, match="two results of fss1000 by segic-s"):
        make_report([result("fss1000", 0.5), result("fss1000", 0.6)])


def test_text_and_markdown_and_json() -> None:
    report = make_report([result("fss1000", 0.5)])
    text = as_text(report)
    assert "SEGIC (G)" in text
    assert "model.weights.decoder.sha256: 0123456789abcdef" in text
    configured = result("fss1000", 0.5, settings={"model": {"name": "m", "config": {"size": 476, "layers": [6, 9]}}})
    assert "\nmodel.config: size 476; layers 6, 9\n" in as_text(make_report([configured]))
    markdown = as_markdown(report)
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert len({line.count("|") - 2 * line.count("\\|") for line in lines[:5]}) == 1
    assert "\\<dog>" in markdown
    data = json.loads(as_json(report))
    assert data["table"][0] == {"method": "segic-s (01234567)", "paper": False, "fss1000": 50.0}
    assert {"method": "SEGIC (L)", "paper": True, "fss1000": 86.8} in data["table"]
    assert data["results"][0]["settings"]["model"]["name"] == "segic-s"


class Checked(HTMLParser):
    """Every element that is opened is closed, in order."""

    VOID = ("meta", "img", "line", "rect")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)


@pytest.fixture
def run(davis: Path, tmp_path: Path, copying: Callable[[], Session]) -> Result:
    DavisBenchmark(2017, find_davis(davis, 2017)).run(stepping(copying), tmp_path / "out", MODEL)
    return load_result(tmp_path / "out")


def test_html_is_whole_and_needs_nothing_else(run: Result) -> None:
    page = as_html(make_report([run, result("coco20i", 0.5)]))
    parser = Checked()
    parser.feed(page)
    assert parser.open == []
    assert parser.seen.count("svg") == 2
    assert parser.seen.count("img") == 2
    assert "&lt;dog&gt;" in page
    assert "<dog>" not in page
    assert "http" not in page
    assert parser.seen.count("rect") == 2 + 2  # sequences one and two, not the objects of two; two classes
    assert page.count("<h3>J&amp;F</h3>") == page.count("<h3>mIoU</h3>") == 1  # the bars show the headline figure
    assert "truth (6.7% of the frame)" in page  # sequence "two": 2 x 64 of 40 x 48 pixels


def test_worst_frames(run: Result) -> None:
    pictures = worst_frames(run, 6)
    assert [p.frame for p in pictures] == ["00003", "00003"]  # a copied first mask is worst where most has moved
    assert pictures[0].score == min(pictures[0].score, pictures[1].score)
    with Image.open(BytesIO(base64.b64decode(pictures[0].data.split(",")[1]))) as image:
        pixels = np.asarray(image).astype(int)
    assert pixels.shape == (400, 960, 3)
    # Object 1 is red on both sides; on the right it is where it was in frame 0, three pixels further left.
    scale = 480 / 48
    row = round(6 * scale)
    left, right = pixels[row, : 960 // 2, 0], pixels[row, 960 // 2 :, 0]
    assert abs(np.flatnonzero(left > 50)[0] - 7 * scale) < 6
    assert abs(np.flatnonzero(right > 50)[0] - 4 * scale) < 6


def test_pictures_of_data_in_a_folder_with_braces(davis: Path, tmp_path: Path, copying: Callable[[], Session]) -> None:
    davis = davis.rename(tmp_path / "D{1}")
    DavisBenchmark(2017, find_davis(davis, 2017)).run(stepping(copying), tmp_path / "out", MODEL)
    assert len(worst_frames(load_result(tmp_path / "out"), 6)) == 2


def test_objects_are_shown_where_there_is_one_sequence(
    davis: Path, tmp_path: Path, copying: Callable[[], Session]
) -> None:
    DavisBenchmark(2017, find_davis(davis, 2017, sequences=["two"])).run(stepping(copying), tmp_path / "out", MODEL)
    page = as_html(make_report([load_result(tmp_path / "out")]), pictures=0)
    assert [label for label in ("two", "two/1", "two/2") if f">{label}</text>" in page] == ["two/1", "two/2"]


def test_figures_keep_their_order(run: Result) -> None:
    assert list(run.figures) == ["J&F", "J mean", "J recall", "J decay", "F mean", "F recall", "F decay"]
    assert "| | J&F | J mean |" in as_markdown(make_report([run])).replace("|  |", "| |")


def test_a_wide_table_goes_on_below() -> None:
    results = [result(column.benchmark, 0.5) for column in COLUMNS]
    text = as_text(make_report(results), 80)
    assert max(map(len, text.splitlines())) <= 80
    table = text.split("\n\nsegic-s (01234567), COCO-20i")[0]
    assert table.count("SEGIC (L)") == 2
    assert all(column.title in table for column in COLUMNS)
    assert text_table(["a", "b"], [["1", "2"]]) == text_table(["a", "b"], [["1", "2"]], 1)  # never less than one


def test_pictures_are_left_out_where_the_data_is_gone(run: Result, tmp_path: Path) -> None:
    gone = replace(run, files={kind: path.replace(str(tmp_path), "/gone") for kind, path in run.files.items()})
    assert worst_frames(gone, 6) == []
    assert "<img" not in as_html(make_report([gone]))
    assert worst_frames(result("coco20i", 0.5), 6) == []


def test_files_that_are_no_results(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"result\.json: there is no such file"):
        load_result(tmp_path)
    path = tmp_path / "x.json"
    for text in ("{", "[]", "{}", '{"format": 1}'):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"x\.json is not a result of `segic bench`") as raised:
            load_result(path)
        assert "Error:" not in str(raised.value)  # in Python's words
    path.write_bytes(b"\x89PNG" + 200 * b"\xff")
    with pytest.raises(UsageError, match=r"UnicodeDecodeError.*byte 0x89") as raised:
        load_result(path)
    assert len(str(raised.value)) < 200 + len(str(path))  # not the file's contents
    odd = json.loads(result("coco20i", 0.5).to_json()) | {"rows": 3}
    path.write_text(json.dumps(odd))
    with pytest.raises(UsageError, match="rows is not a table"):
        load_result(path)
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(UsageError, match="holds a run that is not finished"):
        load_result(tmp_path)
    path.write_text('{"format": 2}')
    with pytest.raises(UsageError, match="has format 2; this version reads format 1"):
        load_result(path)
