"""Where frames lie on the backbone's input, and the way back."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from segic.canvas import Canvas, coverage

sides = st.integers(1, 3000)


@pytest.mark.parametrize(
    ("frame", "picture"),
    [
        ((480, 854), (503, 896)),  # the other side is floored
        ((1080, 1920), (504, 896)),
        ((1920, 1080), (896, 504)),
        ((896, 896), (896, 896)),
        ((1, 1), (896, 896)),
        ((3, 5000), (1, 896)),  # never nothing
    ],
)
def test_square_sizes(frame, picture):
    assert Canvas.square(frame, 896) == Canvas(frame, picture, (896, 896))


@given(sides, sides)
@settings(max_examples=100, deadline=None)
def test_square_is_filled_along_one_side(height, width):
    canvas = Canvas.square((height, width), 896)
    assert max(canvas.picture) in (895, 896)  # 895 where the scale is a hair too small
    assert min(canvas.picture) >= 1


@pytest.mark.parametrize(
    ("frame", "size", "grid"),
    [
        ((1080, 1920), 476, (34, 60)),
        ((480, 854), 476, (34, 60)),
        ((1920, 1080), 476, (60, 34)),
        ((480, 640), 476, (39, 52)),
        ((1, 1), 476, (45, 45)),
    ],
)
def test_own_aspect_grids(frame, size, grid):
    canvas = Canvas.own_aspect(frame, size, 14)
    assert canvas.padded == canvas.picture == (14 * grid[0], 14 * grid[1])
    assert canvas.valid is None


@given(st.integers(16, 3000), st.floats(0.25, 4), st.sampled_from([224, 476, 896]))
@settings(max_examples=200, deadline=None)
def test_own_aspect_costs_the_same_for_every_shape(height, aspect, size):
    width = max(1, round(height * aspect))
    canvas = Canvas.own_aspect((height, width), size, 14)
    tokens = canvas.padded[0] // 14 * (canvas.padded[1] // 14)
    wanted = size**2 * 16 / 9 / 14**2
    assert canvas.padded[0] % 14 == canvas.padded[1] % 14 == 0
    assert abs(tokens - wanted) < 0.5 * sum(canvas.padded) / 14 + 1  # half a token along both sides
    assert abs(canvas.padded[0] * width / height - canvas.padded[1]) < 7 * (1 + width / height) + 1


@pytest.mark.parametrize("frame", [(1, 400), (400, 1), (10, 3000)])
def test_own_aspect_of_panoramas_stays_a_picture(frame):
    canvas = Canvas.own_aspect(frame, 224, 14)
    assert min(canvas.padded) >= 14
    placed = canvas.place(torch.zeros(1, 3, *frame, dtype=torch.uint8))
    assert placed.shape == (1, 3, *canvas.padded)


def test_valid_says_where_padding_begins():
    assert Canvas.square((480, 854), 896).valid == (503, 896)
    assert Canvas.square((64, 64), 896).valid is None


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float32])
def test_place_resizes_and_pads_with_zeros(dtype):
    images = (torch.rand(2, 3, 31, 57) * 255).to(dtype)
    canvas = Canvas.square((31, 57), 112)
    placed = canvas.place(images)
    assert placed.dtype == torch.float32
    assert placed.shape == (2, 3, 112, 112)
    resized = F.interpolate(images.float(), canvas.picture, mode="bilinear", align_corners=False)
    torch.testing.assert_close(placed[..., : canvas.picture[0], :], resized)
    assert not placed[..., canvas.picture[0] :, :].any()


def test_place_leaves_a_fitting_picture_as_it_is():
    images = torch.randint(0, 256, (1, 3, 28, 42), dtype=torch.uint8)
    assert torch.equal(Canvas((28, 42), (28, 42), (28, 42)).place(images), images.float())


@pytest.mark.parametrize("frame", [(31, 57), (57, 31), (33, 33), (1, 1), (7, 300), (480, 853)])
@pytest.mark.parametrize("square", [True, False])
def test_restore_gives_the_frame_size(frame, square):
    canvas = Canvas.square(frame, 112) if square else Canvas.own_aspect(frame, 112, 14)
    grid = canvas.padded[0] // 14 * 4, canvas.padded[1] // 14 * 4
    restored = canvas.restore(torch.full((2, *grid), 0.25), through_padded=square)
    assert restored.shape == (2, *frame)
    torch.testing.assert_close(restored, torch.full((2, *frame), 0.25))


def test_restore_as_released():
    """x3.5 to the canvas, the padding cropped, resized to the frame."""
    canvas = Canvas.square((60, 107), 112)
    logits = torch.randn(2, 32, 32)
    full = F.interpolate(logits[None], (112, 112), mode="bilinear")[..., : canvas.picture[0], : canvas.picture[1]]
    expected = F.interpolate(full, (60, 107), mode="bilinear")[0]
    torch.testing.assert_close(canvas.restore(logits, through_padded=True), expected)


def test_restore_drops_padding_even_if_not_asked():
    canvas = Canvas.square((60, 107), 112)
    logits = torch.randn(2, 32, 32)
    assert torch.equal(canvas.restore(logits, through_padded=False), canvas.restore(logits, through_padded=True))


def test_restore_in_one_step():
    canvas = Canvas.own_aspect((60, 107), 112, 14)
    logits = torch.randn(2, 32, 60, dtype=torch.bfloat16)
    expected = F.interpolate(logits[None].float(), (60, 107), mode="bilinear")[0]
    torch.testing.assert_close(canvas.restore(logits, through_padded=False), expected)


@pytest.mark.parametrize("square", [True, False])
def test_place_and_restore_agree(square):
    """A mask that went to the canvas comes back where it was."""
    frame = (120, 214)
    mask = torch.zeros(1, *frame)
    mask[:, 30:90, 60:150] = 1
    canvas = Canvas.square(frame, 448) if square else Canvas.own_aspect(frame, 448, 14)
    back = canvas.restore(canvas.place(mask[None])[0], through_padded=square) > 0.5
    inside = (back & (mask > 0)).sum() / (back | (mask > 0)).sum()
    assert inside > 0.97


@given(st.integers(1, 60), st.integers(1, 60), st.booleans(), st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_cover_loses_no_pixel(height, width, square, at):
    frame = (height, width)
    canvas = Canvas.square(frame, 56) if square else Canvas.own_aspect(frame, 56, 14)
    grid = canvas.padded[0] // 14, canvas.padded[1] // 14
    mask = torch.zeros(1, *frame)
    mask.view(-1)[at % (height * width)] = 1
    covered = canvas.cover(mask, grid)
    assert covered.shape == (1, *grid)
    assert covered.max() > 0
    assert covered.min() >= 0
    assert covered.max() <= 1


def test_cover_leaves_padding_out():
    canvas = Canvas.square((50, 100), 112)
    covered = canvas.cover(torch.ones(1, 50, 100), (8, 8))[0]
    assert torch.equal(covered, torch.cat([torch.ones(4, 8), torch.zeros(4, 8)]))


def test_coverage_is_the_share_of_each_token():
    mask = torch.zeros(1, 28, 28, dtype=torch.bool)
    mask[0, :14, :7] = True
    assert torch.equal(coverage(mask, (2, 2)), torch.tensor([[[0.5, 0.0], [0.0, 0.0]]]))


def test_coverage_of_frames_smaller_than_the_grid():
    mask = torch.zeros(1, 2, 2)
    mask[0, 0, 0] = 1
    covered = coverage(mask, (6, 6))[0]
    assert torch.equal(covered[:3, :3], torch.ones(3, 3))
    assert covered.sum() == 9
