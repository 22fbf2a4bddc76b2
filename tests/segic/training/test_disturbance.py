"""A disc of the masks with another owner."""

from __future__ import annotations

import torch

from segic.training.disturbance import disturb, lose


def stripes() -> torch.Tensor:
    """(64, 2, 40, 60): two stripes in 64 pictures."""
    masks = torch.zeros(64, 2, 40, 60)
    masks[:, 0, 5:35, 10:25] = 1
    masks[:, 1, 5:35, 35:50] = 1
    return masks


def test_a_disc_goes_to_one_owner() -> None:
    before = stripes()
    after = disturb(before, torch.Generator().manual_seed(0))
    assert set(after.unique().tolist()) == {0.0, 1.0}
    assert after.sum(1).max() == 1
    owners = []
    for one, other in zip(before, after, strict=True):
        changed = (one != other).any(0)
        labels = other[0] + 2 * other[1]
        assert labels[changed].unique().numel() <= 1
        assert changed.sum() <= 450 * 1.05  # no larger than the entity
        owners += labels[changed].unique().tolist()
    assert set(owners) == {0.0, 1.0, 2.0}


def test_it_follows_its_generator() -> None:
    one, two = (disturb(stripes(), torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert torch.equal(one, disturb(stripes(), torch.Generator().manual_seed(1)))
    assert not torch.equal(one, two)


def test_entities_that_are_not_there() -> None:
    after = disturb(torch.zeros(8, 1, 20, 20), torch.Generator().manual_seed(0))
    assert after.isfinite().all()
    assert after.flatten(1).sum(1).max() <= 30


def test_one_entity_a_picture_is_lost_and_the_others_stay() -> None:
    before = stripes()
    after = lose(before, torch.Generator().manual_seed(0))
    gone = after.flatten(2).amax(2) == 0
    assert (gone.sum(1) == 1).all()
    assert gone.any(0).all()
    assert torch.equal(after[~gone], before[~gone])
