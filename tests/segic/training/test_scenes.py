"""Synthetic training scenes, made of tiny pictures whose colours say what every pixel is."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segic.errors import SegicError, UsageError
from segic.training.cameras import PAST_BORDER, View, alphas_of, crop_matrix, draw_crop, keep_inside, see_labelled
from segic.training.composites import Composition, Pose, draw_composite, paste
from segic.training.cutouts import Cutout, read_stamps
from segic.training.lighting import Light, relight
from segic.training.motion import pose, streak, translation
from segic.training.photograph_scenes import draw_classes_scene, draw_views_scene
from segic.training.photographs import Instance, PictureCache, coverage, read_backgrounds, read_photographs
from segic.training.pools import Pools, load_pools
from segic.training.scenes import LEAST_SHARE, SceneMix, make_scene, number_visible

SIZE = 160
BLUE, GREEN, RED, YELLOW = (0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 0)
PLAIN = Composition(lookalike=0.0, background_objects=0.0, wallpaper=0.0, other_background=0.0, object_blur=0.0)


def write_data(
    folder: Path, ids: tuple[int, ...], things: tuple[tuple[int, int, int, int, int], ...]
) -> tuple[Path, Path]:
    """Pictures of 120x100 pixels: rectangles (class, x0, y0, x1, y1) on blue, or on green where the id ends in 0."""
    folder.mkdir(exist_ok=True)
    images, annotations = [], []
    for number in ids:
        picture = np.empty((100, 120, 3), np.uint8)
        picture[:] = GREEN if number % 10 == 0 else BLUE
        for category, x0, y0, x1, y1 in things:
            picture[y0:y1, x0:x1] = (RED, YELLOW)[category]
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": category,
                    "iscrowd": 0,
                    "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
                }
            )
        cv2.imwrite(str(folder / f"{number}.png"), picture[..., ::-1])
        images.append({"id": number, "file_name": f"{number}.png", "width": 120, "height": 100})
    file = folder / "instances.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder, file


def disc(colour: tuple[int, int, int], side: int = 64) -> Cutout:
    alpha = np.zeros((side, side), np.uint8)
    cv2.circle(alpha, (side // 2, side // 2), side // 2 - 3, 255, -1, cv2.LINE_AA)
    rgb = np.empty((side, side, 3), np.uint8)
    rgb[:] = colour
    return Cutout(rgb, alpha)


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Pools:
    folder = tmp_path_factory.mktemp("photographs")
    things = ((0, 35, 35, 55, 60), (1, 62, 40, 85, 62))
    return replace(load_pools(*write_data(folder, tuple(range(1, 14)), things)), stamps=(disc(RED), disc(YELLOW, 90)))


def agreement(seen: np.ndarray, labelled: np.ndarray) -> float:
    return float((seen & labelled).sum() / max(1, (seen | labelled).sum()))


def test_the_same_state_gives_the_same_scene_whatever_the_cache_holds(pools: Pools) -> None:
    fresh = replace(pools, cache=PictureCache(limit=1))
    for seed in range(8):
        first = make_scene(np.random.default_rng(seed), pools, SIZE)
        again = make_scene(np.random.default_rng(seed), fresh, SIZE)
        assert (first.kind, first.count, first.has_recent) == (again.kind, again.count, again.has_recent)
        np.testing.assert_array_equal(first.frames, again.frames)
        np.testing.assert_array_equal(first.labels, again.labels)


def test_every_scene_keeps_its_promises(pools: Pools) -> None:
    kinds = set()
    for seed in range(60):
        scene = make_scene(np.random.default_rng(seed), pools, SIZE)
        kinds.add(scene.kind)
        assert scene.frames.shape == (3, SIZE, SIZE, 3)
        assert scene.frames.dtype == np.uint8
        assert scene.labels.shape == (3, SIZE, SIZE)
        assert scene.labels.dtype == np.uint8
        assert 1 <= scene.count <= 6
        assert scene.labels.max() <= scene.count
        areas = np.bincount(scene.labels[0].ravel(), minlength=scene.count + 1)[1:]
        assert (areas >= LEAST_SHARE * SIZE * SIZE).all()
        assert (scene.labels[2] > 0).any()
        assert scene.has_recent == (scene.kind != "classes")
    assert kinds == {"views", "composite", "classes"}


def test_an_object_keeps_its_number_in_all_frames(pools: Pools) -> None:
    checked = 0
    for seed in range(25):
        draft = draw_views_scene(np.random.default_rng(seed), pools, SIZE)
        for number in np.unique(draft.labels[draft.labels > 0]):
            colours = [draft.frames[f][draft.labels[f] == number] for f in range(3)]
            greens = [float(np.median(pixels[:, 1])) for pixels in colours if len(pixels) > 20]
            checked += len(greens) == 3
            assert max(greens) - min(greens) < 10, "red in one frame, yellow in another"
    assert checked > 15


@pytest.mark.parametrize("kind", ["views", "classes"])
def test_photographed_objects_are_exactly_where_the_labels_say(pools: Pools, kind: str) -> None:
    for seed in range(15):
        rng = np.random.default_rng(seed)
        draft = (draw_views_scene if kind == "views" else draw_classes_scene)(rng, pools, SIZE)
        for frame, labels in zip(draft.frames, draft.labels, strict=True):
            for number in np.unique(labels[labels > 0]):
                mine = labels == number
                if mine.sum() < 200:
                    continue
                red = np.median(frame[mine][:, 1]) < 128
                blue_leaves = frame[..., 2] < 128
                seen = blue_leaves & ((frame[..., 1] < 128) if red else (frame[..., 1] >= 128))
                assert agreement(seen, mine) > 0.9, (seed, number)


def test_pasted_cutouts_are_exactly_where_the_labels_say(pools: Pools) -> None:
    plain = pools.photographs[0].path.parent / "plain.png"
    cv2.imwrite(str(plain), np.full((100, 120, 3), BLUE[::-1], np.uint8))
    only = replace(pools, instances=(), photographs=tuple(replace(p, path=plain) for p in pools.photographs))
    for seed in range(20):
        draft = draw_composite(np.random.default_rng(seed), only, SIZE, PLAIN)
        for frame, labels in zip(draft.frames, draft.labels, strict=True):
            if (labels > 0).sum() > 200:
                seen = frame[..., 2] < 128
                assert agreement(seen, labels > 0) > 0.95, seed
                # What differs lies on the rim, where colour and background mix, as it does where the border cuts it.
                inside = (labels > 0).astype(np.uint8)
                inner = cv2.erode(inside, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
                outer = cv2.dilate(inside, np.ones((3, 3), np.uint8)) > 0
                assert seen[inner].all(), seed
                assert not seen[~outer].any(), seed


def test_what_is_mirrored_past_the_border_has_its_label() -> None:
    """A view of twice the photograph, whose object touches the left border and lies near the top."""
    picture, alpha = np.full((100, 120, 3), BLUE, np.uint8), np.zeros((100, 120), np.uint8)
    picture[10:40, :30], alpha[10:40, :30] = RED, 255
    view = View(crop_matrix((60, 50), (240, 200), SIZE), np.zeros((5, 5, 2), np.float32))
    frame, labels = see_labelled(picture, [alpha], view, SIZE)
    np.testing.assert_array_equal(labels == 1, frame[..., 0] > 127)
    assert (labels == 1).sum() == pytest.approx(4 * 30 * 30 * SIZE * SIZE / (240 * 200), rel=0.1)  # four times itself


def test_targets_look_past_the_border_by_little(pools: Pools) -> None:
    """And a view that fits is moved back to do so, while one that is larger is centred."""
    for seed in range(50):
        base = draw_crop(np.random.default_rng(seed), pools.photographs[0], seed % 2, SIZE)
        corners = base @ np.array([[0, SIZE - 1, 0], [0, SIZE - 1, SIZE - 1], [1, 1, 1]], np.float64)
        for axis, side in enumerate((120, 100)):
            assert corners[axis].min() >= -PAST_BORDER * side - 1e-6
            assert corners[axis].max() <= (1 + PAST_BORDER) * side + 1e-6
    large = keep_inside(crop_matrix((0, 0), (240, 200), SIZE), 120, 100, SIZE)
    np.testing.assert_allclose(large @ [(SIZE - 1) / 2, (SIZE - 1) / 2, 1], [60, 50, 1])


@pytest.mark.parametrize("blur", [(0.0, 0.0), (14.0, -6.0)])
def test_a_pasted_object_lies_at_the_place_of_its_pose(blur: tuple[float, float]) -> None:
    frame, labels = np.full((SIZE, SIZE, 3), 40, np.uint8), np.zeros((SIZE, SIZE), np.uint8)
    cutout = disc(RED, 61)
    matrix = translation(90.0, 50.0) @ pose(0.8, 0.4, True) @ translation(-30.0, -30.0)
    paste(frame, labels, cutout, Pose(matrix, np.zeros((5, 5, 2), np.float32), Light(), blur), 3)
    rows, columns = np.nonzero(labels == 3)
    assert set(np.unique(labels)) == {0, 3}
    assert abs(columns.mean() - 90) < 0.5
    assert abs(rows.mean() - 50) < 0.5
    assert labels.astype(bool).sum() == pytest.approx(np.pi * (27 * 0.8) ** 2, rel=0.08)
    assert (frame[~cv2.dilate(labels, np.ones((31, 31))).astype(bool)] == 40).all()


def test_an_object_outside_the_frame_leaves_it_alone() -> None:
    frame, labels = np.full((50, 50, 3), 9, np.uint8), np.zeros((50, 50), np.uint8)
    outside = Pose(translation(400, 400), np.zeros((5, 5, 2), np.float32), Light(), (0.0, 0.0))
    paste(frame, labels, disc(RED), outside, 1)
    assert (frame == 9).all()
    assert not labels.any()


def test_validation_pictures_are_never_used_for_training(tmp_path: Path) -> None:
    things = ((0, 8, 8, 80, 80), (0, 84, 28, 114, 70))
    data = write_data(tmp_path / "photographs", (*range(1, 8), 10, 20, 30, 40), things)
    training, held_out = load_pools(*data), load_pools(*data, validation=True)
    assert [p.id for p in training.photographs] == [1, 2, 3, 4, 5, 6, 7]
    assert [p.id for p in held_out.photographs] == [10, 20, 30, 40]
    assert training.instances
    assert training.shared.keys() == {0}
    # Held-out pictures are green where the others are blue, and no light turns blue or red into green.
    clean = SceneMix(noise=0.0, compression=0.0)
    for seed in range(40):
        frames = make_scene(np.random.default_rng(seed), training, SIZE, clean).frames.astype(int)
        assert not (frames[..., 1] > frames[..., 0] + frames[..., 2] + 40).any(), seed
        frames = make_scene(np.random.default_rng(seed), held_out, SIZE, clean).frames.astype(int)
        assert not (frames[..., 2] > frames[..., 0] + frames[..., 1] + 40).any(), seed


def test_a_lookalike_may_be_there_without_a_label(pools: Pools) -> None:
    always = replace(PLAIN, lookalike=1.0, lookalike_labelled=0.0)
    plain = replace(pools, instances=())
    unlabelled = 0
    for seed in range(10):
        draft = draw_composite(np.random.default_rng(seed), plain, SIZE, always)
        assert draft.labels.max() <= 5
        unlabelled += int(((draft.frames[..., 2] < 60) & (draft.labels == 0)).sum())
    assert unlabelled > 1000


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, (3, 12, 12), elements=st.integers(0, 7)))
def test_numbers_are_compact_and_keep_their_objects(labels: np.ndarray) -> None:
    numbered, count = number_visible(labels)
    assert set(np.unique(numbered[0])) - {0} == set(range(1, count + 1))
    for number in range(1, count + 1):
        original = np.unique(labels[numbered == number])
        assert len(original) == 1
        np.testing.assert_array_equal(numbered == number, labels == original[0])


def test_a_speck_in_the_example_is_no_object() -> None:
    labels = np.zeros((3, 100, 100), np.uint8)
    labels[:, 0, :14], labels[:, 50, :15] = 1, 2
    numbered, count = number_visible(labels)
    assert count == 1
    assert not numbered[:, 0].any()
    assert (numbered[:, 50, :15] == 1).all()


def test_coverage_counts_from_the_corner_of_a_pixel() -> None:
    square = np.array([[10, 5], [20, 5], [20, 9.5], [10, 9.5]], np.float32)
    alpha = coverage((Instance(1, (10, 5, 20, 9.5), (square,), 45.0),), 40, 30)
    assert (alpha[5:9, 10:20] == 255).all()
    assert 100 < alpha[9, 15] < 200
    alpha[5:10, 10:20] = 0
    assert alpha.max() < 80


def test_where_instances_overlap_the_smaller_one_is_seen(pools: Pools) -> None:
    corners = [((10, 10), (60, 60)), ((30, 30), (45, 45))]
    instances = tuple(
        Instance(0, (*low, *high), (np.array([low, (high[0], low[1]), high, (low[0], high[1])], np.float32),), area)
        for (low, high), area in zip(corners, (2500.0, 225.0), strict=True)
    )
    large, small = alphas_of(replace(pools.photographs[0], instances=instances), (0, 1))
    assert large[40, 40] == 0
    assert small[40, 40] == 255
    assert large[20, 20] == 255


def test_no_light_changes_nothing_and_gain_brightens() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    np.testing.assert_array_equal(relight(picture, Light()), picture)
    assert relight(picture, Light(gain=0.3)).mean() > picture.mean() + 10


@given(st.floats(-40, 40), st.floats(-40, 40))
def test_a_streak_is_centred_and_keeps_brightness(x: float, y: float) -> None:
    kernel = streak(x, y)
    side = kernel.shape[0]
    assert kernel.shape == (side, side)
    assert side % 2 == 1
    assert kernel.sum() == pytest.approx(1, abs=1e-4)
    rows, columns = np.nonzero(kernel)
    assert rows.mean() == pytest.approx(side // 2, abs=1e-6)
    assert columns.mean() == pytest.approx(side // 2, abs=1e-6)


def test_only_photographs_with_alpha_become_stamps(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photograph = rng.integers(0, 256, (80, 80, 4), np.uint8)
    photograph[..., 3] = 0
    photograph[15:65, 10:70, 3] = 255
    drawing = photograph.copy()
    drawing[..., :3] = 7
    opaque = photograph[..., :3]
    (tmp_path / "cartoon").mkdir()
    files = {"a": photograph, "a_mirror": photograph, "cartoon/b": photograph, "c": drawing, "d": opaque}
    for name, pixels in files.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), pixels)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (stamp,) = read_stamps(tmp_path)
    assert stamp.rgb.shape == (50, 60, 3)
    assert (stamp.alpha == 255).all()


def test_a_wallpaper_in_several_sizes_is_read_once(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "500x400.png"), pixels)
    cv2.imwrite(str(tmp_path / "250x210.png"), pixels[:210, :250])
    cv2.imwrite(str(tmp_path / "flat.png"), np.full((400, 400, 3), 200, np.uint8))
    ((name, _),) = read_backgrounds(tmp_path)
    assert name == "500x400.png"


def test_missing_and_broken_data_are_named(tmp_path: Path) -> None:
    images, file = write_data(tmp_path / "photographs", (1, 2), ((0, 30, 30, 70, 70),))
    with pytest.raises(UsageError, match="absent"):
        read_photographs(tmp_path / "absent", file)
    for call in (read_stamps, read_backgrounds):
        with pytest.raises(UsageError, match="absent"):
            call(tmp_path / "absent")
    with pytest.raises(UsageError, match="validation"):
        load_pools(images, file, validation=True)
    pools = load_pools(images, file)
    cv2.imwrite(str(images / "1.png"), np.zeros((50, 50, 3), np.uint8))
    (images / "2.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"50x50.*120x100"):
        pools.picture(0)
    with pytest.raises(UsageError, match="does not decode"):
        pools.picture(1)
    (images / "2.png").unlink()
    with pytest.raises(UsageError, match="cannot be read"):
        pools.picture(1)
    odd = '{"images": [{}], "annotations": [{"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}]}'
    for broken in ("{", "[]", '{"images": []}', odd):
        file.write_text(broken)
        with pytest.raises(UsageError, match="COCO"):
            read_photographs(images, file)


def test_pools_without_a_visible_object_end_with_an_error(tmp_path: Path) -> None:
    pools = load_pools(*write_data(tmp_path / "photographs", (1, 2), ((0, 50, 50, 51, 51),)))
    with pytest.raises(SegicError, match="no scene"):
        make_scene(np.random.default_rng(0), pools, SIZE, SceneMix(views=1, composite=0, classes=0))


def test_threads_share_a_cache_of_pictures(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path in paths:
        cv2.imwrite(str(path), np.zeros((20, 20, 3), np.uint8))
    cache = PictureCache(limit=2 * 1200)
    with ThreadPoolExecutor(4) as pool:
        for picture in pool.map(cache.photograph, paths * 200):
            assert picture.shape == (20, 20, 3)
    assert cache._bytes == sum(picture.nbytes for picture in cache._pictures.values()) <= 2 * 1200


def test_slow_scenes_hardly_move_between_the_recent_frame_and_the_target(pools: Pools) -> None:
    """The same random state with and without: only the motion from B to C is smaller."""

    def change(slow: float, kind: str) -> float:
        mix = SceneMix(float(kind == "views"), float(kind == "composite"), 0.0, blur=0.0, noise=0.0, slow=slow)
        moved = []
        for seed in range(12):
            scene = make_scene(np.random.default_rng(seed), pools, SIZE, mix)
            moved.append((scene.labels[1] != scene.labels[2]).mean() / max((scene.labels[2] > 0).mean(), 0.01))
        return float(np.mean(moved))

    for kind in ("views", "composite"):
        assert change(1.0, kind) < 0.6 * change(0.0, kind)


def test_look_alikes_beside_each_other(pools: Pools) -> None:
    """They touch more often than look-alikes anywhere, and there are more of them."""
    crowded = replace(PLAIN, lookalike=1.0, lookalike_labelled=1.0, clustered=0.0)
    counts = {}
    for beside in (0.0, 1.0):
        composition = replace(crowded, beside=beside)
        labels = [draw_composite(np.random.default_rng(seed), pools, SIZE, composition).labels[2] for seed in range(30)]
        border = [(a[:, 1:] != a[:, :-1]) & (a[:, 1:] > 0) & (a[:, :-1] > 0) for a in labels]
        counts[beside] = (np.mean([b.any() for b in border]), np.mean([a.max() for a in labels]))
    assert counts[1.0][0] > counts[0.0][0] + 0.15
    assert counts[1.0][1] > counts[0.0][1]
