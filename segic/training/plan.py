"""What happens at each step, as a function of the seed and the step's number alone.

Nothing about the data's order is ever stored: a resumed run, or one with another number of processes or workers, draws
what an uninterrupted one would have drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from segic.training.recipe import Recipe


class Stream(IntEnum):
    """Independent random sequences of a run; the second number of their seeds."""

    PLAN = 1
    PICK = 2
    SAMPLE = 3
    POINTS = 4
    VALIDATION = 5


def generator(seed: int, stream: Stream, *position: int) -> np.random.Generator:
    """The random state at a position (step, index, attempt) of one of a run's sequences."""
    return np.random.default_rng([seed, int(stream), *position])


@dataclass(frozen=True)
class StepPlan:
    """A step's choices that all its samples share.

    chain: cached samples are three-frame chains rather than pairs. entities: how many a cached sample has. flip: cached
    features are mirrored. swap, video_swap: which frames change places. reversion, video_reversion: context reversion
    after a pair, after a chain. predicted: a chain's recent frame carries the model's own prediction. disturbed: a part
    of its masks has another owner. lost: one of its entities has no mask. first: the chain's recent frame is its
    example, too. longer: by how many predictions a chain goes on after the second. renewed: a chain's target models are
    fitted to its recent frame as well.
    """

    step: int
    chain: bool
    entities: int
    flip: bool
    swap: bool
    video_swap: bool
    reversion: bool
    video_reversion: bool
    predicted: bool
    disturbed: bool = False
    first: bool = False
    lost: bool = False
    longer: int = 0
    renewed: bool = False


def plan_step(recipe: Recipe, step: int) -> StepPlan:
    """The plan of step 0, 1, ..."""
    how = recipe.episode
    rng = generator(recipe.seed, Stream.PLAN, step)
    chain = bool(rng.random() < how.recent)
    entities = _number(rng, how.entities if chain else how.pair_entities)
    flip, swap, video_swap, reversion = (
        bool(rng.random() < p) for p in (how.flip, how.swap, how.video_swap, how.reversion)
    )
    turn = rng.random()
    video_reversion = bool(turn < how.video_reversion)
    predicted = bool(turn < how.video_reversion + how.video_predicted)
    disturbed, first, goes_on, lost = (
        bool(rng.random() < p) for p in (how.video_disturbed, how.video_first, how.video_longer, how.video_lost)
    )
    longer = int(rng.integers(1, how.video_most, endpoint=True)) if goes_on else 0
    renewed = bool(rng.random() < how.video_renewed)
    return StepPlan(
        step, chain, entities, flip, swap, video_swap, reversion, video_reversion, predicted, disturbed, first, lost,
        longer, renewed,
    )  # fmt: skip


def _number(rng: np.random.Generator, weights: Sequence[float]) -> int:
    if not weights:
        return 1
    shares = np.asarray(weights) / np.sum(weights)
    return 1 + int(rng.choice(len(shares), p=shares))
