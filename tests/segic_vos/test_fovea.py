"""Looking closely only where the objects are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segic.backbones.dinov2 import DinoV2, DinoV2Config
from segic.config import InstructionConfig, MatchingConfig, ModelConfig
from segic.decoder import Decoder
from segic.errors import UsageError
from segic.model import SEGIC
from segic_benchmarks.follow import following
from segic_vos import VideoSession, annotation
from segic_vos.choices import Choices
from segic_vos.fovea import MARGIN, count_tokens, fitting_size, scales, usual_scales
from segic_vos.frames import Annotation, Frame, FrameResult
from segic_vos.memory import Workload, choose_batch
from segic_vos.quality import LARGE, SIZES, SizeChoice, foveated_sizes
from segic_vos.run import ClipJob, ClipStopped, open_clip, run_clip
from segic_vos.session import SEARCH_EVERY

FRAME = (96, 160)
TINY = DinoV2Config("tiny", width=32, depth=2, heads=2)
DENSE = ModelConfig(
    backbone="dinov2-s",  # in name only: memory is estimated by it
    layers=(1, 2),
    size=112,
    canvas="frame",
    matching=MatchingConfig(topk=3, radius=3, ridge=0.02, ridge_share=0.3, width=24, carry=2),
    residual=True,
    detail=8,
    instructions=InstructionConfig(meta="constant"),
)
RELEASED = ModelConfig(backbone="tiny", size=112, instructions=InstructionConfig(meta="none"))


def build(config: ModelConfig) -> SEGIC:
    torch.manual_seed(0)
    backbone = DinoV2(TINY, config.layers)
    torch.nn.init.normal_(backbone.pos_embed, std=0.1)
    return SEGIC(config, backbone, Decoder(config, backbone.width, backbone.width))


@pytest.fixture
def dense_model() -> SEGIC:
    return build(DENSE)


def clip(count: int) -> list[np.ndarray]:
    """A bright square that moves over noise."""
    noise = np.random.default_rng(0)
    ground = noise.integers(0, 120, (*FRAME, 3), np.uint8)
    out = []
    for index in range(count):
        frame = ground.copy()
        frame[20:50, 30 + 4 * index : 60 + 4 * index] = 230
        out.append(frame)
    return out


def first_mask() -> np.ndarray:
    labels = np.zeros(FRAME, np.int32)
    labels[20:50, 30:60] = 5
    return labels


@pytest.mark.parametrize("learnt", [False, True])
def test_tokens_are_seen_more_coarsely_with_every_margin(learnt: bool) -> None:
    weights = torch.zeros(2, 36, 60)
    weights[1, 2, 30] = 0.1
    found = scales(weights, learnt=learnt)
    margin = round(36 * MARGIN)
    assert margin == 3
    assert (found == 1).sum() == (2 + margin + 1) * (2 * margin + 1)
    assert found[0, 30 - margin] == 1
    assert found[0, 30 - margin - 1] == 2
    assert (found <= 2).sum() == (found.numel() if learnt else (2 + 2 * margin + 1) * (4 * margin + 1))
    assert found[0, 30 - 2 * margin - 1] == (2 if learnt else 4)


def test_frames_with_few_tokens_have_a_margin_too() -> None:
    weights = torch.zeros(1, 4, 5)
    weights[0, 1, 1] = 1
    assert (scales(weights) == 1).sum() == 9


def test_the_inside_of_an_object_is_seen_more_coarsely_than_its_border() -> None:
    """Nor has it a border where the frame ends. Where two touch, both have one."""
    weights = torch.zeros(2, 36, 60)
    weights[0, 6:, 10:30] = 1
    weights[1, 6:, 30:50] = 1
    found = scales(weights)
    within = round(36 * MARGIN + 1) // 2
    assert within == 2
    expected = torch.ones(30, 20, dtype=torch.int64)
    expected[within:, within:-within] = 2
    assert torch.equal(found[6:, 10:30], expected)
    assert torch.equal(found[6:, 30:50], expected)
    weights[0, 20, 20] = 0.9
    assert (scales(weights)[20 - within : 21 + within, 20 - within : 21 + within] == 1).all()


def test_the_tokens_of_an_object_that_grows_are_bounded(dense_model: SEGIC) -> None:
    model = dense_model.at_size(672)
    counts = []
    for side in range(10, 97, 10):
        labels = np.zeros(FRAME, np.int32)
        labels[:side, : side * 5 // 3] = 1
        counts.append(count_tokens(model, labels))
    assert max(counts) < 0.6 * np.prod(model.grid(FRAME))
    assert counts[-1] < max(counts)


def test_the_size_is_the_largest_that_the_tokens_allow(dense_model: SEGIC) -> None:
    labels = first_mask()
    counts = {size: count_tokens(dense_model.at_size(size), labels) for size in (112, 168, 224, 336)}
    assert list(counts.values()) == sorted(counts.values())
    assert fitting_size(dense_model, labels, tuple(counts), counts[224]) == 224
    assert fitting_size(dense_model, labels, tuple(counts), counts[336] - 1) == 224
    assert fitting_size(dense_model, labels, tuple(counts), 1) == 112


def test_small_objects_are_seen_larger(dense_model: SEGIC) -> None:
    small, large = np.zeros(FRAME, np.int32), np.zeros(FRAME, np.int32)
    small[40:44, 60:66] = 1
    large[16:80, 24:136] = 1
    sizes = (112, 224, 336, 448, 560)
    tokens = count_tokens(dense_model.at_size(224), large)
    assert fitting_size(dense_model, large, sizes, tokens) == 224
    assert fitting_size(dense_model, small, sizes, tokens) > 224


def test_a_model_of_another_size_shares_everything(dense_model: SEGIC) -> None:
    other = dense_model.at_size(224)
    assert other.config.size == 224
    assert other.backbone is dense_model.backbone
    assert other.decoder is dense_model.decoder
    assert dense_model.at_size(dense_model.config.size) is dense_model


def test_examples_are_seen_whole_and_what_follows_is_not(dense_model: SEGIC, monkeypatch: pytest.MonkeyPatch) -> None:
    model = dense_model.at_size(224)
    asked = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda images, scales=None: asked.append(scales) or encode(images, scales))
    session = VideoSession(model, foveated=True)
    frames = clip(4)
    session.step(frames[0], annotation(first_mask()))
    session.step(frames[1])
    session.step(frames[2], annotation(first_mask()))
    assert asked[0] is None
    assert asked[2] is None
    expected = scales(session._given[0].weights.unflatten(1, model.grid(FRAME)))
    assert torch.equal(asked[1], expected)
    assert set(asked[1].flatten().tolist()) == {1, 2, 4}


def test_what_is_remembered_of_one_object_keeps_no_others(dense_model: SEGIC) -> None:
    session = VideoSession(dense_model.at_size(224), foveated=True)
    labels = first_mask()
    labels[60:80, 30:60], labels[60:80, 90:120] = 6, 7
    for frame, given in zip(clip(3), (annotation(labels), None, None), strict=True):
        session.step(frame, given)
    assert len(session._last_seen) == 3
    for seen in session._last_seen.values():
        assert seen.untyped_storage().nbytes() == seen.numel() * seen.element_size()


def test_where_objects_were_before_given_masks_is_remembered(dense_model: SEGIC) -> None:
    """A frame that is seen whole for its masks tells no less of the one before."""
    model = dense_model.at_size(224)
    session = VideoSession(model, foveated=True)
    masks = first_mask().copy()
    masks[-20:, -20:] = 2
    frames = clip(2)
    session.step(frames[0], annotation(masks))
    before = session._recent[-1]
    assert before.weights is not None
    session.encode(frames[1], whole=True)
    assert set(session._last_seen) == {2, 5}
    assert torch.equal(session._last_seen[2], before.weights[before.entities.index(2)])


def test_frames_whose_background_is_learnt_are_seen_better(dense_model: SEGIC) -> None:
    """Every second one after that with given masks."""
    assert dense_model.config.matching is not None
    config = replace(dense_model.config, matching=replace(dense_model.config.matching, renew=2))
    model = SEGIC(config, dense_model.backbone, dense_model.decoder).at_size(224)
    session = VideoSession(model, foveated=True)
    session.step(clip(1)[0], annotation(first_mask()))
    coarsest = []
    for _ in range(6):
        encoded = session.encode(clip(1)[0], whole=False)
        assert encoded.fovea is not None
        coarsest.append(len(encoded.fovea.tokens[2]) > 0)
        session.skip()
    assert coarsest == [True, False] * 3


def test_with_the_whole_frame_near_the_object_nothing_changes(dense_model: SEGIC) -> None:
    """Every token is within the margin of a border, with stripes of two tokens."""
    labels = np.zeros(FRAME, np.int32)
    labels[:, np.arange(FRAME[1]) // 24 % 2 == 0] = 3
    assert count_tokens(dense_model, labels) == np.prod(dense_model.grid(FRAME))
    plain, foveated = VideoSession(dense_model), VideoSession(dense_model, foveated=True)
    for index, frame in enumerate(clip(3)):
        given = annotation(labels) if index == 0 else None
        one, two = plain.step(frame, given), foveated.step(frame, given)
        if index == 1:
            assert (one.labels == two.labels).mean() > 0.999


def test_a_session_close_to_the_objects(dense_model: SEGIC) -> None:
    labels = first_mask()
    session = VideoSession.close_to(dense_model, labels, tokens=700)
    assert session.foveated
    assert count_tokens(session.model, labels) <= 700
    assert (
        session.model.config.size
        == fitting_size(dense_model, labels, foveated_sizes(700), 700)
        > dense_model.config.size
    )


def test_who_is_hidden_is_looked_for_where_it_was_or_everywhere(dense_model: SEGIC) -> None:
    """Where it was while another is to be seen, every few frames everywhere, and everywhere when nobody is."""
    model = dense_model.at_size(224)
    grid = model.grid(FRAME)
    labels = first_mask()
    labels[70:90, 120:150] = 7
    session = VideoSession(model, foveated=True)
    frames = clip(3)
    session.step(frames[0], annotation(labels))
    only_second = torch.full((2, 4 * grid[0], 4 * grid[1]), -10.0)
    only_second[1, -12:, -30:] = 10
    session.skip()
    for _ in range(2):
        encoded = session.encode(frames[1], whole=False)
        assert encoded.fovea is not None
        fine = torch.zeros(grid, dtype=torch.bool).flatten()
        fine[encoded.fovea.tokens[0]] = True
        assert fine.view(grid)[usual_scales(model, first_mask()) == 1].all()
        session._recent.append(model.remember(encoded, only_second, [5, 7]))
    whole = []
    for _ in range(2 * SEARCH_EVERY):
        session.skip()
        whole.append(session.encode(frames[1], whole=False).fovea is None)
    assert whole == ([False] * (SEARCH_EVERY - 2) + [True, False]) * 2
    session._recent.append(model.remember(encoded, torch.full_like(only_second, -10.0), [5, 7]))
    assert session.encode(frames[2], whole=False).fovea is None


def test_without_any_object_a_session_can_begin(dense_model: SEGIC) -> None:
    session = VideoSession.close_to(dense_model, np.zeros(FRAME, np.int32), tokens=700)
    assert session.model.config.size == LARGE
    assert session.step(clip(1)[0]).ids == ()


@pytest.mark.parametrize(
    ("labels", "tokens", "message"),
    [
        (np.zeros((0, 160), np.int32), 700, r"without a pixel"),
        (first_mask() * 0.5, 700, r"the mask is float64 .*expected integers or bool"),
        (-first_mask(), 700, r"-5"),
        (first_mask(), 0, r"tokens 0: expected a number from 1"),
    ],
)
def test_labels_that_are_none_are_refused(dense_model: SEGIC, labels: np.ndarray, tokens: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        VideoSession.close_to(dense_model, labels, tokens=tokens)


def test_an_annotations_undecided_pixels_are_no_object_to_be_close_to(dense_model: SEGIC) -> None:
    masks = first_mask()
    undecided = masks.copy()
    undecided[::8][masks[::8] == 0] = 255
    sizes = [
        VideoSession.close_to(dense_model, labels, tokens=700).model.config.size
        for labels in (masks, annotation(undecided, 255), annotation(undecided))
    ]
    assert sizes[0] == sizes[1] > sizes[2]


def test_many_objects_are_covered_a_few_at_a_time(dense_model: SEGIC, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.arange(90 * 160, dtype=np.int32).reshape(90, 160) // 400 + 1
    expected = usual_scales(dense_model, labels)
    monkeypatch.setattr("segic_vos.fovea.MASKS_AT_ONCE", 5)
    assert torch.equal(usual_scales(dense_model, labels), expected)


def test_masks_of_another_shape_are_refused(dense_model: SEGIC) -> None:
    with pytest.raises(UsageError, match=r"the labels are of shape \(1, \d+, \d+\); expected \(H, W\)"):
        VideoSession.close_to(dense_model, first_mask()[None])


def test_frames_before_any_mask(dense_model: SEGIC) -> None:
    session = VideoSession(dense_model.at_size(224), foveated=True)
    assert session.step(clip(1)[0]).ids == ()


def test_models_without_dense_matching_refuse() -> None:
    with pytest.raises(UsageError, match="does not match densely"):
        VideoSession(build(RELEASED), foveated=True)


@pytest.fixture
def job(tmp_path: Path) -> ClipJob:
    frames = tmp_path / "frames"
    frames.mkdir()
    for index, frame in enumerate(clip(6)):
        Image.fromarray(frame).save(frames / f"{index:05d}.png")
    Image.fromarray(first_mask().astype(np.uint8)).save(tmp_path / "first.png")
    return ClipJob(frames, masks=str(tmp_path / "first.png"), out=tmp_path / "out", overlay=False)


CHOSEN = SizeChoice(476, "balanced", "the default on a CPU", tokens=500)


def masks_in(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "masks").glob("*.png"))])


def test_a_run_looks_closely_and_says_so(dense_model: SEGIC, job: ClipJob) -> None:
    said: list[Choices] = []
    summary = run_clip(open_clip(job), dense_model, chosen=CHOSEN, on_choices=said.append)
    size = fitting_size(dense_model, first_mask(), foveated_sizes(500), 500)
    assert size != dense_model.config.size
    assert f"balanced, {size} px around the objects" in str(said[0])
    assert summary.model["foveated"]
    assert summary.model["size"] == summary.choices["size"] == size
    session = VideoSession.close_to(dense_model, first_mask(), tokens=500)
    for index, frame in enumerate(clip(6)):
        given = annotation(first_mask()) if index == 0 else None
        assert np.array_equal(session.step(frame, given).labels, masks_in(job.out)[index])


@pytest.mark.parametrize("empty_before", [False, True])
def test_the_size_follows_from_the_first_masks_whichever_frames_they_are(
    dense_model: SEGIC, job: ClipJob, tmp_path: Path, empty_before: bool
) -> None:
    (tmp_path / "given").mkdir()
    small = np.zeros_like(first_mask(), np.uint8)
    small[:9, :9] = 5
    for name, labels in (("00002", first_mask().astype(np.uint8)), ("00004", small)):
        Image.fromarray(labels).save(tmp_path / f"given/{name}.png")
    if empty_before:
        Image.fromarray(np.zeros_like(small)).save(tmp_path / "given/00000.png")
    later = replace(job, masks=str(tmp_path / "given"), out=tmp_path / "later")
    size = run_clip(open_clip(job), dense_model, chosen=CHOSEN).choices["size"]
    assert fitting_size(dense_model, small, foveated_sizes(500), 500) != size != dense_model.config.size
    assert run_clip(open_clip(later), dense_model, chosen=CHOSEN).choices["size"] == size

    def given(frame: Frame) -> Annotation | None:
        return annotation(first_mask()) if frame.index == 2 else None

    frames = [Frame(index, f"{index:05d}", pixels) for index, pixels in enumerate(clip(6))]
    results = [result for _, result in following(dense_model, tokens=500)(frames, given)]
    assert [result.ids for result in results] == [()] * 2 + [(5,)] * 4
    assert np.array_equal(results[3].labels, masks_in(tmp_path / "later")[3])


def test_a_frame_of_another_size_is_refused(dense_model: SEGIC) -> None:
    session = VideoSession.close_to(dense_model, first_mask(), tokens=500)
    session.step(clip(1)[0], annotation(first_mask()))
    height, width = FRAME
    with pytest.raises(UsageError, match=f"the first one was {width}x{height}"):
        session.step(np.zeros((height + 40, width, 3), np.uint8))
    for shape in ((5,), (2, height, width, 3)):
        with pytest.raises(UsageError, match="expected uint8 of shape"):
            session.step(np.zeros(shape, np.uint8))


def test_a_stopped_run_goes_on_nearly_as_if_it_had_not_been(dense_model: SEGIC, job: ClipJob) -> None:
    run_clip(open_clip(replace(job, out=job.out / "whole")), dense_model, chosen=CHOSEN)
    seen: list[str] = []

    def stop(frame: Frame, _result: FrameResult) -> None:
        seen.append(frame.name)
        if len(seen) == 4:
            raise KeyboardInterrupt

    stopped = replace(job, out=job.out / "stopped")
    with pytest.raises(ClipStopped):
        run_clip(open_clip(stopped), dense_model, chosen=CHOSEN, on_result=stop)
    going_on = replace(stopped, existing="resume")
    with pytest.raises(UsageError, match="foveated = True"):
        run_clip(
            open_clip(going_on), dense_model.at_size(fitting_size(dense_model, first_mask(), foveated_sizes(500), 500))
        )
    assert run_clip(open_clip(going_on), dense_model, chosen=CHOSEN).resumed == 4
    one, two = masks_in(job.out / "whole"), masks_in(job.out / "stopped")
    assert (one == two).mean() > 0.99


def test_memory_chooses_a_smaller_size(dense_model: SEGIC, job: ClipJob, monkeypatch: pytest.MonkeyPatch) -> None:
    for where in ("memory", "run"):
        monkeypatch.setattr(f"segic_vos.{where}.used_memory", lambda device: 0.0)
    wanted = fitting_size(dense_model, first_mask(), foveated_sizes(1500), 1500)
    limit = next(
        limit
        for limit in range(150_000_000, 2_000_000_000, 5_000_000)
        if _Fits(dense_model, limit)(SIZES[0]) and not _Fits(dense_model, limit)(wanted)
    )
    small = replace(job, max_memory=limit)
    summary = run_clip(open_clip(small), dense_model, chosen=replace(CHOSEN, tokens=1500))
    assert SIZES[0] <= summary.choices["size"] < wanted
    assert summary.choices["size_by"] == "--max-memory"
    plenty = replace(job, max_memory=10**11, out=job.out / "plenty")
    assert run_clip(open_clip(plenty), dense_model, chosen=CHOSEN).choices["size_by"] == CHOSEN.why


def test_a_size_that_was_found_to_fit_is_not_asked_about_again(
    dense_model: SEGIC, job: ClipJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the process holds grows a little with every look."""
    monkeypatch.setattr("segic_vos.memory.used_memory", lambda _device: 0.0)
    sizes = set()
    smallest = next(limit for limit in range(150_000_000, 10**9, 5_000_000) if _Fits(dense_model, limit)(SIZES[0]))
    for more in range(0, 120_000_000, 15_000_000):
        held = iter(range(0, 10**12, 3_000_000))
        monkeypatch.setattr("segic_vos.run.used_memory", lambda _device, held=held: float(next(held)))
        small = replace(job, out=job.out / str(more), max_memory=smallest + more, end=2)
        sizes.add(run_clip(open_clip(small), dense_model, chosen=replace(CHOSEN, tokens=1500)).choices["size"])
        assert next(held) == 3_000_000  # it was asked about once
    assert len(sizes) > 2
    with pytest.raises(UsageError, match=f"at {SIZES[0]} px. Allow more, or give a smaller --size"):
        run_clip(open_clip(replace(job, out=job.out / "none", max_memory=1)), dense_model, chosen=CHOSEN)


def test_another_quality_does_not_go_on_with_a_run(dense_model: SEGIC, job: ClipJob) -> None:
    run_clip(open_clip(job), dense_model, chosen=CHOSEN)
    for complete in (True, False):
        again = open_clip(replace(job, existing="resume"))
        with pytest.raises(UsageError, match=r"had tokens = 500, this one has 1500 \(--quality\)"):
            run_clip(again, dense_model, chosen=replace(CHOSEN, quality="best", tokens=1500))
        if complete:
            (job.out / "masks" / "00005.png").unlink()


def test_a_resumed_run_has_its_size_whatever_is_free(
    dense_model: SEGIC, job: ClipJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = run_clip(open_clip(job), dense_model, chosen=CHOSEN).choices["size"]
    (job.out / "masks" / "00005.png").unlink()
    monkeypatch.setattr("segic_vos.run._Run._fits", lambda _run, model, *_: model.config.size == SIZES[0])
    resumed = run_clip(open_clip(replace(job, existing="resume")), dense_model, chosen=CHOSEN)
    assert resumed.resumed == 5
    assert resumed.choices["size"] == size > SIZES[0]


def test_what_is_undecided_is_no_object_for_the_size(dense_model: SEGIC, job: ClipJob) -> None:
    labels = first_mask().astype(np.uint8)
    size = run_clip(open_clip(job), dense_model, chosen=CHOSEN).choices["size"]
    labels[labels == 0] = 255
    Image.fromarray(labels).save(job.masks)
    again = run_clip(open_clip(replace(job, existing="overwrite")), dense_model, chosen=CHOSEN)
    assert again.choices["size"] == size


class _Fits:
    def __init__(self, model: SEGIC, limit: int) -> None:
        self._model, self._limit = model, limit

    def __call__(self, size: int) -> bool:
        model = self._model.at_size(size)
        work = Workload(model.config, model.precision, model.canvas(FRAME).padded, FRAME, 1)
        try:
            choose_batch(work, model.device, self._limit)
        except UsageError:
            return False
        return True


def test_a_folder_that_another_run_has_filled_since_it_was_looked_at(dense_model: SEGIC, job: ClipJob) -> None:
    first, second = open_clip(job), open_clip(job)
    run_clip(first, dense_model, chosen=CHOSEN)
    written = (job.out / "summary.json").read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        run_clip(second, dense_model, chosen=CHOSEN)
    assert (job.out / "summary.json").read_bytes() == written


def test_a_batch_has_no_effect_and_a_note_says_so(dense_model: SEGIC, job: ClipJob) -> None:
    notes: list[str] = []
    run_clip(open_clip(replace(job, batch=3)), dense_model, chosen=CHOSEN, note=notes.append)
    assert any("--batch 3 has no effect" in note for note in notes)


def test_benchmarks_look_as_closely(dense_model: SEGIC) -> None:
    frames = [Frame(index, f"{index:05d}", pixels) for index, pixels in enumerate(clip(4))]
    follow = following(dense_model, tokens=500)
    found = [r.labels for _, r in follow(frames, lambda f: annotation(first_mask()) if f.index == 0 else None)]
    session = VideoSession.close_to(dense_model, first_mask(), tokens=500)
    for index, frame in enumerate(frames):
        given = annotation(first_mask()) if index == 0 else None
        assert np.array_equal(session.step(frame.pixels, given).labels, found[index])
    assert [r.ids for _, r in follow(frames, lambda f: annotation(first_mask()) if f.index == 2 else None)][1] == ()
