"""J and F against numbers worked out by hand, and against the definitions written down without any shortcut."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segic.errors import UsageError
from segic_benchmarks.metrics import (
    boundary_measure,
    boundary_pixels,
    boundary_radius,
    region_similarity,
    score_sequence,
    statistics,
    summarise,
)


def square(top: int, left: int, side: int, shape: tuple[int, int] = (40, 40), value: int = 1) -> NDArray[np.int32]:
    labels = np.zeros(shape, np.int32)
    labels[top : top + side, left : left + side] = value
    return labels


def in_sequence(*frames: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """The frames with an empty first and last one around them, which are not scored."""
    return [np.zeros_like(frames[0]), *frames, np.zeros_like(frames[0])]


def score_one(truth: NDArray[np.int32], prediction: NDArray[np.int32], id_: int = 1) -> tuple[float, float]:
    scores = score_sequence(in_sequence(truth), in_sequence(prediction), [id_])
    return scores.region[0, 0], scores.boundary[0, 0]


def test_radius_is_0_008_of_the_diagonal_rounded_up() -> None:
    assert boundary_radius(480, 854) == 8  # 0.008 x 979.7 = 7.84
    assert boundary_radius(75, 100) == 1  # 0.008 x 125 = 1 exactly
    assert boundary_radius(76, 100) == 2
    assert boundary_radius(1080, 1920) == 18


def test_outline_of_a_square() -> None:
    edge = boundary_pixels(square(1, 1, 2, (5, 5)) == 1)
    expected = np.array(
        [
            [1, 1, 1, 0, 0],  # the pixel above left sees the square's corner in the south-east
            [1, 0, 1, 0, 0],
            [1, 1, 1, 0, 0],
            [0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0],
        ],
        bool,
    )
    np.testing.assert_array_equal(edge, expected)


def test_outline_at_the_last_row_and_column() -> None:
    mask = np.zeros((3, 4), bool)
    mask[2, 3] = True
    edge = boundary_pixels(mask)
    # The last pixel is never outline; its west neighbour is by the row's rule, its north one by the column's.
    np.testing.assert_array_equal(edge, [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 0]])


def test_a_mask_that_fills_the_image_has_no_outline() -> None:
    assert not boundary_pixels(np.ones((6, 7), bool)).any()


def test_equal_masks() -> None:
    assert score_one(square(10, 10, 8), square(10, 10, 8)) == (1.0, 1.0)


def test_region_of_a_shifted_square() -> None:
    j, f = score_one(square(10, 10, 8), square(10, 12, 8))
    assert j == pytest.approx(48 / 80)
    # 40x40 has a tolerance of 1. Outline of an 8-square: a ring of 9x9 without its middle, 32 pixels. Moved by 2, every
    # pixel of the top and bottom side but the outermost one is matched (8 of 9 each); of the upright sides only the two
    # pixels next to the other square's top and bottom side.
    assert f == pytest.approx(18 / 32)


def test_boundary_tolerance_reaches_exactly_its_radius() -> None:
    truth, prediction = square(10, 10, 8), square(10, 11, 8)
    assert score_one(truth, prediction) == (pytest.approx(56 / 72), 1.0)
    assert boundary_measure(truth == 1, prediction == 1, radius=0) < 1


def test_empty_prediction_and_empty_truth() -> None:
    nothing = np.zeros((40, 40), np.int32)
    assert score_one(square(5, 5, 9), nothing) == (0.0, 0.0)
    assert score_one(nothing, square(5, 5, 9)) == (0.0, 0.0)
    assert score_one(nothing, nothing) == (1.0, 1.0)


def test_filled_image_against_filled_image_and_against_a_square() -> None:
    full = np.ones((40, 40), np.int32)
    assert score_one(full, full) == (1.0, 1.0)
    j, f = score_one(full, square(10, 10, 20))
    assert j == 400 / 1600
    assert f == 0.0  # a mask without outline against one with


def test_object_of_one_pixel() -> None:
    assert score_one(square(20, 20, 1), square(20, 20, 1)) == (1.0, 1.0)
    # Outline of a pixel: itself and its north, west and north-west neighbours. Moved east by 2: two are within 1.
    assert score_one(square(20, 20, 1), square(20, 22, 1)) == (0.0, 0.5)
    assert score_one(square(20, 20, 1), square(20, 30, 1)) == (0.0, 0.0)


def test_one_pixel_in_the_last_corner() -> None:
    assert score_one(square(39, 39, 1), square(39, 39, 1)) == (1.0, 1.0)


def test_object_that_appears_late() -> None:
    nothing, there = np.zeros((40, 40), np.int32), square(10, 10, 8)
    scores = score_sequence(in_sequence(nothing, nothing, there), in_sequence(nothing, there, there), [1])
    np.testing.assert_array_equal(scores.region, [[1.0, 0.0, 1.0]])  # both empty is right; too early is wrong
    np.testing.assert_array_equal(scores.boundary, [[1.0, 0.0, 1.0]])


def test_first_and_last_frame_are_left_out() -> None:
    good, bad = square(10, 10, 8), square(30, 30, 4)
    scores = score_sequence([good] * 5, [bad, good, good, good, bad], [1])
    np.testing.assert_array_equal(scores.region, np.ones((1, 3)))
    np.testing.assert_array_equal(scores.boundary, np.ones((1, 3)))


def test_void_counts_on_neither_side() -> None:
    truth = square(10, 10, 8)
    truth[10:18, 18:20] = 255
    prediction = truth.copy()
    prediction[prediction == 255] = 1  # wrong only where the truth is undecided
    assert score_one(truth, prediction) == (1.0, 1.0)


def test_masks_of_0_and_255() -> None:
    truth, prediction = square(10, 10, 8), square(10, 12, 8)
    assert score_one(truth * 255, prediction * 255, id_=255) == score_one(truth, prediction)


def test_objects_are_scored_apart() -> None:
    truth = square(2, 2, 6) + square(20, 20, 6, value=7)
    prediction = square(2, 2, 6) + square(20, 23, 6, value=7)
    scores = score_sequence(in_sequence(truth), in_sequence(prediction), [1, 7])
    np.testing.assert_allclose(scores.region[:, 0], [1.0, 18 / 54])
    by_id = scores.objects()
    assert by_id[7].region.mean == pytest.approx(1 / 3)
    assert by_id[1].mean == 1.0


def test_frames_may_come_from_generators() -> None:
    frames = in_sequence(square(3, 3, 5), square(4, 4, 5))
    scores = score_sequence((f for f in frames), (f for f in frames), [1])
    np.testing.assert_array_equal(scores.region, np.ones((1, 2)))


@pytest.mark.parametrize(
    ("truth", "prediction", "ids", "message"),
    [
        ([(8, 8)] * 4, [(8, 8)] * 3, [1], "predictions end after 3 frames"),
        ([(8, 8)] * 3, [(8, 8)] * 4, [1], "truth end after 3 frames"),
        ([(8, 8)] * 3, [(8, 8), (8, 9), (8, 8)], [1], "frame 1: the prediction is 9x8 pixels and the truth 8x8"),
        ([(8, 8, 1)] * 3, [(8, 8, 1)] * 3, [1], r"frame 0: the truth is of shape \(8, 8, 1\); expected \(H, W\)"),
        ([(8, 8)] * 2, [(8, 8)] * 2, [1], "at least 3"),
        ([(8, 8)] * 3, [(8, 8)] * 3, [], "no object"),
    ],
)
def test_bad_sequences(
    truth: list[tuple[int, ...]], prediction: list[tuple[int, ...]], ids: list[int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        score_sequence([np.zeros(s, int) for s in truth], [np.zeros(s, int) for s in prediction], ids)


def test_statistics_of_eight_frames() -> None:
    scores = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    result = statistics(scores)
    assert result.mean == pytest.approx(0.65)
    assert result.recall == 5 / 8  # 0.5 itself is not above 0.5
    # Limits: round(1, 2.75, 4.5, 6.25, 8) - 1 = 0, 2, 4 (4.5 + 1e-10 rounds up), 5, 7; quarters share their limits.
    assert result.decay == pytest.approx(0.9 - 0.4)


def test_statistics_of_one_frame_and_of_nan() -> None:
    assert statistics(np.array([0.7])).decay == 0.0
    result = statistics(np.array([np.nan, 1.0, 0.0, 0.0]))
    assert result.mean == pytest.approx(1 / 3)
    assert result.recall == 1 / 4
    assert math.isnan(statistics(np.full(4, np.nan)).mean)


def test_statistics_beyond_256_frames_do_not_wrap() -> None:
    scores = np.concatenate([np.ones(200), np.zeros(200)])
    assert statistics(scores).decay == 1.0


def test_statistics_refuses_a_matrix() -> None:
    with pytest.raises(ValueError, match="shape"):
        statistics(np.ones((2, 2)))


def test_summary_is_the_mean_over_objects_not_over_sequences() -> None:
    here, gone = square(4, 4, 5), np.zeros((40, 40), np.int32)
    two = score_sequence(in_sequence(here + 2 * square(20, 20, 5)), in_sequence(here + 2 * square(20, 20, 5)), [1, 2])
    one = score_sequence(in_sequence(here), in_sequence(gone), [1])
    summary = summarise({"two": two, "one": one})
    assert summary.region.mean == pytest.approx(2 / 3)
    assert summary.mean == pytest.approx(2 / 3)


# --- the definitions, pixel by pixel ------------------------------------------------------------------------------


def outline_by_definition(mask: NDArray[np.bool_]) -> set[tuple[int, int]]:
    height, width = mask.shape
    found = set()
    for y in range(height):
        for x in range(width):
            last_row, last_column = y == height - 1, x == width - 1
            if last_row and last_column:
                continue
            if last_row:
                neighbours = [(y, x + 1)]
            elif last_column:
                neighbours = [(y + 1, x)]
            else:
                neighbours = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            if any(mask[n] != mask[y, x] for n in neighbours):
                found.add((y, x))
    return found


def f_by_definition(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> float:
    radius = math.ceil(0.008 * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2))
    wanted, got = outline_by_definition(truth), outline_by_definition(prediction)

    def near(point: tuple[int, int], others: set[tuple[int, int]]) -> bool:
        return any((point[0] - y) ** 2 + (point[1] - x) ** 2 <= radius**2 for y, x in others)

    if not got and wanted:
        precision, recall = 1.0, 0.0
    elif got and not wanted:
        precision, recall = 0.0, 1.0
    elif not got and not wanted:
        precision, recall = 1.0, 1.0
    else:
        precision = sum(near(p, wanted) for p in got) / len(got)
        recall = sum(near(p, got) for p in wanted) / len(wanted)
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def j_by_definition(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> float:
    pairs = list(zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True))
    union = sum(a or b for a, b in pairs)
    return sum(a and b for a, b in pairs) / union if union else 1.0


@st.composite
def label_pairs(draw: st.DrawFn) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Two label maps of one size with rectangles of two objects and void, often touching the edges."""
    # The long ones have tolerances of 2 and 3 pixels.
    shape = draw(st.sampled_from([(1, 1), (1, 9), (7, 1), (9, 12), (16, 11), (6, 130), (4, 260)]))

    def labels() -> NDArray[np.int32]:
        result = np.zeros(shape, np.int32)
        for _ in range(draw(st.integers(0, 4))):
            y0, y1 = sorted(draw(st.tuples(*[st.integers(0, shape[0])] * 2)))
            x0, x1 = sorted(draw(st.tuples(*[st.integers(0, shape[1])] * 2)))
            # small boxes keep the pixel-by-pixel reference quick on the long shapes
            result[y0 : min(y1, y0 + 14), x0 : min(x1, x0 + 14)] = draw(st.sampled_from([0, 1, 2, 255]))
        return result

    truth, prediction = labels(), labels()
    prediction[prediction == 255] = 1
    return truth, prediction


@settings(max_examples=100, deadline=None)
@given(label_pairs())
def test_scores_equal_the_definitions(pair: tuple[NDArray[np.int32], NDArray[np.int32]]) -> None:
    truth, prediction = pair
    scores = score_sequence(in_sequence(truth), in_sequence(prediction), [1, 2])
    keep = truth != 255
    for row, id_ in enumerate((1, 2)):
        wanted, got = (truth == id_) & keep, (prediction == id_) & keep
        assert scores.region[row, 0] == j_by_definition(wanted, got)
        assert scores.boundary[row, 0] == f_by_definition(wanted, got)
        assert region_similarity(wanted, got) == scores.region[row, 0]
        assert boundary_measure(wanted, got, boundary_radius(*truth.shape)) == scores.boundary[row, 0]
