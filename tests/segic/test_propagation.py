"""Propagated masks from examples and recent frames together; their parts are tested in test_model and test_tiles."""

from __future__ import annotations

import pytest
import torch

from segic.config import MatchingConfig
from segic.propagation import Context, dense_maps, last_place, strongest
from segic.target_model import fit_target_model

GRID = (3, 4)


def context(entities: tuple[int, ...], seed: int, model: bool = False) -> Context:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.nn.functional.normalize(torch.randn(12, 8, generator=generator), dim=1)
    weights = torch.rand(len(entities), 12, generator=generator) / len(entities)
    group = torch.arange(12) % (1 + len(entities))
    fitted = fit_target_model(tokens, group, len(entities), 0.1) if model else None
    visual = torch.zeros(len(entities), 8)
    return Context(entities, visual, (True,) * len(entities), tokens, group, weights, fitted)


def test_place_is_by_entity_and_zero_for_who_is_not_known() -> None:
    shown = context((7, 3), 0)
    place = last_place(shown, [3, 5, 7])
    assert shown.weights is not None
    assert torch.equal(place, torch.stack([shown.weights[1], torch.zeros(12), shown.weights[0]]))


@pytest.mark.parametrize(("ridge", "place", "maps"), [(0.0, False, 2), (0.1, False, 3), (0.0, True, 3), (0.1, True, 4)])
def test_maps_are_those_of_the_configuration(ridge: float, place: bool, maps: int) -> None:
    matching = MatchingConfig(topk=2, radius=1, ridge=ridge, place=place)
    assert matching.maps == maps
    target = context((1,), 1).matching
    assert target is not None
    given, older, last = (context((1, 2), seed, model=True) for seed in (2, 3, 4))
    found = dense_maps(target, GRID, [given], [older, last], [2, 1], matching)
    assert found.shape == (2, maps, *GRID)
    if place:
        assert torch.equal(found[:, -1].flatten(1), last_place(last, [2, 1]))
    alone = dense_maps(target, GRID, [given], [], [2, 1], matching)
    assert torch.equal(alone[:, 0], found[:, 0])
    assert not alone[:, 1].any()
    assert not (place and alone[:, -1].any())


def test_place_is_no_evidence() -> None:
    """An entity that is hidden points to its best match, not to where it was."""
    maps = torch.full((1, 1, 4, 3, 3), -0.2)
    maps[0, 0, 3, 0] = 1.0
    maps[0, 0, 1, 2, 1] = -0.1
    best = strongest(maps, MatchingConfig(ridge=0.1, place=True))
    assert best.shape == (1, 1, 3, 3)
    assert int(best.flatten().argmax()) == 7
    assert torch.equal(strongest(maps[:, :, :1], None), maps[:, :, 0])


def test_a_frame_without_entities_knows_no_place() -> None:
    nobody = Context(
        (), torch.zeros(0, 8), (), torch.zeros(12, 8), torch.zeros(12, dtype=torch.long), torch.zeros(0, 12)
    )
    assert not last_place(nobody, [1, 2]).any()
