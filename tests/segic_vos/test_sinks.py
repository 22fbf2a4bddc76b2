"""What is written, read back by other means."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from segic.errors import SegicError, UsageError
from segic_vos.frames import Frame, FrameResult
from segic_vos.masks import read_mask
from segic_vos.palette import complete_palette, davis_palette, distinct_palette
from segic_vos.sinks import MaskWriter, OverlayWriter, ProbabilityWriter, RleWriter, draw_overlay
from segic_vos.sources import open_source, read_rgb


def frame(index, pixels=None, time=None, size=(8, 12)):
    if pixels is None:
        pixels = np.zeros((*size, 3), np.uint8)
    return Frame(index, f"{index:05d}", pixels, time)


def result(labels, ids=None, **more):
    labels = np.asarray(labels, np.int32)
    return FrameResult(labels, tuple(np.unique(labels[labels > 0]).tolist()) if ids is None else ids, **more)


def square(number, size=(8, 12)):
    labels = np.zeros(size, np.int32)
    labels[2:6, 3:8] = number
    return labels


# Palette and mask files


def test_davis_palette():
    colours = np.frombuffer(davis_palette(), np.uint8).reshape(256, 3).tolist()
    assert colours[:6] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128]]
    assert (colours[20], colours[255]) == ([0, 64, 128], [224, 224, 192])
    assert len({tuple(colour) for colour in colours}) == 256


@given(st.one_of(st.none(), st.binary(max_size=900)))
def test_complete_palette(palette):
    assert len(complete_palette(palette)) == 768
    assert complete_palette(palette).startswith((palette or b"")[:768])


def colours(palette):
    return np.frombuffer(palette, np.uint8).reshape(256, 3).tolist()


@pytest.mark.parametrize("palette", [davis_palette(), bytes(range(256)) * 3])
def test_a_palette_that_tells_the_ids_apart_comes_back(palette):
    assert distinct_palette(palette, range(4, 80, 4)) == (palette, ())


def test_colours_that_do_not_show_an_id_are_others():
    house = colours(davis_palette())
    padded = bytes([0, 0, 0, 255, 0, 0]).ljust(768, b"\0")
    mended, renewed = distinct_palette(padded, (255, 1, 3))
    assert renewed == (3, 255)
    assert colours(mended)[:5] == [[0, 0, 0], [255, 0, 0], [0, 0, 0], house[3], [0, 0, 0]]
    assert colours(mended)[255] == house[255]
    assert distinct_palette(bytes(768), (2,))[1] == (2,)
    assert distinct_palette(bytes([0, 0, 0] + [90, 91, 92] * 255), (3, 8))[1] == (8,)  # the first keeps it


def test_in_the_grey_ramp_of_pictures_without_colours_only_greys_far_apart_are_kept():
    ramp = bytes(Image.new("L", (1, 1)).convert("P").getpalette("RGB"))
    mended, renewed = distinct_palette(ramp, range(1, 13))
    assert renewed == tuple(range(1, 13))
    assert colours(mended)[:13] == colours(davis_palette())[:13]
    assert distinct_palette(ramp, (85, 170, 255)) == (ramp, ())


def test_a_white_background_and_black_objects_are_told_apart():
    palette = bytes([255, 255, 255]).ljust(768, b"\0")
    assert distinct_palette(palette, (1,)) == (palette, ())


def test_a_new_colour_is_not_that_of_another_id():
    palette = bytes([0, 0, 0, 0, 0, 0, 128, 0, 0]).ljust(768, b"\0")  # id 2 has the house's first colour
    mended, renewed = distinct_palette(palette, (1, 2))
    assert renewed == (1,)
    assert colours(mended)[1] not in ([0, 0, 0], [128, 0, 0])
    assert colours(mended)[2] == [128, 0, 0]


@given(palette=st.binary(min_size=768, max_size=768), ids=st.sets(st.integers(1, 400), max_size=12))
def test_after_mending_there_is_nothing_to_mend(palette, ids):
    mended, renewed = distinct_palette(palette, ids)
    assert set(renewed) <= ids
    assert distinct_palette(mended, ids) == (mended, ())


@given(labels=arrays(np.int32, (5, 7), elements=st.integers(0, 70) | st.sampled_from([255, 256, 300, 65535])))
def test_masks_are_written_to_the_pixel(tmp_path_factory, labels):
    folder = tmp_path_factory.getbasetemp() / "masks"
    MaskWriter(folder).write(frame(3), result(labels))
    image = Image.open(folder / "00003.png")
    assert image.mode == ("P" if labels.max() <= 255 else "I;16")
    assert np.array_equal(np.asarray(image), labels)


def test_the_users_palette_is_kept(tmp_path):
    palette = bytes(range(256)) * 3
    MaskWriter(tmp_path / "a", palette).write(frame(0), result(square(1)))
    assert bytes(Image.open(tmp_path / "a/00000.png").getpalette("RGB")) == palette
    MaskWriter(tmp_path / "b").write(frame(0), result(square(0)))
    assert bytes(Image.open(tmp_path / "b/00000.png").getpalette("RGB")) == davis_palette()


def test_depth_does_not_change_while_a_large_id_is_out_of_sight(tmp_path):
    MaskWriter(tmp_path).write(frame(0), result(square(0), ids=(300,)))
    assert Image.open(tmp_path / "00000.png").mode == "I;16"


def test_an_id_that_no_png_holds(tmp_path):
    with pytest.raises(UsageError, match="65536 does not fit"):
        MaskWriter(tmp_path).write(frame(0), result(square(65536)))


def test_no_part_file_is_left(tmp_path):
    MaskWriter(tmp_path).write(frame(0), result(square(1)))
    assert [path.name for path in tmp_path.iterdir()] == ["00000.png"]


# A full disk


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def open_sinks(folder):
    return {
        "masks": MaskWriter(folder / "masks"),
        "overlay": OverlayWriter(folder / "overlay.mp4"),
        "rle": RleWriter(folder / "masks.json"),
        "soft": ProbabilityWriter(folder / "soft"),
    }


def write_noise_and_close(sink, count):
    for index in range(count):
        pixels = np.roll(NOISE, index, axis=1)
        labels = (pixels[..., 0] % 8).astype(np.int32)
        probabilities = (np.stack([pixels[..., 0]] * 7) / 255).astype(np.float16)
        sink.write(frame(index, pixels), result(labels, tuple(range(1, 8)), probabilities=probabilities))
    sink.close()


def test_an_overlay_that_shows_no_frame_is_removed(tiny_disk):
    """Less than a fragment was written: what is there has no frame in it."""
    filler = tiny_disk / "filler"
    filler.write_bytes(bytes(56 << 10))
    sink = open_sinks(tiny_disk)["overlay"]
    with pytest.raises(SegicError, match=r"overlay\.mp4: the disk is full"):
        write_noise_and_close(sink, 4)
    sink.close()
    assert list(tiny_disk.glob("*.mp4")) == []


@pytest.mark.parametrize("kind", ["masks", "overlay", "rle", "soft"])
def test_a_full_disk_is_told_and_what_was_written_is_kept(tiny_disk, kind):
    sink = open_sinks(tiny_disk)[kind]
    with pytest.raises(SegicError, match=rf"{tiny_disk}/.*: the disk is full") as caught:
        write_noise_and_close(sink, 200)
    assert not isinstance(caught.value, UsageError)
    sink.close()
    assert not list(tiny_disk.rglob("*.part"))
    for path in tiny_disk.rglob("*.png"):
        assert np.asarray(Image.open(path)).shape == (64, 64)
    if kind == "overlay":
        with av.open(str(tiny_disk / "overlay.mp4")) as container:
            assert next(container.decode(video=0)).width == 64
    else:
        assert any(path.stat().st_size for path in tiny_disk.rglob("*.*"))
    if kind == "rle":
        assert json.loads((tiny_disk / "masks.json").read_text())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_errors_of_the_file_system_name_the_file(tmp_path, monkeypatch, code):
    def refuse(self, data):
        raise OSError(code, os.strerror(code))

    sink = MaskWriter(tmp_path)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    expected = "the disk is full" if code == errno.ENOSPC else "cannot be written: Permission denied"
    with pytest.raises(SegicError, match=rf"00000\.png: {expected}"):
        sink.write(frame(0), result(square(1)))


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "masks").write_text("")
    with pytest.raises(SegicError, match="masks: cannot be written"):
        MaskWriter(tmp_path / "masks")


# Drawing


def test_overlay_tints_objects_and_leaves_the_rest():
    pixels = np.full((8, 12, 3), 100, np.uint8)
    labels = square(1)
    drawn = draw_overlay(pixels, labels, alpha=0.5)
    assert np.array_equal(drawn[labels == 0], pixels[labels == 0])
    assert drawn[3, 5].tolist() == [114, 50, 50]  # half of (100, 100, 100) and half of (128, 0, 0)
    assert drawn[2, 3].tolist() == [128, 0, 0]  # the outline
    assert (pixels == 100).all()
    assert draw_overlay(pixels, labels, alpha=0.5, outline=False)[2, 3].tolist() == [114, 50, 50]


def test_overlay_uses_the_palette_also_above_255():
    palette = bytearray(768)
    palette[3:6] = (9, 99, 199)
    for number in (1, 256, 511):
        drawn = draw_overlay(np.zeros((8, 12, 3), np.uint8), square(number), bytes(palette), alpha=1)
        assert drawn[3, 5].tolist() == [9, 99, 199]


def test_touching_objects_are_outlined():
    labels = np.ones((8, 12), np.int32)
    labels[:, 6:] = 2
    drawn = draw_overlay(np.zeros((8, 12, 3), np.uint8), labels, alpha=0.5)
    assert drawn[4, 5].tolist() == [128, 0, 0]
    assert drawn[4, 6].tolist() == [0, 128, 0]
    assert drawn[4, 3].tolist() == [64, 0, 0]


def test_overlay_of_another_size_is_a_defect():
    with pytest.raises(ValueError, match="same height and width"):
        draw_overlay(np.zeros((8, 12, 3), np.uint8), np.zeros((8, 11), np.int32))


# Overlay video


def write_overlay(path, frames, rate=None, labels=None):
    sink = OverlayWriter(path, rate)
    for one in frames:
        sink.write(one, result(np.zeros(one.size) if labels is None else labels))
    sink.close()
    return list(open_source(path))


def colour_frames(clips, times, size=(48, 64)):
    return [frame(index, clips.quadrants(*size), time) for index, time in enumerate(times)]


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(60)])
def test_overlay_keeps_the_rate_exactly(clips, tmp_path, rate):
    frames = write_overlay(tmp_path / "o.mp4", colour_frames(clips, [i / rate for i in range(12)]), rate)
    assert [one.time for one in frames] == [i / rate for i in range(12)]
    assert open_source(tmp_path / "o.mp4").info.rate == rate


def test_overlay_takes_a_rate_that_ffmpeg_cannot_write(clips, tmp_path):
    """Such as the mean of a long video with a variable rate."""
    times = [Fraction(n, 1000) for n in (0, 33, 67)]
    frames = write_overlay(tmp_path / "o.mp4", colour_frames(clips, times), Fraction(2**40, 2**35 + 1))
    assert [one.time for one in frames] == times


def test_overlay_keeps_variable_times_and_starts_at_zero(clips, tmp_path):
    times = [Fraction(n, 1000) for n in (5000, 5033, 5067, 5500, 5533, 6700)]
    frames = write_overlay(tmp_path / "o.mp4", colour_frames(clips, times), Fraction(3571, 100))
    assert [one.time for one in frames] == [time - 5 for time in times]


def test_overlay_of_a_folder_runs_at_25(clips, tmp_path):
    frames = write_overlay(tmp_path / "o.mp4", colour_frames(clips, [None] * 4))
    assert [one.time for one in frames] == [Fraction(i, 25) for i in range(4)]


def test_overlay_bears_times_that_stand_still(clips, tmp_path):
    frames = write_overlay(tmp_path / "o.mp4", colour_frames(clips, [Fraction(n) for n in (0, 1, 1, 0)]))
    assert len(frames) == 4


@pytest.mark.parametrize("size", [(47, 63), (48, 63), (47, 64)])
def test_overlay_of_odd_size_is_padded(clips, tmp_path, size):
    frames = write_overlay(tmp_path / "o.mp4", colour_frames(clips, [None] * 2, size))
    assert frames[0].size == (48, 64)
    assert np.abs(frames[0].pixels[-1].astype(int) - frames[0].pixels[-2]).max() < 16


def test_overlay_colours(clips, tmp_path):
    pixels = clips.quadrants()
    written = write_overlay(tmp_path / "o.mp4", [frame(i, pixels) for i in range(3)])[1].pixels
    assert np.abs(written.astype(int) - pixels).mean() < 4


def test_overlay_without_x264(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    rate = Fraction(30000, 1001)
    frames = write_overlay(tmp_path / "o.mp4", colour_frames(clips, [i / rate for i in range(5)]), rate)
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert [one.time for one in frames] == [i / rate for i in range(5)]


@pytest.mark.parametrize("x264", [True, False])
@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(4, 3), Fraction(45, 64), Fraction(2**31 - 1, 2**30)])
def test_overlay_keeps_pixels_that_are_not_square(clips, tmp_path, monkeypatch, aspect, x264):
    if not x264:
        monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    sink = OverlayWriter(tmp_path / "o.mp4", pixel_aspect=aspect)
    for one in colour_frames(clips, [None] * 3, (47, 63)):
        sink.write(one, result(np.zeros(one.size)))
    sink.close()
    assert float(open_source(tmp_path / "o.mp4").info.pixel_aspect) == pytest.approx(float(aspect))


def test_a_killed_run_leaves_a_video_that_plays(clips, tmp_path):
    sink = OverlayWriter(tmp_path / "o.mp4", Fraction(10))
    for index in range(200):
        sink.write(frame(index, np.roll(NOISE, index, axis=1)), result(np.zeros((64, 64))))
    killed = tmp_path / "killed.mp4"
    killed.write_bytes((tmp_path / "o.mp4").read_bytes())
    sink.close()
    assert len(list(open_source(tmp_path / "o.mp4"))) == 200
    with av.open(str(killed)) as container:
        assert sum(1 for _ in container.decode(video=0)) > 100


def test_overlay_without_frames_makes_no_file(tmp_path):
    OverlayWriter(tmp_path / "o.mp4").close()
    assert not (tmp_path / "o.mp4").exists()


def test_frames_of_another_size_are_told(clips, tmp_path):
    sink = OverlayWriter(tmp_path / "o.mp4")
    sink.write(frame(0, size=(16, 16)), result(np.zeros((16, 16))))
    with pytest.raises(SegicError, match="frame 00001 is 32x16, the video 16x16"):
        sink.write(frame(1, size=(16, 32)), result(np.zeros((16, 32))))
    sink.close()


# RLE and soft masks


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
@given(labels=arrays(np.int32, (6, 5), elements=st.integers(0, 3)))
def test_rle_decodes_to_the_masks(tmp_path_factory, labels):
    mask_api = pytest.importorskip("pycocotools.mask")
    path = tmp_path_factory.getbasetemp() / "masks.json"
    sink = RleWriter(path)
    sink.write(frame(4), result(labels, (1, 2, 3), scores={1: 0.25}))
    sink.close()
    entries = json.loads(path.read_text())
    assert [entry["id"] for entry in entries] == sorted(set(labels.ravel().tolist()) - {0})
    for entry in entries:
        assert (entry["frame"], entry["name"]) == (4, "00004")
        assert entry["score"] == (0.25 if entry["id"] == 1 else None)
        assert entry["segmentation"]["size"] == [6, 5]
        assert np.array_equal(mask_api.decode(entry["segmentation"]), labels == entry["id"])


def test_rle_file_is_whole_after_every_frame(tmp_path):
    path = tmp_path / "masks.json"
    sink = RleWriter(path)
    assert json.loads(path.read_text()) == []
    for index in range(3):
        sink.write(frame(index), result(square(7)))
        assert [entry["frame"] for entry in json.loads(path.read_text())] == list(range(index + 1))
    sink.close()


def test_rle_file_stays_whole_where_a_frame_does_not_fit(tmp_path, room):
    path = tmp_path / "masks.json"
    sink = RleWriter(path)
    for index in range(2):
        sink.write(frame(index), result(square(7)))
    kept = path.read_bytes()
    more = np.kron(np.arange(1, 9).reshape(2, 4), np.ones((4, 3), np.int32))
    with room(len(kept) + 100), pytest.raises(SegicError, match=r"masks\.json: cannot be written: File too large"):
        sink.write(frame(2), result(more))
    assert path.read_bytes() == kept
    sink.write(frame(3), result(square(7)))  # there is room again
    sink.close()
    assert [entry["frame"] for entry in json.loads(path.read_text())] == [0, 1, 3]


def test_rle_file_stays_whole_where_its_first_frame_does_not_fit(tmp_path, room):
    path = tmp_path / "masks.json"
    sink = RleWriter(path)
    with room(20), pytest.raises(SegicError, match="cannot be written"):
        sink.write(frame(0), result(square(7)))
    assert json.loads(path.read_text()) == []
    sink.write(frame(1), result(square(7)))
    sink.close()
    assert [entry["frame"] for entry in json.loads(path.read_text())] == [1]


def test_rle_without_pycocotools_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    with pytest.raises(UsageError, match=r"pip install 'segic\[coco\]'"):
        RleWriter(tmp_path / "masks.json")


def test_soft_masks(tmp_path):
    probabilities = np.linspace(0, 1, 192, dtype=np.float16).reshape(2, 8, 12)
    ProbabilityWriter(tmp_path).write(frame(2), result(square(5), (5, 300), probabilities=probabilities))
    for at, number in enumerate((5, 300)):
        image = Image.open(tmp_path / str(number) / "00002.png")
        assert image.mode == "L"
        assert np.abs(np.asarray(image) / 255 - probabilities[at].astype(float)).max() <= 0.5 / 255 + 1e-6


def test_soft_masks_of_a_given_mask_are_hard(tmp_path):
    ProbabilityWriter(tmp_path).write(frame(0), result(square(5), given=True))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "5/00000.png")), np.where(square(5), 255, 0))


def test_soft_masks_need_probabilities(tmp_path):
    with pytest.raises(UsageError, match="frame 00000: soft masks were asked for"):
        ProbabilityWriter(tmp_path).write(frame(0), result(square(5)))


def test_paths_may_be_text_and_rates_plain_numbers(tmp_path):
    frame = Frame(0, "00000", np.zeros((8, 12, 3), np.uint8))
    result = FrameResult(np.ones((8, 12), np.int32), (1,), {1: 1.0}, probabilities=np.ones((1, 8, 12), np.float16))
    sinks = [
        MaskWriter(f"{tmp_path}/masks"), ProbabilityWriter(f"{tmp_path}/soft"), OverlayWriter(f"{tmp_path}/o.mp4", 12.5)
    ]  # fmt: skip
    for sink in sinks:
        sink.write(frame, result)
        sink.close()
    assert read_mask(f"{tmp_path}/masks/00000.png").annotation.ids == (1,)
    assert read_rgb(f"{tmp_path}/soft/1/00000.png").shape == (8, 12, 3)
    assert open_source(f"{tmp_path}/o.mp4").info.rate == Fraction(25, 2)
