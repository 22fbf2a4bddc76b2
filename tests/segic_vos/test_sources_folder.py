"""Folders of pictures, single pictures, iterators, and names."""

from __future__ import annotations

import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segic.errors import SegicError, UsageError
from segic_vos.sources import IteratorSource, SourceWarning, natural_key, open_source, read_rgb, trailing_number


def grey(level, height=6, width=8):
    return np.full((height, width, 3), level, np.uint8)


def test_natural_order_names_and_indices(save, tmp_path):
    for number in (10, 2, 1, 3):
        save(f"f/frame{number}.png", grey(number))
    (tmp_path / "f/notes.txt").write_text("not a frame")
    save("f/.hidden.png", grey(0))
    (tmp_path / "f/folder.png").mkdir()
    with pytest.warns(SourceWarning, match="a gap between frame3 and frame10"):
        source = open_source(tmp_path / "f")
    frames = list(source)
    assert [frame.name for frame in frames] == ["frame1", "frame2", "frame3", "frame10"] == list(source.names)
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert [int(frame.pixels[0, 0, 0]) for frame in frames] == [1, 2, 3, 10]
    assert [frame.time for frame in frames] == [None] * 4
    assert (source.info.size, source.info.rate, source.info.expected_frames) == ((6, 8), None, 4)


def test_selection_counts_in_the_folder(save, tmp_path):
    for number in range(7):
        save(f"f/{number:05d}.png", grey(number))
    source = open_source(tmp_path / "f", start=1, end=6, every=2)
    assert [(frame.index, frame.name) for frame in source] == [(1, "00001"), (3, "00003"), (5, "00005")]
    assert source.info.expected_frames == 3
    assert len(source.names) == 7
    with pytest.raises(UsageError, match="start=7, but it has only 7 frames"):
        open_source(tmp_path / "f", start=7)


@pytest.mark.parametrize("numbers", [range(0, 50, 10), (5,), (1, 9), range(3)])
def test_even_numbering_is_no_gap(save, tmp_path, numbers):
    for number in numbers:
        save(f"f/{number:03d}.png", grey(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_source(tmp_path / "f")


def test_frames_of_different_sizes(save, tmp_path):
    save("f/a1.png", grey(1))
    save("f/a2.png", grey(2, 12, 16))
    with pytest.raises(UsageError, match=r"a2\.png is 16x12, but the first frame is 8x6"):
        list(open_source(tmp_path / "f"))
    frames = list(open_source(tmp_path / "f", on_size_change="resize"))
    assert [frame.size for frame in frames] == [(6, 8)] * 2
    assert int(frames[1].pixels.mean()) == 2


def test_two_files_of_one_stem(save, tmp_path):
    save("f/a.jpg", grey(1))
    save("f/a.png", grey(1))
    with pytest.raises(UsageError, match=r"a\.jpg and a\.png would both be frame 'a'"):
        open_source(tmp_path / "f")


def test_a_broken_picture_is_named_after_the_good_ones(save, tmp_path):
    save("f/1.jpg", grey(1))
    broken = save("f/2.jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    broken.write_bytes(broken.read_bytes()[:900])
    reader = iter(open_source(tmp_path / "f"))
    assert next(reader).name == "1"
    with pytest.raises(SegicError, match=r"2\.jpg: cannot be read as a picture"):
        next(reader)


def test_a_folder_without_pictures(tmp_path):
    with pytest.raises(UsageError, match="no picture in this folder"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda p: p),
        (2, lambda p: p[:, ::-1]),
        (3, lambda p: np.rot90(p, 2)),
        (6, lambda p: np.rot90(p, -1)),
        (8, lambda p: np.rot90(p, 1)),
    ],
)
def test_exif_orientation(save, clips, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save("a.png", clips.quadrants(), exif=exif)
    assert np.array_equal(read_rgb(path), turn(clips.quadrants()))


def test_every_kind_of_pixel_becomes_rgb(save):
    level = np.arange(48, dtype=np.uint8).reshape(6, 8)
    expected = np.repeat(level[..., None], 3, axis=2)
    alpha = np.full((6, 8, 1), 9, np.uint8)
    assert np.array_equal(read_rgb(save("grey.png", level)), expected)
    assert np.array_equal(read_rgb(save("la.png", np.concatenate([level[..., None], alpha], 2))), expected)
    assert np.array_equal(read_rgb(save("rgba.png", np.concatenate([expected, alpha], 2))), expected)
    assert np.array_equal(read_rgb(save("deep.png", level.astype(np.uint16) * 257)), expected)
    assert np.array_equal(
        read_rgb(save("p.png", level, palette=bytes(np.repeat(np.arange(256), 3).tolist()))), expected
    )
    assert np.array_equal(read_rgb(save("rgb.webp", expected, lossless=True)), expected)
    with pytest.raises(UsageError, match="floating point"):
        read_rgb(save("float.tif", level.astype(np.float32)))


@pytest.mark.parametrize("name", ["gone.png", "."])
def test_read_rgb_wants_a_file(tmp_path, name):
    with pytest.raises(UsageError, match=r"no such file|a folder"):
        read_rgb(tmp_path / name)


def test_iterator_source():
    source = IteratorSource((grey(level) for level in range(4)), rate=Fraction(30))
    frames = list(source)
    assert [(frame.index, frame.name, frame.time) for frame in frames[1:3]] == [
        (1, "00001", Fraction(1, 30)),
        (2, "00002", Fraction(2, 30)),
    ]
    assert [int(frame.pixels[0, 0, 0]) for frame in frames] == [0, 1, 2, 3]
    assert source.info.size == (6, 8)
    with pytest.raises(UsageError, match="only once"):
        next(iter(source))


def test_an_array_may_be_written_into_again():
    """As decoders do, while earlier frames are still worked on."""
    array = grey(0)

    def decoded():
        for level in range(4):
            array[:] = level
            yield array

    source = IteratorSource(decoded())
    array[:] = 9
    assert [int(frame.pixels[0, 0, 0]) for frame in list(source)] == [0, 1, 2, 3]


def test_a_list_can_be_gone_through_again():
    source = IteratorSource([grey(1), grey(2)])
    assert [len(list(source)), len(list(source))] == [2, 2]


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([], "empty"),
        ([grey(1).astype(np.float32)], "frame 0: expected uint8"),
        ([grey(1), grey(1)[..., :2]], r"frame 1: expected uint8 of shape \(H, W, 3\), got uint8 \(6, 8, 2\)"),
        ([grey(1), "text"], "frame 1: expected a NumPy array, got str"),
        ([grey(1), grey(1, 7, 8)], "frame 00001 is 8x7, but the first frame is 8x6"),
    ],
)
def test_iterators_of_something_else(frames, said):
    with pytest.raises(UsageError, match=said):
        list(IteratorSource(frames))


@given(st.lists(st.integers(0, 10**6), unique=True), st.sampled_from(["", "frame", "a-1_"]))
def test_natural_order_is_the_order_of_numbers(numbers, prefix):
    names = [f"{prefix}{number}.png" for number in numbers]
    assert sorted(names, key=natural_key) == [f"{prefix}{number}.png" for number in sorted(numbers)]


@given(st.lists(st.text(max_size=8)))
def test_natural_order_takes_any_names(names):
    ordered = sorted(names, key=natural_key)
    backwards = names[::-1]
    assert sorted(backwards, key=natural_key) == ordered


@given(st.text(st.characters(categories=["L", "P"]), max_size=5), st.integers(0, 10**9), st.integers(0, 6))
def test_trailing_number(prefix, number, zeros):
    assert trailing_number(f"{prefix}{'0' * zeros}{number}") == number
    assert trailing_number(f"{number}{prefix}x") is None
