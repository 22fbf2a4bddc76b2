"""One mask file: every kind of PNG that people have, and those that are no masks."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from segic.errors import UsageError
from segic_vos.frames import Frame
from segic_vos.masks import check_size, read_mask
from segic_vos.masks.reading import is_binary_mask, read_binary_mask
from segic_vos.palette import davis_palette


def blocks(*ids, dtype=np.uint8):
    """A mask of 4x4 blocks side by side, one for each id."""
    return np.kron(np.array([ids], dtype), np.ones((4, 4), dtype))


def test_palette_mask_keeps_ids_and_palette(save):
    palette = bytes(range(256)) * 3
    mask = read_mask(save("m.png", blocks(0, 3, 7), palette=palette)).annotation
    assert mask.ids == (3, 7)
    assert mask.void is None
    assert mask.palette == palette
    assert mask.labels.dtype == np.int32
    assert np.array_equal(mask.labels, blocks(0, 3, 7))


def test_a_short_palette_is_filled_up(save):
    palette = read_mask(save("m.png", blocks(0, 1), palette=bytes([0, 0, 0, 9, 8, 7]))).annotation.palette
    assert palette[:6] == bytes([0, 0, 0, 9, 8, 7])
    assert len(palette) == 768


def test_grey_mask(save):
    mask = read_mask(save("m.png", blocks(0, 2, 1))).annotation
    assert (mask.ids, mask.palette, mask.void) == ((1, 2), None, None)


@pytest.mark.parametrize("ids", [(0, 300), (0, 255, 300), (0, 65535), tuple(range(400))])
def test_16_bit_ids(save, ids):
    mask = read_mask(save("m.png", blocks(*ids, dtype=np.uint16))).annotation
    assert mask.ids == tuple(sorted(ids))[1:]
    assert mask.void is None
    assert np.array_equal(mask.labels, blocks(*ids, dtype=np.int32))


def test_16_bit_255_alone_is_an_ordinary_id(save):
    assert read_mask(save("m.png", blocks(0, 255, 2, dtype=np.uint16))).annotation.void is None


def test_255_alone_is_object_255(save):
    mask = read_mask(save("m.png", blocks(0, 255))).annotation
    assert (mask.ids, mask.void) == ((255,), None)


@pytest.mark.parametrize("palette", [None, davis_palette()])
def test_255_beside_others_is_void(save, palette):
    read = read_mask(save("m.png", blocks(0, 1, 255), palette=palette))
    assert (read.annotation.ids, read.annotation.void) == ((1,), 255)
    assert (read.annotation.labels == 255).sum() == 16
    assert any("void" in note for note in read.notes)


def test_a_mask_without_background(save):
    assert read_mask(save("m.png", blocks(2, 1))).annotation.ids == (1, 2)


def test_one_bit_mask(tmp_path):
    Image.fromarray(blocks(0, 1).astype(bool)).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png").annotation
    assert mask.ids == (1,)
    assert np.array_equal(mask.labels, blocks(0, 1))


def test_two_channels_take_the_first(save):
    channels = np.stack([blocks(0, 255), np.full((4, 8), 7, np.uint8)], axis=2)
    assert read_mask(save("m.png", channels)).annotation.ids == (255,)


def test_grey_saved_as_rgb_is_grey(save):
    mask = read_mask(save("m.png", np.repeat(blocks(0, 5)[..., None], 3, 2))).annotation
    assert (mask.ids, mask.palette) == ((5,), None)


def test_empty_mask_is_said(save):
    read = read_mask(save("m.png", blocks(0, 0)))
    assert read.annotation.ids == ()
    assert any("empty" in note for note in read.notes)


def test_colours_become_ids_in_order_of_appearance(save):
    colours = np.array([[0, 0, 0], [0, 0, 255], [255, 0, 0]], np.uint8)
    read = read_mask(save("m.png", colours[blocks(2, 0, 1, 2)]))
    assert np.array_equal(read.annotation.labels, blocks(1, 0, 2, 1))
    assert read.annotation.ids == (1, 2)
    assert read.annotation.palette[:9] == bytes([0, 0, 0, 255, 0, 0, 0, 0, 255])
    assert any("#ff0000 is 1, #0000ff is 2" in note for note in read.notes)


def test_colours_keep_their_ids_in_masks_that_belong_together(save):
    colours = {}
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)

    def ids(name, *stripes):
        picture = np.repeat(np.array([stripes], np.uint8), 4, axis=0)
        return read_mask(save(name, picture), colours=colours).annotation

    assert ids("a.png", red, blue).labels[0].tolist() == [1, 2]
    later = ids("b.png", blue, green)
    assert later.labels[0].tolist() == [2, 3]
    assert later.palette[:12] == bytes([0, 0, 0, *red, *blue, *green])
    assert read_mask(save("c.png", np.full((4, 4, 3), blue, np.uint8))).annotation.ids == (1,)  # by itself


def test_a_palette_by_whose_colours_another_value_is_background_is_refused(save):
    palette = [200, 30, 30, 0, 0, 0, *[9] * 762]
    with pytest.raises(UsageError, match=r"0, the background by its number, is #c81e1e, and 1 is black"):
        read_mask(save("m.png", blocks(0, 1), palette=palette))
    assert read_mask(save("n.png", blocks(0, 2), palette=palette)).annotation.ids == (2,)
    assert read_mask(save("o.png", blocks(1, 1), palette=palette)).annotation.ids == (1,)


def test_a_mask_of_which_little_but_undecided_would_be_left_is_refused(save):
    values = np.zeros((40, 40), np.uint8)
    values[5:30, 5:30] = 255
    values[5, 5:30] = 254
    path = save("m.png", values)
    with pytest.raises(
        UsageError, match=r"255 beside other ids means undecided, which would be 600 pixels .*--many-ids"
    ):
        read_mask(path)
    assert read_mask(path, allow_many=True).annotation.void == 255
    values[5:12, 5:30] = 254
    assert read_mask(save("n.png", values)).annotation.ids == (254,)


def test_transparent_pixels_are_background(save):
    rgba = np.zeros((4, 8, 4), np.uint8)
    rgba[:, :4] = (255, 0, 0, 255)
    rgba[:, 4:] = (0, 255, 0, 0)
    assert np.array_equal(read_mask(save("m.png", rgba)).annotation.labels, blocks(1, 0))


@pytest.mark.parametrize("clear", [5, bytes([255, 255, 255, 255, 255, 0]), bytes([255, 9, 9, 0, 0, 0])])
def test_palette_entries_may_be_transparent(save, clear):
    path = save("m.png", blocks(1, 5, 2, 5), palette=[value % 256 for value in range(768)], transparency=clear)
    read = read_mask(path)
    assert np.array_equal(read.annotation.labels, blocks(1, 0, 2, 0))
    assert read.annotation.ids == (1, 2)
    assert read_mask(save("n.png", blocks(1, 5, 2, 5), palette=list(range(256)) * 3)).annotation.ids == (1, 2, 5)


@pytest.mark.parametrize(("ids", "depth"), [((1, 200), 8), ((1, 2), 2), ((1, 0), 1), ((1, 1000), 16)])
def test_a_grey_may_be_transparent(tmp_path, ids, depth):
    shown, clear = ids
    row = int("".join(f"{value:0{depth}b}" for value in [0] * 4 + [shown] * 2 + [clear] * 2), 2).to_bytes(depth, "big")
    read = read_mask(png(tmp_path / "m.png", depth, 0, [row] * 4, transparent=clear))
    assert read.annotation.labels.tolist() == [[0] * 4 + [shown] * 2 + [0] * 2] * 4
    assert read.annotation.ids == (shown,)


def test_a_shape_that_only_the_alpha_of_grey_holds(save):
    channels = np.stack([np.full((4, 8), 255, np.uint8), blocks(0, 255)], axis=2)
    assert np.array_equal(read_mask(save("m.png", channels)).annotation.labels, blocks(0, 255))


@pytest.mark.parametrize("colour", [(255, 0, 0), (255, 255, 255), (255,)], ids=["red", "white", "grey"])
@pytest.mark.parametrize("most", [255, 80])
def test_a_soft_rim_is_half_the_objects(save, colour, most):
    """However opaque the brush was."""
    alpha = np.linspace(0, most, 8).round().astype(np.uint8) * np.ones((4, 1), np.uint8)
    read = read_mask(save("m.png", np.dstack([*(np.full((4, 8), value, np.uint8) for value in colour), alpha])))
    assert ((read.annotation.labels > 0) == blocks(0, 1)).all()
    assert len(read.annotation.ids) == 1
    assert read.notes[-1] == "12 pixels less than half as opaque as the rest are background"


@pytest.mark.parametrize("colour", [(255, 0, 0), (255,)], ids=["red", "grey"])
def test_a_faint_object_on_an_opaque_black_ground(save, colour):
    """The ground's opacity says nothing of the object's."""
    there = blocks(0, 1)[..., None] > 0
    alpha = np.where(there, 100, 255)
    picture = np.concatenate([np.where(there, value, 0) for value in colour] + [alpha], 2).astype(np.uint8)
    assert ((read_mask(save("m.png", picture)).annotation.labels > 0) == blocks(0, 1)).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_black_shape_on_a_clear_ground(save, channels):
    shape = np.dstack([np.zeros((4, 8, channels), np.uint8), blocks(0, 255)])
    read = read_mask(save("m.png", shape))
    assert np.array_equal(read.annotation.labels, blocks(0, 255))
    assert read.notes == ("all black: what is opaque is the object",)
    for alpha in (0, 255):
        plain = np.dstack([np.zeros((4, 8, channels), np.uint8), np.full((4, 8), alpha, np.uint8)])
        assert not read_mask(save("n.png", plain)).annotation.ids


def test_a_cut_out_is_told_that_its_transparency_may_be_the_mask(save):
    photo = np.random.default_rng(0).integers(1, 256, (32, 64, 4)).astype(np.uint8)
    photo[..., 3] = np.kron(blocks(0, 255), np.ones((8, 8), np.uint8))
    with pytest.raises(UsageError, match="If the transparency is the mask, export that alone, as a grey picture"):
        read_mask(save("m.png", photo))
    with pytest.raises(UsageError, match=r"without smoothing, as PNG$"):
        read_mask(save("n.png", photo[..., :3]))


def png(path, depth, colour_type, rows, transparent=None):
    """A PNG of rows of bytes, as no writer at hand makes them. transparent: the grey that is."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 8, 4, depth, colour_type, 0, 0, 0)),
        *([] if transparent is None else [(b"tRNS", struct.pack(">H", transparent))]),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
        (b"IEND", b""),
    )
    parts = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_values_of_few_bits_are_ids(tmp_path, depth):
    largest = 2**depth - 1
    packed = int("".join(f"{value:0{depth}b}" for value in [0] * 4 + [largest] * 2 + [1] * 2), 2).to_bytes(depth, "big")
    mask = read_mask(png(tmp_path / "m.png", depth, 0, [packed] * 4)).annotation
    assert np.array_equal(mask.labels, np.array([[0] * 4 + [largest] * 2 + [1] * 2] * 4))
    assert mask.void is None


@pytest.mark.parametrize(("colour_type", "channels"), [(4, 2), (2, 3), (6, 4)])
def test_16_bits_with_more_than_grey_are_refused(tmp_path, colour_type, channels):
    """Pillow has 8 of them only."""
    rows = [struct.pack(">H", 300) * 8 * channels] * 4
    with pytest.raises(UsageError, match=r"m\.png: a picture of 16 bits a channel .* expected a grey PNG"):
        read_mask(png(tmp_path / "m.png", 16, colour_type, rows))


@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_mask_is_turned_as_its_exif_data_say(tmp_path, mode):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter clockwise
    image = Image.fromarray(blocks(1, 2, 3, 0))
    if mode == "P":
        image.putpalette(davis_palette())
    image.save(tmp_path / "m.png", exif=exif)
    mask = read_mask(tmp_path / "m.png").annotation
    assert np.array_equal(mask.labels, np.rot90(blocks(1, 2, 3, 0), -1))
    assert mask.palette == (davis_palette() if mode == "P" else None)


def test_hundreds_of_colours_are_refused_with_their_number(save):
    picture = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    found = len(np.unique(picture.reshape(-1, 3), axis=0))
    with pytest.raises(UsageError, match=rf"m\.png: a picture with {found} colours.*index mask.*JPEG"):
        read_mask(save("m.png", picture))


def smooth_disc():
    disc = cv2.circle(np.zeros((64, 64), np.uint8), (32, 32), 20, 255, -1, cv2.LINE_AA)
    return cv2.GaussianBlur(disc, (3, 3), 0)


@pytest.mark.parametrize("name", ["m.png", "m.jpg"])
def test_smoothed_edges_are_refused_unless_meant(save, name):
    path = save(name, smooth_disc())
    with pytest.raises(UsageError, match=r"does not look like an index mask: it holds \d+ .*anti-aliased.*JPEG"):
        read_mask(path)
    assert len(read_mask(path, allow_many=True).annotation.ids) > 4


def test_a_few_in_between_values_are_refused(save):
    """Only five of them, as on a resized mask."""
    mask = blocks(0, 0, 200, 200, 0)
    mask[:, 7], mask[:, 16] = 40, 160
    mask[0, 9:13] = (60, 90, 120, 110)
    with pytest.raises(UsageError, match="nowhere wider than a pixel"):
        read_mask(save("m.png", mask))


def test_more_than_64_ids_in_8_bits_are_refused_unless_meant(save):
    path = save("m.png", blocks(*range(80)))
    with pytest.raises(UsageError, match="79 different values"):
        read_mask(path)
    assert len(read_mask(path, allow_many=True).annotation.ids) == 79
    assert len(read_mask(save("n.png", blocks(*range(60)))).annotation.ids) == 59


def test_three_tiny_objects_are_believed(save):
    mask = np.zeros((8, 8), np.uint8)
    mask[1, 1], mask[3, 3], mask[5, 5] = 1, 2, 3
    assert read_mask(save("m.png", mask)).annotation.ids == (1, 2, 3)


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_no_picture(tmp_path, content):
    path = tmp_path / "m.png"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"m\.png: cannot be read as a mask"):
        read_mask(path)


@pytest.mark.parametrize("value", [-1, 70000])
def test_ids_that_no_png_holds(tmp_path, value):
    Image.fromarray(blocks(0, value, dtype=np.int32)).save(tmp_path / "m.tif")
    with pytest.raises(UsageError, match=rf"m\.tif: holds the id {value};"):
        read_mask(tmp_path / "m.tif")
    with pytest.raises(UsageError, match=rf"m\.tif: holds the id {value};"):
        read_binary_mask(tmp_path / "m.tif")
    assert not is_binary_mask(tmp_path / "m.tif")


def test_check_size_names_both_sizes(save):
    annotation = read_mask(save("m.png", blocks(0, 1))).annotation
    check_size(annotation, Frame(0, "00000", np.zeros((4, 8, 3), np.uint8)))
    with pytest.raises(UsageError, match=r"m.png, given for frame 00007, is 8x4, but the frame is 9x4"):
        check_size(annotation, Frame(7, "00007", np.zeros((4, 9, 3), np.uint8)), "m.png")


@given(arrays(st.sampled_from([np.uint8, np.uint16]), (5, 6)), st.booleans())
def test_any_index_png_is_read_to_the_pixel(tmp_path_factory, values, with_palette):
    path = tmp_path_factory.getbasetemp() / "any.png"
    image = Image.fromarray(values)
    if with_palette and values.dtype == np.uint8:
        image.putpalette(davis_palette())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())
    mask = read_mask(path, allow_many=True).annotation
    assert np.array_equal(mask.labels, values)
    present = set(np.unique(values).tolist()) - {0}
    if values.dtype == np.uint8 and 255 in present and len(present) > 1:
        assert mask.void == 255
        present -= {255}
    assert mask.ids == tuple(sorted(present))
