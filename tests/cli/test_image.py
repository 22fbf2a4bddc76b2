"""`segic image segment`: the example syntax, and the files written, with a stand-in model."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from segic.errors import UsageError
from segic.images import Segmentation
from segic_cli.examples import parse_example
from segic_cli.main import cli
from segic_cli.model_options import LoadedModel
from segic_vos.figures import colour_map

names = st.text(string.ascii_letters + string.digits + "._- /\\:ä", min_size=1, max_size=12).filter(lambda s: s.strip())
plain = names.filter(lambda s: ":" not in s)
texts = st.none() | st.text(min_size=0, max_size=12)


def spec(image, mask, text):
    return f"{image}:{mask}" + ("" if text is None else f":{text}")


@given(image=plain, mask=plain, text=texts)
def test_names_without_colons_come_back(image, mask, text):
    found = parse_example(spec(image, mask, text), is_file={image, mask}.__contains__)
    assert (str(found.image), str(found.mask), found.text) == (str(_path(image)), str(_path(mask)), text)


@given(image=names, mask=names, text=texts)
def test_names_with_colons_come_back_where_only_one_way_has_files(image, mask, text):
    files = {image, mask}
    pieces = spec(image, mask, text).split(":")
    ways = {
        (":".join(pieces[:i]), ":".join(pieces[i:j]))
        for i in range(1, len(pieces))
        for j in range(i + 1, len(pieces) + 1)
    }
    assume([way for way in ways if set(way) <= files] == [(image, mask)])
    found = parse_example(spec(image, mask, text), is_file=files.__contains__)
    assert (found.image, found.mask) == (_path(image), _path(mask))
    assert (found.text or "") == (text or "")


@given(value=st.text(string.printable, max_size=30))
def test_any_text_is_refused_in_words_where_there_are_no_files(value):
    # Refused for the lack of a second part, or else for a file that is missing: never anything but a UsageError.
    with pytest.raises(UsageError, match=re.escape(repr(value))):
        parse_example(value, is_file=lambda name: False)


def _path(name):
    return Path(name)


def test_windows_drives():
    files = {r"C:\a\cat.png", r"D:\cat mask.png"}
    found = parse_example(r"C:\a\cat.png:D:\cat mask.png:a cat: black", is_file=files.__contains__)
    assert (str(found.image), str(found.mask), found.text) == (r"C:\a\cat.png", r"D:\cat mask.png", "a cat: black")
    with pytest.raises(UsageError, match=r"no such mask file: D:\\other.png "):
        parse_example(r"C:\a\cat.png:D:\other.png:text", is_file=files.__contains__)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("cat.png", "expected IMAGE:MASK"),
        ("", "expected IMAGE:MASK"),
        (":", "expected IMAGE:MASK"),
        ("cat.png:", "expected IMAGE:MASK"),
        ("cat.png:mask.png", "no such mask file: mask.png"),
        ("dog.png:mask.png:dog", "no such image file: dog.png"),
    ],
)
def test_what_is_wrong_is_named(value, words):
    with pytest.raises(UsageError, match=words):
        parse_example(value, is_file={"cat.png"}.__contains__)


def segment_by_colour(image, examples):
    """Each id's pixels are those near its mean colour in the examples."""
    ids = sorted({int(key) for each in examples for key in np.unique(each.mask) if key})
    logits = []
    for key in ids:
        colour = np.concatenate([each.image[each.mask == key] for each in examples]).mean(axis=0)
        logits.append(20 - np.abs(image - colour).sum(axis=-1))
    stack = np.stack(logits).astype(np.float32)
    best = np.arange(len(ids))[:, None, None] == stack.argmax(axis=0)
    coarse = np.tanh(stack[:, ::2, ::2] / 20)
    return Segmentation((stack > 0) & best, stack, np.full(len(ids), 0.75, np.float32), coarse, tuple(ids))


RED, BLUE, GREY = (200, 20, 20), (20, 20, 200), (90, 90, 90)


def scene(path, red, blue, size=(40, 60)):
    """A picture with a red and a blue box, given as (top, left); returns its labels."""
    labels = np.zeros(size, np.uint8)
    for key, (top, left) in ((3, red), (8, blue)):
        labels[top : top + 10, left : left + 10] = key
    pixels = np.select(
        [labels[..., None] == 3, labels[..., None] == 8], [np.array(RED), np.array(BLUE)], np.array(GREY)
    )
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return labels


@pytest.fixture
def folder(tmp_path, monkeypatch, fake_model):
    """Example ex.png with mask ex_mask.png, targets t1.png and t2.png; `segic image segment` runs here."""
    mask = Image.fromarray(scene(tmp_path / "ex.png", (5, 5), (20, 40)))
    mask.putpalette([0, 0, 0] + [90, 91, 92] * 255)
    mask.save(tmp_path / "ex_mask.png")
    fake_model.prepare = list
    fake_model.segment = segment_by_colour
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"w")
    fake_model.files["decoder"] = weights
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("segic_cli.image.load", lambda choice, progress: LoadedModel(fake_model, fake_model.files))
    return tmp_path


def program(*args):
    return CliRunner().invoke(cli, ["image", "segment", *map(str, args)])


def test_mask_overlay_figure_and_summary(folder):
    truth = scene(folder / "t1.png", (25, 10), (3, 30))
    done = program("t1.png", "--example", "ex.png:ex_mask.png:two boxes")
    assert done.exit_code == 0, done.output
    out = folder / "t1_segic"
    mask = Image.open(out / "mask.png")
    assert np.array_equal(np.asarray(mask), truth)
    assert mask.getpalette()[3:6] == [90, 91, 92]
    assert Image.open(out / "overlay.png").size == (60, 40)
    sheet = np.asarray(Image.open(out / "figure.png"))
    # Two rows, three panels of 540 x 360 each, and in the middle one the hottest colour where the object is.
    assert sheet.shape[0] == 2 * (360 + 22 + 6)
    assert sheet.shape[1] == 3 * (540 + 6) + 6
    middle = sheet[22 + (30 * 9), 6 + 546 + (15 * 9)]
    assert middle[0] > 100
    assert middle[0] > middle[2]
    summary = json.loads((out / "summary.json").read_text())
    assert [entity["id"] for entity in summary["entities"]] == [3, 8]
    assert summary["entities"][0] == {"id": 3, "area": 100, "score": 0.75}
    assert summary["examples"][0]["text"] == "two boxes"
    assert summary["model"]["weights"]["decoder"]["file"] == "w.safetensors"


def test_several_targets_and_examples(folder):
    second = scene(folder / "ex2.png", (1, 1), (25, 25))
    Image.fromarray(np.where(second == 8, 8, 0).astype(np.uint8)).save(folder / "ex2_mask.png")
    truths = [scene(folder / "t1.png", (25, 10), (3, 30)), scene(folder / "t2.png", (2, 2), (20, 20))]
    done = program(
        *("t1.png", "t2.png", "--out", "all", "--json"),
        *("--example", "ex.png:ex_mask.png", "--example", "ex2.png:ex2_mask.png"),
    )
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["mask"] for line in lines] == ["all/t1/mask.png", "all/t2/mask.png"]
    for line, truth in zip(lines, truths, strict=True):
        assert np.array_equal(np.asarray(Image.open(line["mask"])), truth)


def test_each_id_has_the_colour_of_its_own_example(folder):
    labels = scene(folder / "t1.png", (25, 10), (3, 30))
    specs = []
    for key, colour in ((3, (255, 0, 0)), (8, (0, 0, 0))):
        mask = Image.fromarray(np.where(scene(folder / "ex.png", (5, 5), (20, 40)) == key, key, 0).astype(np.uint8))
        mask.putpalette((bytes(3 * key) + bytes(colour)).ljust(768, b"\0"))
        mask.save(folder / f"ex_{key}.png")
        specs += ["--example", f"ex.png:ex_{key}.png"]
    done = program("t1.png", *specs)
    assert done.exit_code == 0, done.output
    assert done.stderr.count("id 8 cannot be told from the background or another id") == 1
    mask = Image.open(folder / "t1_segic/mask.png")
    assert np.array_equal(np.asarray(mask), labels)
    table = np.array(mask.getpalette()).reshape(-1, 3)
    assert table[[3, 8]].tolist() == [[255, 0, 0], [64, 0, 0]]
    other = Image.open(folder / "ex_8.png")
    other.putpalette(bytes(24) + bytes([0, 200, 0]))
    other.save(folder / "ex_8.png")
    done = program("t1.png", *specs, "--overwrite")
    assert "cannot be told" not in done.stderr
    table = np.array(Image.open(folder / "t1_segic/mask.png").getpalette()).reshape(-1, 3)
    assert table[[3, 8]].tolist() == [[255, 0, 0], [0, 200, 0]]


def test_a_videos_folder_is_left_alone(folder):
    scene(folder / "t1.png", (25, 10), (3, 30))
    (folder / "t1_segic").mkdir()
    (folder / "t1_segic/summary.json").write_text("of a video")
    asked = ("t1.png", "--example", "ex.png:ex_mask.png")
    assert program(*asked).exit_code == 2
    (folder / "t1_segic/frames.jsonl").touch()
    refused = program(*asked, "--overwrite")
    assert refused.exit_code == 2
    assert "t1_segic holds a video's masks" in refused.stderr
    assert (folder / "t1_segic/summary.json").read_text() == "of a video"


def test_out_of_memory_is_a_sentence(folder, fake_model, monkeypatch):
    def full(*_):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    scene(folder / "t1.png", (25, 10), (3, 30))
    for stage in ("segment", "prepare"):
        monkeypatch.setattr(fake_model, stage, full)
        done = program("t1.png", "--example", "ex.png:ex_mask.png")
        assert done.exit_code == 1
        assert "out of memory" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_figure_of_many_ids_stays_a_picture_that_opens(folder):
    labels = np.arange(30 * 40).reshape(30, 40) // 30 + 1  # 40 ids
    Image.fromarray((labels[..., None] * (6, 0, 0)).astype(np.uint8)).save(folder / "ex.png")
    Image.fromarray(labels.astype(np.uint8)).save(folder / "ex_mask.png")
    done = program("ex.png", "--example", "ex.png:ex_mask.png", "--many-ids", "--out", "many")
    assert done.exit_code == 0, done.output
    assert "figure.png shows the first 20 of the 40 ids" in done.stderr
    assert Image.open(folder / "many/figure.png").size[1] == 20 * (360 + 22 + 6)
    assert len(json.loads((folder / "many/summary.json").read_text())["entities"]) == 40


def test_existing_result_is_kept_unless_asked(folder):
    scene(folder / "t1.png", (25, 10), (3, 30))
    args = ("t1.png", "--example", "ex.png:ex_mask.png")
    assert program(*args).exit_code == 0
    done = program(*args)
    assert done.exit_code == 2
    assert "--overwrite" in done.output
    assert program(*args, "--overwrite", "-q").output == ""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("none.png", "--example", "ex.png:ex_mask.png"), "none.png: no such file"),
        ((".", "--example", "ex.png:ex_mask.png"), "a folder, expected an image"),
        (("ex.png", "--example", "ex.png:none.png"), "no such mask file: none.png"),
        (("ex.png", "--example", "ex.png:small.png"), "small.png is 20x10, but ex.png is 60x40"),
        (("ex.png", "--example", "ex.png:empty.png"), "empty mask"),
        (("ex.png", "--example", "w.safetensors:ex_mask.png"), "w.safetensors"),
        (("ex.png",), "--example"),
    ],
)
def test_bad_requests(folder, args, words):
    Image.fromarray(np.ones((10, 20), np.uint8)).save(folder / "small.png")
    Image.fromarray(np.zeros((40, 60), np.uint8)).save(folder / "empty.png")
    done = program(*args)
    assert done.exit_code in (1, 2)
    assert "Traceback" not in done.output
    assert words in done.output
    assert not list(folder.glob("*_segic"))


@pytest.mark.parametrize("verbosity", [(), ("-vv",)])
def test_a_target_that_cannot_be_read_does_not_stop_the_others(folder, verbosity):
    scene(folder / "t1.png", (25, 10), (3, 30))
    (folder / "broken.png").write_bytes(b"no picture")
    done = program("broken.png", "t1.png", "--example", "ex.png:ex_mask.png", "--json", *verbosity)
    assert done.exit_code == 1
    assert ("Traceback" in done.stderr) == bool(verbosity)
    failed, found = [json.loads(line) for line in done.stdout.splitlines()]
    assert (failed["target"], failed["status"]) == ("broken.png", "failed")
    assert found["target"] == "t1.png"
    assert "1 of 2 targets failed" in done.stderr
    assert (folder / "t1_segic/mask.png").exists()
    done = program("broken.png", "--example", "ex.png:ex_mask.png")
    assert done.exit_code == 1
    assert "broken.png: cannot be read" in done.output


def test_no_input_is_written_over(folder):
    scene(folder / "overlay.png", (25, 10), (3, 30))
    before = (folder / "overlay.png").read_bytes()
    done = program("overlay.png", "--example", "ex.png:ex_mask.png", "--out", ".", "--overwrite")
    assert done.exit_code == 2
    assert "overlay.png lies where the output goes" in done.output
    assert (folder / "overlay.png").read_bytes() == before


def test_void_is_no_object(folder):
    labels = np.asarray(Image.open(folder / "ex_mask.png")).copy()
    labels[0, :] = 255
    Image.fromarray(labels).save(folder / "void.png")
    scene(folder / "t1.png", (25, 10), (3, 30))
    done = program("t1.png", "--example", "ex.png:void.png", "--json")
    assert [entity["id"] for entity in json.loads(done.stdout)["entities"]] == [3, 8]


def test_colour_map_runs_from_blue_to_red():
    colours = colour_map(np.array([[-1.0, 0.0, 1.0]], np.float32))
    assert colours.shape == (1, 3, 3)
    assert colours[0, 0, 2] > 100
    assert colours[0, 0, 0] == 0
    assert colours[0, 2, 0] > 100
    assert colours[0, 2, 2] == 0
    assert colours[0, 1, 1] > 200
    assert np.array_equal(colour_map(np.array([[0.2, 0.4]], np.float32), 0.2, 0.4)[0, ::-1, ::-1], colours[0, ::2])
