"""Propagated masks from examples and recent frames together; their parts are tested in test_model and test_tiles."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from segic.backbones.fovea import fovea
from segic.config import MatchingConfig
from segic.propagation import Context, carried_masks, dense_maps, margins_to
from segic.target_model import fit_target_model

GRID = (3, 4)


def context(entities: tuple[int, ...], seed: int, model: bool = False) -> Context:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.nn.functional.normalize(torch.randn(12, 8, generator=generator), dim=1)
    weights = torch.rand(len(entities), 12, generator=generator) / len(entities)
    group = torch.arange(12) % (1 + len(entities))
    fitted = fit_target_model(tokens, group, len(entities), 0.1) if model else None
    visual = torch.zeros(len(entities), 8)
    masks = torch.rand(len(entities), 12, 16, generator=generator)
    return Context(entities, visual, torch.ones(len(entities), dtype=torch.bool), tokens, group, weights, masks, fitted)


def test_carried_masks_are_by_entity_and_zero_for_who_is_not_known() -> None:
    shown = context((7, 3), 0)
    assert shown.matching is not None
    assert shown.masks is not None
    # Every token is most like itself, so nothing moves.
    found = carried_masks(shown.matching, GRID, [context((3,), 1), shown], [3, 5, 7], radius=1)
    expected = torch.stack([shown.masks[1], torch.zeros(12, 16), shown.masks[0]])
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_nothing_is_carried_without_a_recent_frame_or_from_one_without_entities() -> None:
    target = context((1,), 1).matching
    assert target is not None
    nothing = torch.zeros(0, dtype=torch.bool)
    background = torch.zeros(12, dtype=torch.long)
    nobody = Context((), torch.zeros(0, 8), nothing, target, background, torch.zeros(0, 12), torch.zeros(0, 12, 16))
    for recent in ([], [nobody]):
        found = carried_masks(target, GRID, recent, [1, 2], radius=2)
        assert found.shape == (2, 12, 16)
        assert not found.any()


@pytest.mark.parametrize(("ridge", "maps"), [(0.0, 2), (0.1, 3)])
def test_maps_are_those_of_the_configuration(ridge: float, maps: int) -> None:
    matching = MatchingConfig(topk=2, radius=1, ridge=ridge)
    assert matching.maps == maps
    target = context((1,), 1).matching
    assert target is not None
    given, older, last = (context((1, 2), seed, model=True) for seed in (2, 3, 4))
    found = dense_maps(target, GRID, [given], [older, last], [2, 1], matching)
    assert found.shape == (2, maps, *GRID)
    alone = dense_maps(target, GRID, [given], [], [2, 1], matching)
    assert torch.equal(alone[:, 0], found[:, 0])
    assert not alone[:, 1].any()


def test_all_pairs_and_tiles_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU compares at once and a CPU tile by tile, of whole frames and of tokens that are not copies."""
    layout = fovea(torch.where(torch.arange(12).view(GRID) == 5, 1, 2))
    target = context((1,), 1).matching
    assert target is not None
    copied = target[layout.seen][layout.source]
    given, older, last = (context((1, 2), seed, model=True) for seed in (2, 3, 4))
    matching = MatchingConfig(topk=2, radius=1, ridge=0.2)

    def found() -> list[torch.Tensor]:
        return [
            dense_maps(tokens, GRID, [given], [older, last], [2, 1], matching, seen)
            for tokens, seen in ((target, None), (copied, layout))
        ]

    in_tiles = found()
    monkeypatch.setattr("segic.propagation._in_parts", lambda _device: False)
    for tiled, paired in zip(in_tiles, found(), strict=True):
        torch.testing.assert_close(tiled, paired)


def test_tokens_that_are_one_have_the_margins_of_its_first() -> None:
    """The tokens near to it are those near to its first."""
    layout = fovea(torch.where(torch.arange(12).view(GRID) == 5, 1, 2))
    assert len(layout) < 12
    target = context((1,), 1).matching
    assert target is not None
    target = target[layout.seen][layout.source]
    given, last = (context((1, 2), seed, model=True) for seed in (2, 3))
    matching = MatchingConfig(topk=2, radius=1, ridge=0.2)
    plain = dense_maps(target, GRID, [given], [last], [2, 1], matching).flatten(2)
    found = dense_maps(target, GRID, [given], [last], [2, 1], matching, layout).flatten(2)
    torch.testing.assert_close(found, plain[..., layout.seen[layout.source]])
    assert not torch.allclose(found, plain)


def test_tokens_of_a_recent_frame_that_are_one_are_one_match() -> None:
    """Three more beside one, alike, would be all of its best."""
    layout = fovea(torch.where(torch.arange(12).view(GRID) % 4 == 3, 1, 2))
    assert len(layout) == 9
    target, last = context((1,), 1).matching, context((1, 2), 3)
    assert target is not None
    assert last.matching is not None
    assert last.group is not None
    last = replace(last, matching=last.matching[layout.seen][layout.source], fovea=layout)
    matching = MatchingConfig(topk=2, radius=3)
    found = margins_to(target, [last], (1, 2), matching, GRID)
    alone = replace(last, matching=last.matching[layout.seen], group=last.group[layout.seen], fovea=None)
    torch.testing.assert_close(found, margins_to(target, [alone], (1, 2), matching))  # all is near enough
    assert not torch.allclose(found, margins_to(target, [replace(last, fovea=None)], (1, 2), matching, GRID))


def test_recent_frames_say_nothing_of_who_is_not_in_them() -> None:
    """Hidden in one of two frames, or in both, or not known there at all."""
    target = context((1,), 1).matching
    assert target is not None
    given, older, last = (context((1, 2, 3), seed) for seed in (2, 3, 4))
    seldom = replace(older, covers=torch.tensor([True, True, False]))
    hidden = replace(last, covers=torch.tensor([True, False, False]))
    matching = MatchingConfig(topk=2, radius=1)
    plain = dense_maps(target, GRID, [given], [older, last], [1, 2, 3, 4], matching)
    found = dense_maps(target, GRID, [given], [seldom, hidden], [1, 2, 3, 4], matching)
    assert torch.equal(found[:, 0], plain[:, 0])
    assert torch.equal(found[:2, 1], plain[:2, 1])
    assert plain[2, 1].any()
    assert not found[2:, 1].any()


def test_of_another_shot_recent_frames_say_nothing() -> None:
    matching = MatchingConfig(topk=2, radius=1, ridge=0.1)
    target = context((1,), 1).matching
    assert target is not None
    known = target, GRID, [context((1, 2), 2, model=True)], [context((1, 2), 3)], [2, 1], matching
    whole = dense_maps(*known)
    assert torch.equal(dense_maps(*known, cut=torch.tensor(False)), whole)
    found = dense_maps(*known, cut=torch.tensor(True))
    assert whole[:, 1].any()
    assert not found[:, 1].any()
    assert torch.equal(found[:, ::2], whole[:, ::2])
