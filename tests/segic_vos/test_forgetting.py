"""Objects that are followed no longer: `VideoSession.forget`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segic.errors import UsageError
from segic.model import SEGIC
from segic_vos.session import VideoSession

from .test_session import DENSE, OPTIONS, SIZE, annotate, build, clip, two_blocks


@pytest.fixture(scope="module", params=OPTIONS)
def model(request: pytest.FixtureRequest) -> SEGIC:
    return build(OPTIONS[request.param])


@pytest.fixture(scope="module")
def dense() -> SEGIC:
    return build(DENSE)


def begun(model: SEGIC, foveated: bool = False) -> VideoSession:
    """After three frames with the objects 1 and 2."""
    session = VideoSession(model, foveated=foveated)
    for frame, given in zip(clip(3), (two_blocks(), None, None), strict=True):
        session.step(frame, given)
    return session


def block(key: int):
    """A mask given later, of something else than the first two."""
    labels = np.zeros(SIZE, np.int32)
    labels[5:25, 60:90] = key
    return annotate(labels)


def test_who_is_forgotten_is_in_no_later_result(model: SEGIC) -> None:
    session = begun(model)
    session.forget(1)
    assert session.ids == session.state.ids == (2,)
    for frame in clip(6)[3:]:
        result = session.step(frame)
        assert result.ids == (2,)
        assert list(result.scores) == [2]
        assert set(np.unique(result.labels)) <= {0, 2}


def test_the_others_are_still_told_from_it(dense: SEGIC) -> None:
    """Its tokens stay in the example, as background."""
    session = begun(dense)
    (before,) = session.state.given
    session.forget(1)
    (example,) = session.state.given
    assert before.entities == (1, 2)
    assert example.shown[1:] == (2,)
    assert torch.equal(example.group, before.group)
    assert example.target_model is before.target_model


def test_its_id_is_free_for_another(model: SEGIC) -> None:
    """Nothing that was known of the one speaks for the other."""
    frames, found = clip(7), []
    for key in (1, 3):
        session = begun(model)
        session.forget(1)
        results = [session.step(frames[3]), session.step(frames[4], block(key)), *map(session.step, frames[5:])]
        assert [result.ids for result in results] == [(2,), *[tuple(sorted((2, key)))] * 3]
        found.append([np.where(result.labels == 2, 2, result.labels > 0) for result in results])
    np.testing.assert_array_equal(*found)


def test_who_comes_after_all_were_forgotten_is_followed_as_in_a_new_session(model: SEGIC) -> None:
    frames, session, anew = clip(6), begun(model), VideoSession(model)
    session.forget(1, 2)
    nobody = session.step(frames[3])
    assert not nobody.ids
    assert not nobody.labels.any()
    for given, frame in zip((block(1), None), frames[4:], strict=True):
        one, other = session.step(frame, given), anew.step(frame, given)
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.scores == other.scores
    assert len(session.state.given) == 1


def test_an_example_of_nobody_else_goes(dense: SEGIC) -> None:
    session = begun(dense)
    session.step(clip(4)[3], block(7))
    assert len(session.state.given) == 2
    session.forget(7)
    assert [example.entities for example in session.state.given] == [(1, 2)]


def test_nobody_looks_closely_where_the_forgotten_was(dense: SEGIC) -> None:
    frames, looks = clip(5), []
    for gone in ((), (1,)):
        session = begun(dense, foveated=True)
        session.forget(*gone)
        session.step(frames[3])
        looks.append(session.encode(frames[4], whole=False).fovea)
    with_it, without = looks
    assert with_it is not None
    assert without is not None
    assert len(without) < len(with_it)


@pytest.mark.parametrize(("ids", "said"), [((3,), "the id 3; those that are followed: 1, 2"), ((1, 9), "the id 9;")])
def test_an_id_that_nobody_has_is_refused_and_nobody_forgotten(dense: SEGIC, ids: tuple[int, ...], said: str) -> None:
    session = begun(dense)
    state = session.state
    with pytest.raises(UsageError, match=said):
        session.forget(*ids)
    assert session.state == state


def test_without_objects_there_is_nobody_to_forget(dense: SEGIC) -> None:
    with pytest.raises(UsageError, match="the id 1; those that are followed: none"):
        VideoSession(dense).forget(1)
