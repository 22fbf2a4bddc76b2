"""One video, frame by frame, with small models of random weights: what is kept, what is given back, what is refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from segic.backbones.dinov2 import DinoV2, DinoV2Config
from segic.config import InstructionConfig, MatchingConfig, ModelConfig
from segic.decoder import Decoder
from segic.errors import SegicError, UsageError
from segic.model import SEGIC, Context, owners
from segic.renewal import certain
from segic.thinning import thinned
from segic_vos.frames import Annotation
from segic_vos.session import MAX_GIVEN, THEIRS, VideoSession

SIZE = (60, 107)
TINY = DinoV2Config("tiny", width=32, depth=2, heads=2)
DENSE = ModelConfig(
    backbone="tiny",
    layers=(1, 2),
    size=84,
    canvas="frame",
    matching=MatchingConfig(topk=3, radius=3, ridge=0.02, ridge_share=0.3, width=24, carry=2),
    residual=True,
    detail=8,
    recent=3,
    instructions=InstructionConfig(meta="constant"),
)
TEXTLESS = InstructionConfig(meta="none")
OPTIONS = {
    "dense": DENSE,
    "dense, one recent frame, bare": replace(DENSE, recent=1, residual=False, detail=0, layers=()),
    "dense, padded": replace(DENSE, canvas="square"),
    "released": ModelConfig(backbone="tiny", size=84, instructions=TEXTLESS),
    "released, own aspect, no negatives": ModelConfig(
        backbone="tiny", size=84, canvas="frame", instructions=replace(TEXTLESS, negatives=False)
    ),
}


def build(config: ModelConfig) -> SEGIC:
    """Random weights; scores come to about 0.5, so that they are not all cut off at 0 or 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = DinoV2(TINY, config.layers)
        torch.nn.init.normal_(backbone.pos_embed, std=0.1)
        decoder = Decoder(config, backbone.width, backbone.width)
    head = decoder.mask_decoder.iou_prediction_head.layers[2]
    head.weight.data.mul_(0.3)
    head.bias.data.fill_(0.5)
    return SEGIC(config, backbone, decoder)


@pytest.fixture(scope="module", params=OPTIONS)
def model(request) -> SEGIC:
    return build(OPTIONS[request.param])


@pytest.fixture(scope="module")
def dense() -> SEGIC:
    return build(DENSE)


def clip(count, size=SIZE):
    """Frames (H, W, 3) uint8: a texture with two brighter blocks that move apart."""
    texture = np.random.default_rng(0).integers(0, 120, (*size, 3))
    frames = []
    for number in range(count):
        frame = texture.copy()
        frame[10:30, 5 + 2 * (number % 20) : 30 + 2 * (number % 20)] += np.array([130, 0, 0])
        frame[35:55, 70 - (number % 20) : 100 - (number % 20)] += np.array([0, 0, 130])
        frames.append(frame.astype(np.uint8))
    return frames


def two_blocks(first=1, second=2) -> Annotation:
    """The masks of `clip`'s first frame."""
    labels = np.zeros(SIZE, np.int32)
    labels[10:30, 5:30], labels[35:55, 70:100] = first, second
    return annotate(labels)


def annotate(labels, void=None) -> Annotation:
    labels = np.asarray(labels, np.int32)
    return Annotation(labels, tuple(int(i) for i in np.unique(labels) if i not in (0, void)), void)


def kept(session: VideoSession) -> tuple[int, int]:
    """Bytes of the tensors that the session keeps, and bytes of memory that they hold on to."""
    contexts: Iterable[Context] = {*session.state.given, *session.state.recent}
    fields = ("visual", "matching", "group", "weights", "left_out", "representatives")
    tensors = [t for c in contexts for name in fields if (t := getattr(c, name)) is not None]
    models = [m for c in contexts for m in (c.target_model, c.renewed) if m is not None]
    tensors += [t for model in models for t in (model.weight, model.offset)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(t.numel() * t.element_size() for t in tensors), sum(storages.values())


# Given masks


def test_given_mask_is_the_output_to_the_pixel(model):
    rng = np.random.default_rng(1)
    labels = rng.choice([0, 7, 255, 300], SIZE, p=[0.4, 0.3, 0.1, 0.2])
    session = VideoSession(model)
    result = session.step(clip(1)[0], annotate(labels, void=255))
    np.testing.assert_array_equal(result.labels, labels)
    assert result.labels.dtype == np.int32
    assert result.given
    assert result.ids == session.ids == (7, 300)
    assert result.scores == {7: 1.0, 300: 1.0}
    assert result.probabilities is None


def test_later_frames_have_the_users_ids(model):
    session = VideoSession(model)
    frames = clip(4)
    session.step(frames[0], two_blocks(7, 300))
    for frame in frames[1:]:
        result = session.step(frame)
        assert result.labels.shape == SIZE
        assert result.labels.dtype == np.int32
        assert set(np.unique(result.labels)) <= {0, 7, 300}
        assert result.ids == (7, 300)
        assert list(result.scores) == [7, 300]
        assert all(0 <= score <= 1 for score in result.scores.values())
        assert not result.given


def test_follows_by_matching():
    """With a decoder that adds nothing to the propagated masks, the blocks are followed by their looks."""
    model = build(replace(DENSE, size=168, detail=0))
    for parameter in model.decoder.mask_decoder.output_hypernetworks_mlps[0].layers[2].parameters():
        parameter.zero_()
    session = VideoSession(model)
    frames = clip(8)
    session.step(frames[0], two_blocks())
    for number, frame in enumerate(frames[1:], start=1):
        labels = session.step(frame).labels
        for mask, column in ((labels == 1, 5 + 2 * number), (labels == 2, 70 - number)):
            assert mask.any()
            assert abs(np.nonzero(mask)[1].mean() - column - 12.5) < 8


def test_frames_before_any_mask(model):
    session = VideoSession(model, probabilities=True)
    frames = clip(4)
    for frame in frames[:2]:
        result = session.step(frame)
        assert not result.labels.any()
        assert result.labels.shape == SIZE
        assert result.ids == ()
        assert not result.scores
        assert not result.given
    assert session.state.recent == ()
    assert session.step(frames[2], two_blocks()).ids == (1, 2)
    fresh = VideoSession(model)
    fresh.step(frames[2], two_blocks())
    np.testing.assert_array_equal(session.step(frames[3]).labels, fresh.step(frames[3]).labels)


def test_annotation_without_objects(model):
    session = VideoSession(model, probabilities=True)
    result = session.step(clip(1)[0], annotate(np.zeros(SIZE)))
    assert result.ids == ()
    assert not result.labels.any()
    assert result.probabilities.shape == (0, *SIZE)


def test_new_object_in_mid_video(model):
    """It is drawn over the prediction of the others, which go on."""
    session, apart = VideoSession(model), VideoSession(model)
    frames = clip(5)
    labels = np.zeros(SIZE, np.int32)
    labels[10:30, 5:30] = 9
    for s in (session, apart):
        s.step(frames[0], annotate(labels))
        s.step(frames[1])
    new = np.zeros(SIZE, np.int32)
    new[35:55, 66:96] = 4
    result, predicted = session.step(frames[2], annotate(new)), apart.step(frames[2])
    assert result.ids == (4, 9)
    assert result.scores == {4: 1.0, 9: predicted.scores[9]}
    np.testing.assert_array_equal(result.labels, np.where(new, new, predicted.labels))
    assert [context.entities for context in session.state.given] == [(9,), (4,)]
    assert set(np.unique(session.step(frames[3]).labels)) <= {0, 4, 9}


def test_correction(model):
    """A later mask of a followed object is that frame's output, and changes what comes after."""
    session, apart = VideoSession(model), VideoSession(model)
    frames = clip(5)
    for s in (session, apart):
        s.step(frames[0], two_blocks())
        s.step(frames[1])
    moved = np.zeros(SIZE, np.int32)
    moved[2:20, 60:90] = 1
    corrected = session.step(frames[2], annotate(moved))
    apart.step(frames[2])
    np.testing.assert_array_equal(corrected.labels == 1, moved == 1)
    assert corrected.scores[1] == 1.0
    assert corrected.ids == (1, 2)
    assert len(session.state.given) == 2
    later, without = session.step(frames[3]), apart.step(frames[3])
    assert later.scores != without.scores


def test_every_object_corrected(model):
    session = VideoSession(model)
    frames = clip(3)
    session.step(frames[0], two_blocks())
    session.step(frames[1])
    result = session.step(frames[2], two_blocks())
    np.testing.assert_array_equal(result.labels, two_blocks().labels)
    assert result.scores == {1: 1.0, 2: 1.0}


def test_correction_leaves_void_undecided(model):
    session = VideoSession(model)
    frames = clip(2)
    session.step(frames[0], two_blocks())
    labels = np.zeros(SIZE, np.int32)
    labels[:20, :20], labels[20:30, :20] = 2, 255
    result = session.step(frames[1], annotate(labels, void=255))
    assert result.ids == (1, 2)
    np.testing.assert_array_equal(result.labels[labels > 0], labels[labels > 0])


def test_what_is_undecided_is_nobodys_even_beside_an_object_of_that_number(model):
    """For the frames to come it is as background is."""
    frames, first = clip(2), np.zeros(SIZE, np.int32)
    first[:20, :20] = 255
    sessions = [VideoSession(model, probabilities=True) for _ in range(2)]
    decided, undecided = np.zeros(SIZE, np.int32), np.zeros(SIZE, np.int32)
    decided[40:, :20] = 1
    undecided[40:, :20], undecided[:, 60:] = 1, 255
    results = []
    for session, labels in zip(sessions, (decided, undecided), strict=True):
        session.step(frames[0], annotate(first))
        results.append(session.step(frames[1], annotate(labels, void=255)))
        assert results[-1].ids == (1, 255)
    np.testing.assert_array_equal(results[1].labels[undecided > 0], undecided[undecided > 0])
    np.testing.assert_array_equal(results[1].probabilities, results[0].probabilities)
    one, two = (session.state.recent[-1].visual for session in sessions)
    assert torch.equal(one, two)


@pytest.mark.parametrize("where", ["context", "thinned"])
def test_a_frame_with_given_masks_that_runs_out_of_memory_can_be_tried_again(dense, monkeypatch, where):
    frames, session, apart = clip(5), VideoSession(dense), VideoSession(dense)
    labels = np.zeros(SIZE, np.int32)
    labels[35:55, 66:96] = 4
    for s in (session, apart):
        s.step(frames[0], two_blocks())
        s.step(frames[1])
    before = session.state

    def full(*_):
        raise torch.cuda.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(*((dense, "context", full) if where == "context" else ("segic_vos.session.thinned", full)))
        with pytest.raises(torch.cuda.OutOfMemoryError):
            session.step(frames[2], annotate(labels))
    assert session.state == before
    for frame, given in ((frames[2], annotate(labels)), (frames[3], None), (frames[4], None)):
        found, expected = session.step(frame, given), apart.step(frame, given)
        np.testing.assert_array_equal(found.labels, expected.labels)
        assert found.scores == expected.scores
    assert len(session.state.given) == len(apart.state.given) == 2


# What an object's absence does


def test_object_that_is_lost_from_sight(model):
    """Nothing is found for some frames: the run goes on, and the object keeps its id and its first example."""
    session = VideoSession(model)
    frames = clip(6)
    session.step(frames[0], two_blocks())
    upsample = model.upsample
    remember = model.remember
    hidden = {
        "upsample": lambda logits, canvas: upsample(logits - 1e4, canvas),
        "remember": lambda image, logits, ids: remember(image, logits - 1e4, ids),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, method in hidden.items():
            patch.setattr(model, name, method)
        for frame in frames[1:5]:
            result = session.step(frame)
            assert not result.labels.any()
            assert result.ids == (1, 2)
    assert session.state.recent[-1].present == (False, False)
    result = session.step(frames[5])
    assert result.ids == (1, 2)
    assert all(np.isfinite(score) for score in result.scores.values())


@pytest.mark.parametrize(
    ("tokens", "score", "back"),
    [(6, 0.3, False), (6, 0.5, True), (22, 0.5, True), (23, 0.5, False), (23, 0.75, True)],
    ids=["doubtful", "certain", "twice its example and 10 tokens", "much larger", "much larger, but certain"],
)
def test_what_was_lost_is_back_from_a_score_on(tokens, score, back):
    """One object is lost and one is not; the score that is asked for holds for the lost one alone."""
    model = build(replace(DENSE, reappear=0.4))
    session = VideoSession(model)
    frames = clip(4)
    session.step(frames[0], two_blocks())
    predict = model.predict

    def predicted(first, second, area, scores):
        def made(target, *args, **kwargs):
            real = predict(target, *args, **kwargs)
            logits = torch.stack([torch.full_like(real.logits[0], value) for value in (first, -5.0)])
            logits[1].view(-1)[: 16 * area] = second
            return replace(real, logits=logits, scores=torch.tensor(scores))

        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "predict", predicted(5.0, -5.0, 0, [0.9, 0.9]))
        assert set(np.unique(session.step(frames[1]).labels)) == {1}
        patch.setattr(model, "predict", predicted(1.0, 5.0, tokens, [0.1, score]))
        result = session.step(frames[2])
    assert set(np.unique(result.labels)) == ({1, 2} if back else {1})  # the first one was never lost and needs no score
    assert result.scores == pytest.approx({1: 0.1, 2: score})
    assert session.state.recent[-1].present == (True, back)


def present_by_margins(fill):
    """Which of two objects, one at the left and one at the right, are there after a frame whose margins `fill` sets."""
    model = build(replace(DENSE, drift=0.1))
    session = VideoSession(model)
    frames = clip(2)
    session.step(frames[0], two_blocks())
    predict = model.predict

    def made(target, *args, **kwargs):
        real = predict(target, *args, **kwargs)
        logits = torch.full_like(real.logits, -5.0)
        logits[0, :, :16], logits[1, :, -16:] = 5.0, 5.0
        margins = torch.full_like(real.margins, -0.5)
        fill(margins)
        return replace(real, logits=logits, scores=torch.tensor([0.9, 0.9]), margins=margins)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "predict", made)
        session.step(frames[1])
    return session.state.recent[-1].present


@pytest.mark.parametrize(
    ("examples", "linear", "recent", "there"),
    [
        (-0.3, -0.3, 0.3, False),
        (0.0, -0.3, 0.3, True),
        (-0.3, 0.0, -0.3, True),
        (-0.05, -0.05, 0.0, True),
        (0.3, -0.01, -0.3, False),
        (0.3, 0.0, -0.3, True),
        (0.3, -0.3, -0.05, True),
    ],
    ids=[
        "by all of the example",
        "not by matches",
        "not by linear models",
        "hardly",
        "by the last frame and linear models",
        "not by linear models, but by the last frame",
        "hardly by the last frame",
    ],
)
@pytest.mark.parametrize("other", [-0.5, 0.3], ids=["nobody", "another object"])
def test_an_object_that_covers_background_has_drifted_off(examples, linear, recent, there, other):
    """By all that the given examples say, or by the last frame and their linear models. What is like another object is
    no background.
    """

    def fill(margins):
        for kind, value in enumerate((examples, recent, linear)):
            margins[0, kind, :, :4], margins[1, kind, :, :4], margins[1, kind, :, -4:] = value, other, 0.3

    assert present_by_margins(fill) == (there or other > 0, True)


def test_a_frame_that_does_not_show_an_object_says_nothing_against_it():
    """One that was hidden, and that is followed beside another, may come back where the last frame had background."""

    def fill(margins):
        margins[1, :, :, -4:] = 0.3
        margins[0, 0], margins[0, 1] = 0.3, 0.0  # zero for who is in none of the last frames

    assert present_by_margins(fill) == (True, True)


@pytest.fixture
def shots(dense, monkeypatch):
    """`shots.step(session, pixels, likeness, cut)`: the result of a frame in which two objects are found, the second
    with so much for it, None where it is not found. `shots.told`: what was said of cuts.
    """
    predict, told = dense.predict, []

    def step(session, pixels, likeness, cut=False, **kwargs):
        def made(target, *args, **kwargs):
            told.append(bool(kwargs["cut"]))
            real = predict(target, *args, **kwargs)
            logits = torch.full_like(real.logits, -5.0)
            logits[0, :, :16], logits[1, :, -16:] = 5.0, -5.0 if likeness is None else 5.0
            margins = torch.full_like(real.margins, 0.2)
            margins[1, 0] = 0.0 if likeness is None else likeness
            return replace(real, logits=logits, scores=torch.tensor([0.9, 0.9]), margins=margins)

        monkeypatch.setattr(dense, "predict", made)
        monkeypatch.setattr("segic_vos.following.is_cut", lambda *_: torch.tensor(cut))
        return session.step(pixels, **kwargs)

    return SimpleNamespace(step=step, told=told)


def test_after_a_cut_an_object_is_there_where_the_examples_speak_for_it_as_before(dense, shots):
    """One of two objects is not in another shot, in which something is a little like it; it is found afterwards. One
    that is hidden without a cut need not be as like as it was.
    """
    session = VideoSession(dense)
    frames = clip(7)
    session.step(frames[0], two_blocks())

    def frame(number, likeness, cut=False):
        shots.step(session, frames[number], likeness, cut)
        return session.state.recent[-1].present

    assert frame(1, 0.2) == (True, True)
    assert frame(2, 0.1, cut=True) == (True, False)
    assert frame(3, 0.1) == (True, False)
    assert frame(4, 0.18) == (True, True)
    assert frame(5, None) == (True, False)
    assert frame(6, 0.1) == (True, True)
    assert shots.told == [False, True, False, False, False, False]


@pytest.mark.parametrize("known", [True, False])
def test_a_session_recalls_who_is_away_since_a_cut(dense, shots, known):
    """A run that is stopped within another shot goes on as if it had not been, as far as who is there."""
    frames = clip(6)
    session, resumed = VideoSession(dense), VideoSession(dense)
    session.step(frames[0], two_blocks())
    results = [shots.step(session, frames[1], 0.2), shots.step(session, frames[2], 0.1, cut=True)]
    assert [result.away for result in results] == [frozenset(), {2}]
    assert [result.likeness for result in results] == [pytest.approx({1: 0.2, 2: 0.2})] * 2
    resumed.step(frames[0], two_blocks())
    for pixels, result in zip(frames[1:], results, strict=False):
        resumed.remember(resumed.encode(pixels), result.labels, result.scores)
        if known:
            resumed.recall(result.likeness, result.away)
    for pixels, likeness, there in ((frames[3], 0.1, False), (frames[4], 0.18, True), (frames[5], 0.1, True)):
        for one in (session, resumed) if known else (session,):
            shots.step(one, pixels, likeness)
            assert one.state.recent[-1].present == (True, there)
    if not known:
        shots.step(resumed, frames[3], 0.1)
        assert resumed.state.recent[-1].present == (True, True)


def test_a_mask_of_another_object_leaves_away_who_is_away(dense, shots):
    """Its frame has what was known of the others, and nothing of the one that was given."""
    frames = clip(4)
    session = VideoSession(dense)
    session.step(frames[0], two_blocks())
    shots.step(session, frames[1], 0.2)
    shots.step(session, frames[2], 0.1, cut=True)
    first = annotate(np.where(two_blocks().labels == 1, 1, 0))
    result = shots.step(session, frames[3], 0.1, annotation=first)
    assert (result.away, result.likeness) == ({2}, pytest.approx({2: 0.2}))
    standing = session.state.recent[-1].standing
    assert standing.away.tolist() == [False, True]
    assert standing.likeness.tolist() == [-np.inf, pytest.approx(0.2)]


def test_a_given_frame_recalls_nothing(dense):
    session = VideoSession(dense)
    session.step(clip(1)[0], two_blocks())
    session.recall({1: 0.2}, {2})
    assert session.state.recent[-1].standing is None


def test_where_things_were_before_a_cut_tells_nothing(dense):
    """Neither recent frames' tokens nor the last masks, whatever they are."""
    session = VideoSession(dense)
    for frame, masks in zip(clip(2), (two_blocks(), None), strict=True):
        session.step(frame, masks)
    state = session.state
    (last,) = state.recent[-1:]
    elsewhere = replace(last, matching=last.matching.flip(0), group=last.group.flip(0), masks=last.masks.flip(2))
    image = session.encode(clip(3)[2])
    for cut in (False, True):
        one, other = (
            dense.predict(image, state.given, recent, entities=(1, 2), video=True, cut=torch.tensor(cut))
            for recent in ((last,), (elsewhere,))
        )
        assert torch.equal(one.logits, other.logits) == cut
        assert torch.equal(one.scores, other.scores) == cut


@pytest.mark.parametrize(
    ("tokens", "score", "kept"),
    [(10, 0.1, True), (17, 0.1, True), (27, 0.1, False), (27, 0.5, True)],
    ids=["as it was", "little more", "much more", "certainly more"],
)
def test_an_object_that_suddenly_grows_must_be_certain(tokens, score, kept):
    """Twice its area of 8 tokens and 10 more are allowed to anyone."""
    model = build(replace(DENSE, reappear=0.4))
    session = VideoSession(model)
    frames = clip(3)
    session.step(frames[0], two_blocks())
    predict = model.predict

    def predicted(area, score):
        def made(target, *args, **kwargs):
            real = predict(target, *args, **kwargs)
            logits = torch.full_like(real.logits, -5.0)
            logits[0].view(-1)[: 16 * area] = 5.0
            return replace(real, logits=logits, scores=torch.tensor([score, 0.9]))

        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "predict", predicted(8, 0.9))
        session.step(frames[1])
        patch.setattr(model, "predict", predicted(tokens, score))
        session.step(frames[2])
    assert session.state.recent[-1].present[0] == kept


def test_id_without_pixels(model):
    """Refused before it can do harm: nothing could be said of that object later."""
    session = VideoSession(model)
    frames = clip(2)
    labels = two_blocks().labels
    with pytest.raises(UsageError, match="the mask names the object 5 but has no pixel of it"):
        session.step(frames[0], Annotation(labels, (1, 2, 5)))
    assert session.ids == ()
    session.step(frames[0], two_blocks())
    assert session.step(frames[1]).ids == (1, 2)


def test_object_of_one_pixel(model):
    labels = np.zeros(SIZE, np.int32)
    labels[31, 52] = 3
    session = VideoSession(model)
    frames = clip(3)
    np.testing.assert_array_equal(session.step(frames[0], annotate(labels)).labels, labels)
    for frame in frames[1:]:
        assert session.step(frame).ids == (3,)


# Sizes


def test_frame_of_another_size(model):
    session = VideoSession(model)
    session.step(clip(1)[0], two_blocks())
    before = session.state
    with pytest.raises(UsageError, match="this frame is 80x40 pixels, the first one was 107x60"):
        session.step(clip(1, (60, 107))[0][:40, :80])
    assert session.state == before
    with pytest.raises(UsageError, match="this frame is 80x40"):
        session.remember(model.encode(torch.zeros(1, 3, 40, 80, dtype=torch.uint8))[0], np.zeros((40, 80), np.int32))


@pytest.mark.parametrize("at", [0, 2])
def test_mask_of_another_size(model, at):
    session = VideoSession(model)
    frames = clip(3)
    for number in range(at):
        session.step(frames[number], two_blocks() if number == 0 else None)
    before = session.state
    with pytest.raises(UsageError, match="the mask is 60x107 pixels, its frame is 107x60"):
        session.step(frames[at], annotate(np.ones(SIZE[::-1])))
    assert session.state == before
    assert session.step(frames[at], two_blocks()).ids == (1, 2)


# Memory


@pytest.mark.parametrize("model", ["dense", "dense, one recent frame, bare", "released"], indirect=True)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones(SIZE, np.int32), r"given as a ndarray; expected segic_vos\.annotation\(labels\)"),
        (Annotation(np.ones((*SIZE, 1), np.int32), (1,)), r"is int32 of shape .*1\); expected integers, \(H, W\)"),
        (Annotation(np.ones(SIZE) / 2, (1,)), r"the mask is float64"),
    ],
)
def test_what_is_no_annotation_is_named(model, given, message):
    with pytest.raises(UsageError, match=message):
        VideoSession(model).step(clip(1)[0], given)


def test_memory_does_not_grow_with_the_video(model):
    session = VideoSession(model)
    sizes = {}
    frames = [model.encode(torch.from_numpy(f).permute(2, 0, 1)[None])[0] for f in clip(7)]
    for number, frame in enumerate([frames[0], *frames[1:] * 10]):
        session.step_encoded(frame, two_blocks() if number == 0 else None)
        sizes[number] = kept(session)
    assert sizes[10] == sizes[30] == sizes[60]
    assert sizes[60][0] > 0


def test_memory_does_not_grow_with_corrections(dense):
    session = VideoSession(dense)
    sizes = []
    for number, frame in enumerate(clip(40)):
        session.step(frame, two_blocks() if number % 2 == 0 else None)
        sizes.append(kept(session)[0])
    assert len(session.state.given) == MAX_GIVEN
    assert sizes[20:22] == sizes[38:40]


def test_memory_does_not_hold_batches(dense):
    """Frames that were encoded together are not kept for the sake of one of them."""
    session = VideoSession(dense)
    frames = torch.from_numpy(np.stack(clip(6))).permute(0, 3, 1, 2)
    for number, encoded in enumerate(dense.encode(frames)):
        session.step_encoded(encoded, two_blocks() if number == 0 else None)
    tensors, held = kept(session)
    assert held == tensors


def test_examples_that_are_some_objects_only_ones_stay(dense):
    session = VideoSession(dense)
    frames = clip(20)
    for number in range(12):
        labels = np.zeros(SIZE, np.int32)
        labels[4 * number : 4 * number + 4, :20] = number + 1
        session.step(frames[number], annotate(labels))
    assert [context.entities for context in session.state.given] == [(i,) for i in range(1, 13)]
    everything = np.repeat(np.arange(1, 13, dtype=np.int32), 5)[:, None].repeat(SIZE[1], 1)
    session.step(frames[12], annotate(everything))
    assert [context.entities[0] for context in session.state.given] == [1, 7, 8, 9, 10, 11, 12, 1]
    assert session.step(frames[13]).ids == tuple(range(1, 13))


# The same in other ways


def test_stages_by_hand(model):
    """A session is context, thinned, predict and remember; an example that is recent adds no second instance token."""
    frames = [model.encode(torch.from_numpy(f).permute(2, 0, 1)[None])[0] for f in clip(4)]
    annotation = two_blocks()
    session = VideoSession(model)
    session.step_encoded(frames[0], annotation)
    masks = torch.from_numpy(np.stack([annotation.labels == i for i in (1, 2)]))
    given = model.context(frames[0], masks, [1, 2])
    if model.config.matching is not None:
        (given,) = thinned([given], model.config.matching.topk)
    recent = [given]
    for frame in frames[1:]:
        out = model.predict(frame, [given], recent, entities=[1, 2], video=True)
        recent = [*recent, model.remember(frame, out.logits, [1, 2])][-model.config.recent :]
        result = session.step_encoded(frame)
        expected = owners(model.upsample(out.logits, frame.canvas), [1, 2])
        np.testing.assert_array_equal(result.labels, expected)
        assert list(result.scores.values()) == pytest.approx(out.scores.clamp(0, 1).tolist(), abs=1e-6)


def test_frames_are_compared_with_a_few_tokens_of_a_plain_background(model):
    """As many as speak for all of it; a model that does not match densely has no tokens."""
    frame = np.full((*SIZE, 3), 60, np.uint8)
    frame[10:30, 5:30] = 230
    session = VideoSession(model)
    session.step(frame, annotate(np.where(frame[..., 0] > 100, 3, 0)))
    (given,) = session.state.given
    if given.matching is None:
        assert given.representatives is None
        return
    assert given.group is not None
    assert given.representatives is not None
    owned = set(given.group.nonzero()[:, 0].tolist())
    assert owned < set(given.representatives.tolist())
    assert len(given.representatives) < len(given.group)


def test_number_of_instance_tokens(model, monkeypatch):
    """One on the frame after the first, as released; from then on two, the last frame's beside the first one's."""
    seen = []
    tokens = model.decoder.tokens
    monkeypatch.setattr(
        model.decoder, "tokens", lambda given, *rest: (seen.append(given.visual.shape[2]), tokens(given, *rest))[1]
    )
    session = VideoSession(model)
    for number, frame in enumerate(clip(4)):
        session.step(frame, two_blocks() if number == 0 else None)
    assert seen == [1, 2, 2]


def test_batches_equal_single_frames(model):
    frames = clip(6)
    encoded = model.encode(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2))
    one, two = VideoSession(model), VideoSession(model)
    for number, frame in enumerate(frames):
        annotation = two_blocks() if number == 0 else None
        a, b = one.step(frame, annotation), two.step_encoded(encoded[number], annotation)
        assert (a.labels != b.labels).mean() < 0.005  # rounding at the rim
        assert list(a.scores.values()) == pytest.approx(list(b.scores.values()), abs=1e-3)


def test_deterministic(model):
    frames = clip(5)
    one, two = VideoSession(model), VideoSession(model)
    for number, frame in enumerate(frames):
        annotation = two_blocks() if number == 0 else None
        a, b = one.step(frame, annotation), two.step(frame, annotation)
        np.testing.assert_array_equal(a.labels, b.labels)
        assert a.scores == b.scores


def test_another_default_device(dense):
    """What a program around it has set is not meant for the session, whose device is its model's."""
    usual, here = VideoSession(dense, foveated=True), VideoSession(dense, foveated=True)
    for number, frame in enumerate(clip(7)):
        given = None if number else two_blocks()
        expected = usual.step(frame, given)
        with torch.device("meta"):
            found = here.step(frame, given)
        np.testing.assert_array_equal(found.labels, expected.labels)
        assert found.scores == expected.scores


def test_frames_that_are_not_contiguous(dense):
    frame = clip(1)[0]
    mirrored = frame[:, ::-1]
    one, two = VideoSession(dense), VideoSession(dense)
    for pixels, session in ((mirrored, one), (mirrored.copy(), two)):
        session.step(pixels, two_blocks())
    np.testing.assert_array_equal(one.step(frame).labels, two.step(frame).labels)


def test_remembering_restores_the_session(model):
    """Only the given frames and the last few masks matter for what comes next."""
    frames = [model.encode(torch.from_numpy(f).permute(2, 0, 1)[None])[0] for f in clip(9)]
    rng = np.random.default_rng(2)
    masks = {number: np.kron(rng.integers(0, 3, (6, 11)), np.ones((10, 10), np.int32))[:, :107] for number in range(7)}
    recent = max(1, model.config.recent)
    results = []
    for first in (1, 7 - recent):
        session = VideoSession(model)
        session.step_encoded(frames[0], two_blocks())
        for number in range(first, 7):
            session.remember(frames[number], masks[number].astype(np.int32))
        results.append([session.step_encoded(frame) for frame in frames[7:]])
    for whole, resumed in zip(*results, strict=True):
        np.testing.assert_array_equal(whole.labels, resumed.labels)
        assert whole.scores == resumed.scores


RENEWING = replace(DENSE, matching=replace(DENSE.matching, renew=2))


def renewals(monkeypatch) -> list[Context]:
    """The frames that examples' linear models are fitted to from now on, once for every example. Most are certain."""
    monkeypatch.setattr("segic.renewal.CERTAIN", 0.01)
    seen: list[Context] = []

    def watch(self, example, later, grid, scores):
        if certain(scores, later.covers):
            seen.append(later)
        return replace(example)

    monkeypatch.setattr(SEGIC, "renew", watch)
    return seen


def test_linear_models_are_fitted_anew_every_few_frames(monkeypatch):
    """To the frame that was just predicted, counted from the last one with given masks."""
    seen, session, frames = renewals(monkeypatch), VideoSession(build(RENEWING)), clip(10)
    counts = []
    for number, frame in enumerate(frames):
        session.step(frame, two_blocks() if number in (0, 5) else None)
        counts.append(len(seen))
        assert all(context is not session.state.given[-1] for context in seen)
        if len(seen) > (counts[-2] if number else 0):
            assert seen[-1] is session.state.recent[-1]
    # With frame 5's masks there are two examples, and frame 6 is the first after them.
    assert counts == [0, 0, 1, 1, 2, 2, 2, 4, 4, 6]


def test_linear_models_stay_where_nobody_is_certain(monkeypatch):
    monkeypatch.setattr("segic.renewal.CERTAIN", 1.1)
    session = VideoSession(build(RENEWING))
    for number, frame in enumerate(clip(5)):
        session.step(frame, two_blocks() if number == 0 else None)
    assert session.state.given[0].target_model is not None
    assert session.state.given[0].renewed is None


def test_only_models_that_say_so_fit_anew(monkeypatch):
    monkeypatch.setattr("segic.renewal.CERTAIN", 0.0)
    for config in (RENEWING, DENSE):
        session = VideoSession(build(config))
        for number, frame in enumerate(clip(3)):
            session.step(frame, two_blocks() if number == 0 else None)
        (given,) = session.state.given
        assert (given.renewed is None) == (config is DENSE)


def test_frames_that_are_skipped_count(monkeypatch):
    """Of an interrupted clip, the frames that are remembered renew what they renewed when they were predicted."""
    seen, model = renewals(monkeypatch), build(RENEWING)
    frames = [model.encode(torch.from_numpy(f).permute(2, 0, 1)[None])[0] for f in clip(6)]
    session = VideoSession(model)
    session.step_encoded(frames[0], two_blocks())
    session.skip()
    session.remember(frames[2], two_blocks().labels, {1: 0.9, 2: 0.9})
    assert seen == [session.state.recent[-1]]
    session.skip()
    session.remember(frames[4], two_blocks().labels)  # without scores nobody is certain
    assert len(seen) == 1


def test_remembering_what_was_written_comes_near(dense):
    """A resumed run has the written masks in place of the model's own logits: a few tokens at the rim differ."""
    frames = [dense.encode(torch.from_numpy(f).permute(2, 0, 1)[None])[0] for f in clip(6)]
    session, resumed = VideoSession(dense), VideoSession(dense)
    written = [session.step_encoded(frames[0], two_blocks()).labels]
    written += [session.step_encoded(frame).labels for frame in frames[1:5]]
    resumed.step_encoded(frames[0], two_blocks())
    for number in (2, 3, 4):
        resumed.remember(frames[number], written[number])
    for own, restored in zip(session.state.recent, resumed.state.recent, strict=True):
        assert own.entities == restored.entities
        assert (own.group == restored.group).float().mean() > 0.9
    assert (session.step_encoded(frames[5]).labels == resumed.step_encoded(frames[5]).labels).mean() > 0.95


def test_an_example_given_later_says_nothing_of_who_was_followed(dense):
    """As its background, the tokens of those whom it does not show would speak against what they are."""
    first, later = (dense.encode(torch.from_numpy(f).permute(2, 0, 1)[None])[0] for f in clip(2))
    session = VideoSession(dense)
    session.step_encoded(first, annotate(np.pad(np.ones((30, 40), np.int32), ((0, 30), (0, 67)))))
    known, given = np.zeros(SIZE, np.int32), np.zeros(SIZE, np.int32)
    known[:35, :50] = 1
    given[25:, 40:70] = 2  # over a corner of the other
    session.remember(later, known, {1: 0.7}, annotate(given))
    alone, example = session.state.given
    assert alone.left_out is None
    assert example.entities == (2,)
    assert example.left_out is not None
    assert example.representatives is not None
    covered = torch.from_numpy((known == 1) & (given == 0))[None]
    expected = dense.context(later, covered, [1]).weights[0] > THEIRS
    assert torch.equal(example.left_out, expected)
    assert 0 < expected.sum() < expected.numel()
    assert not (expected & (example.group == 0))[example.representatives].any()
    assert (example.group > 0).sum() == (example.group > 0)[example.representatives].sum()
    last = session.state.recent[-1]
    masks = torch.from_numpy(np.stack([known * (given == 0), given]) > 0)
    assert torch.equal(last.group, dense.context(later, masks, [1, 2]).group)


def test_a_frame_with_some_given_masks_is_remembered_as_it_was(model):
    """Whom it does not show is not predicted again."""
    frames = [model.encode(torch.from_numpy(f).permute(2, 0, 1)[None])[0] for f in clip(5)]
    first, later = (annotate(np.where(two_blocks().labels == i, i, 0)) for i in (1, 2))
    a, b = VideoSession(model), VideoSession(model)
    a.step_encoded(frames[0], first)
    a.step_encoded(frames[1])
    written = a.step_encoded(frames[2], later)
    b.step_encoded(frames[0], first)
    b.skip()
    b.remember(frames[2], written.labels, written.scores, later)
    for own, restored in ((a.state.given[-1], b.state.given[-1]), (a.state.recent[-1], b.state.recent[-1])):
        assert (own.entities, own.present) == (restored.entities, restored.present)
        for name in ("visual", "matching", "group", "weights", "masks", "left_out", "representatives"):
            tensors = getattr(own, name), getattr(restored, name)
            assert tensors == (None, None) or torch.equal(*tensors), name
    assert (a.state.given[-1].left_out is None) == (model.config.matching is None)


def test_remembering_before_any_mask(model):
    session = VideoSession(model)
    session.remember(model.encode(torch.zeros(1, 3, *SIZE, dtype=torch.uint8))[0], np.zeros(SIZE, np.int32))
    assert session.state.recent == ()


# Many objects, and soft masks


def test_twenty_objects_are_each_others_negatives():
    labels = np.kron(np.arange(1, 21).reshape(4, 5), np.ones((15, 21), np.int32)).astype(np.int32)
    labels = np.pad(labels, ((0, 0), (0, 2)))
    results = []
    for negatives in (True, False):
        instructions = replace(DENSE.instructions, negatives=negatives)
        session = VideoSession(build(replace(DENSE, instructions=instructions)))
        frames = clip(3)
        session.step(frames[0], annotate(labels))
        results.append([session.step(frame) for frame in frames[1:]])
        assert results[-1][0].ids == tuple(range(1, 21))
        assert set(np.unique(results[-1][1].labels)) <= set(range(21))
    assert all(abs(results[0][0].scores[i] - results[1][0].scores[i]) > 1e-5 for i in range(1, 21))


def test_probabilities(model):
    session, plain = VideoSession(model, probabilities=True), VideoSession(model)
    frames = clip(3)
    first = session.step(frames[0], two_blocks(300, 7))
    assert first.probabilities.shape == (2, *SIZE)
    assert first.probabilities.dtype == np.float16
    np.testing.assert_array_equal(first.probabilities, [first.labels == 7, first.labels == 300])
    plain.step(frames[0], two_blocks(300, 7))
    result = session.step(frames[1])
    np.testing.assert_array_equal(result.labels, plain.step(frames[1]).labels)
    assert result.probabilities.shape == (2, *SIZE)
    best = np.array([7, 300])[result.probabilities.argmax(0)]
    clear = np.abs(result.probabilities[0] - result.probabilities[1]) > 0.01
    decided = clear & (np.abs(result.probabilities.max(0) - 0.5) > 0.01)
    expected = np.where(result.probabilities.max(0) > 0.5, best, 0)
    np.testing.assert_array_equal(result.labels[decided], expected[decided])


def test_probabilities_of_given_and_followed_objects(model):
    session = VideoSession(model, probabilities=True)
    frames = clip(2)
    session.step(frames[0], two_blocks(5, 9))
    labels = np.zeros(SIZE, np.int32)
    labels[:12, :12] = 7
    result = session.step(frames[1], annotate(labels))
    assert result.ids == (5, 7, 9)
    np.testing.assert_array_equal(result.probabilities[1], labels == 7)
    assert not np.isin(result.probabilities[0], (0, 1)).all()


# The model that ships


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_default_model_follows_a_textured_object(dtype):
    """A patch of one texture that moves over another for eight frames stays found."""
    from segic import load_model

    try:
        model = load_model("segic-s", device="cpu", dtype=dtype, fetch=False)
    except SegicError as error:
        pytest.skip(f"the default model is not at hand: {error}")
    rng = np.random.default_rng(0)

    def texture(height, width, colour):
        coarse = rng.integers(-60, 60, (height // 8 + 1, width // 8 + 1, 1))
        fine = rng.integers(-20, 20, (height, width, 1))
        return np.kron(coarse, np.ones((8, 8, 1), int))[:height, :width] + fine + np.array(colour)

    background, patch = texture(240, 426, (60, 110, 70)), texture(80, 96, (190, 90, 60))
    inside = np.hypot(*np.ogrid[-1:1:80j, -1:1:96j]) <= 1
    session = VideoSession(model)
    for number in range(8):
        frame, mask = background.copy(), np.zeros((240, 426), bool)
        place = slice(60 + 4 * number, 140 + 4 * number), slice(60 + 12 * number, 156 + 12 * number)
        mask[place] = inside
        frame[place] = np.where(inside[..., None], patch, frame[place])
        annotation = annotate(7 * mask) if number == 0 else None
        result = session.step(frame.clip(0, 255).astype(np.uint8), annotation)
        found = result.labels == 7
        assert (found & mask).sum() / (found | mask).sum() > 0.8
    assert result.scores[7] > 0.5
