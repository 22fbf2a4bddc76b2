"""Where entities may be, and that what is decoded there is what is decoded of whole frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import segic.decoder.places
from segic import load_model
from segic.carrying import SCALE
from segic.decoder import Decoder
from segic.decoder.decoder import ABSENT
from segic.decoder.places import BLOCK, LEAST, MARGIN, SIDES, WORTH, Place, around, ends, grouped, left, places
from segic.instructions import Instructions
from segic_benchmarks.speed_clip import made_clip
from segic_vos import VideoSession

from .test_decoder import DENSE, C, build, randn

GRID = (34, 60)
GRIDS = st.tuples(st.integers(1, 40), st.integers(1, 90))


@st.composite
def parts(draw, side):
    start = draw(st.integers(0, side - 1))
    return range(start, draw(st.integers(start + 1, side)))


@st.composite
def scenes(draw):
    """Grid (h, w), and for each entity the rectangle of its carried mask, or None, and one that margins speak for."""
    grid = draw(GRIDS)
    rectangle = st.tuples(parts(grid[0]), parts(grid[1]))
    entities = draw(st.lists(st.tuples(st.none() | rectangle, rectangle), min_size=1, max_size=9))
    return grid, entities


def shown(grid, entities):
    maps = torch.full((len(entities), 3, *grid), LEAST - 0.1)
    carried = torch.zeros(len(entities), SCALE * grid[0], SCALE * grid[1])
    for own, mask, (known, spoken_for) in zip(maps, carried, entities, strict=True):
        Place(*spoken_for).of(own).fill_(LEAST + 0.1)
        if known is not None:
            Place(*known).of(mask, SCALE).fill_(0.3)
    return maps, carried


def holds(outer, inner, margin, side):
    return outer.start <= max(0, inner.start - margin) and min(side, inner.stop + margin) <= outer.stop


@given(scenes())
def test_a_place_holds_all_that_speaks_for_an_entity_and_a_margin(scene):
    grid, entities = scene
    for place, (known, spoken_for) in zip(places(*shown(grid, entities)), entities, strict=True):
        if known is None:
            assert place is None
            continue
        for axis, name in enumerate(("rows", "columns")):
            found, side = getattr(place, name), grid[axis]
            assert 0 <= found.start < found.stop <= side
            assert len(found) in SIDES or len(found) == side
            assert holds(found, known[axis], MARGIN, side)
            assert holds(found, spoken_for[axis], MARGIN, side)


@given(scenes(), st.integers(1, 5))
def test_every_entity_is_in_one_group_whose_places_hold_its_own(scene, at_once):
    grid, entities = scene
    own = places(*shown(grid, entities))
    groups = grouped(own, grid, at_once)
    assert sorted(i for group in groups for i in group.entities) == list(range(len(entities)))
    for group in groups:
        assert 1 <= len(group.entities) <= at_once
        assert torch.equal(torch.arange(len(entities))[group.index], torch.tensor(group.entities))
        if group.places is None:
            assert all(own[i] is None or own[i].area > WORTH * grid[0] * grid[1] for i in group.entities)
            continue
        assert len({(len(place.rows), len(place.columns)) for place in group.places}) == 1
        for place, i in zip(group.places, group.entities, strict=True):
            assert holds(place.rows, own[i].rows, 0, grid[0])
            assert holds(place.columns, own[i].columns, 0, grid[1])


@given(scenes())
def test_blocks_count_what_is_beyond_a_place(scene):
    grid, entities = scene
    chosen = [Place(*spoken_for) for _, spoken_for in entities]
    for place, found in zip(chosen, left(chosen, grid), strict=True):
        beyond = torch.ones(grid)
        place.of(beyond).zero_()
        blocks = [rows.split(BLOCK, 1) for rows in beyond.split(BLOCK, 0)]
        assert found.tolist() == [block.sum().item() for row in blocks for block in row]


def test_no_block_beyond_a_place_has_anything_of_what_speaks_for_an_entity():
    """Places begin anywhere, blocks at multiples of their side."""
    assert MARGIN >= BLOCK - 1


@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=4))
def test_ends(lines):
    for line, found in zip(lines, ends(torch.tensor(lines)), strict=True):
        where = [i for i, one in enumerate(line) if one]
        assert found == (range(where[0], where[-1] + 1) if where else range(0))


@given(st.integers(1, 50).flatmap(lambda side: st.tuples(st.just(side), parts(side), st.integers(1, 60))))
def test_around_a_part_there_are_as_many_as_asked_for(case):
    side, part, size = case
    size = max(size, len(part))
    found = around(part, size, side)
    assert len(found) == min(size, side)
    assert found.start >= 0
    assert found.stop <= side
    assert holds(found, part, 0, side)


def decoded(decoder: Decoder, found, monkeypatch, at_once=4):
    """`masks` of four entities with these places."""
    monkeypatch.setattr("segic.decoder.decoder.places", lambda maps, carried: found)
    given_ = Instructions(
        propagated=randn(1, 1, 4, 3, *GRID),
        points=randn(2, 1, 4, 2).sigmoid(),
        visual=randn(3, 1, 4, 1, C),
        meta=None,
        carried=randn(4, 1, 4, SCALE * GRID[0], SCALE * GRID[1]).sigmoid(),
    )
    embedding = decoder.embed(randn(5, 1, C, *GRID))
    frame = decoder.frame_detail(128 + 50 * randn(6, 1, 3, 14 * GRID[0], 14 * GRID[1]), GRID)
    return decoder.masks(embedding, given_, frame, entities=4, cross_points=True, at_once=at_once)


FEW = [None, Place(range(3, 27), range(40, 56)), Place(range(0, 16), range(0, 24)), Place(range(10, 34), range(7, 23))]


@torch.no_grad()
def test_beyond_its_place_nothing_is_an_entitys(monkeypatch):
    out = decoded(build(DENSE), FEW, monkeypatch, at_once=1)
    assert out.logits.isfinite().all()
    assert (out.logits[0, 0] != ABSENT).all()
    for place, logits in zip(FEW[1:], out.logits[0, 1:], strict=True):
        assert (place.of(logits, SCALE) != ABSENT).any()
        place.of(logits, SCALE).fill_(ABSENT)
        assert (logits == ABSENT).all()


@torch.no_grad()
def test_places_that_are_nearly_everything_give_what_whole_frames_do(monkeypatch):
    """Each block counts for as many tokens as it has beyond a place: with blocks of one token, and layers that look at
    single tokens only, masks in a place are those of the whole frame there.
    """
    decoder = build(replace(DENSE, detail=0))
    for layer in (decoder.prompt_encoder.mask_downscaling[0], decoder.prompt_encoder.mask_downscaling[3]):
        middle = layer.weight[..., 1:2, 1:2].clone()
        layer.weight.zero_()[..., 1:2, 1:2] = middle
    whole = decoded(decoder, [None] * 4, monkeypatch)
    for module in ("segic.decoder.places", "segic.decoder.decoder"):
        monkeypatch.setattr(f"{module}.BLOCK", 1)
    out = decoded(decoder, FEW, monkeypatch)
    torch.testing.assert_close(out.scores, whole.scores, atol=1e-4, rtol=1e-4)
    for place, expected, found in zip(FEW[1:], whole.logits[0, 1:], out.logits[0, 1:], strict=True):
        # The margins' map ends at a place, and is drawn out to its border.
        one, other = (place.of(logits, SCALE)[2:-2, 2:-2] for logits in (found, expected))
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_places_may_be_decoded_one_by_one(monkeypatch):
    """Beside each other they are shown in places of one size, which are larger than some are."""
    decoder = build(replace(DENSE, detail=0))
    same = [Place(range(3, 27), range(i, i + 16)) for i in (0, 9, 21, 44)]
    together, apart = (decoded(decoder, same, monkeypatch, at_once=n) for n in (4, 1))
    torch.testing.assert_close(together.logits, apart.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.scores, apart.scores, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.wheel
def test_masks_of_the_shipped_model_are_those_of_whole_frames(tmp_path, monkeypatch):
    model = load_model(device="cpu")
    clip = made_clip(tmp_path, objects=3, frames=7, size=(480, 854))
    runs = []
    for worth in (WORTH, 0.0):
        monkeypatch.setattr(segic.decoder.places, "WORTH", worth)
        session = VideoSession.close_to(model, clip.first.labels)
        frames = enumerate(clip.frames(7))
        runs.append(np.stack([session.step(f.pixels, clip.first if i == 0 else None).labels for i, f in frames]))
    placed, whole = runs
    for key in clip.first.ids:
        assert ((placed == key) & (whole == key)).sum() / ((placed == key) | (whole == key)).sum() > 0.99
