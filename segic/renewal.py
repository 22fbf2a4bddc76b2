"""The linear model of an example, fitted anew as its video goes on: beyond the paper, an option of a preset.

What an example does not show, such as a background that comes into view, its model can only guess at. Fitted to a later
frame as well, with the masks predicted on it, it knows; but masks that are wrong would be learnt for good. So a later
frame counts only where its masks can hardly be wrong, and the example's own tokens stay in the fit.
"""

from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from segic.backbones.fovea import Fovea
from segic.config import MatchingConfig
from segic.ownership import partition
from segic.propagation import Context, renumbered
from segic.target_model import TargetModel, fit_counted
from segic.tiles import surroundings

CERTAIN = 0.5  # the score that every entity of a later frame must have
AGREED = 0.15  # an entity's token must have this margin by the example alone, of about 0.3 that are asked (2 GOAL)
RING = 2  # tokens around the entities that are no background: there lie their thin parts that a mask has missed
TOUCHED = 0.02  # the share of a token from which on it belongs to an entity, for that


def certain(scores: Tensor, covers: Tensor) -> Tensor:
    """() bool: whether a frame's predicted masks may be learnt: all entities that are to be seen in it, and there are
    some, have a score that is high enough. scores, covers: (N,) of all entities, whose masks cover anything.
    """
    return covers.any() & ((scores >= CERTAIN) | ~covers).all()


def on_turn(predicted: int, every: int) -> bool:
    """Whether the linear models may be fitted to a frame, the `predicted`-th after the last given masks (0 for that
    with them). every: as `ModelConfig.renew_every`.
    """
    return predicted > 0 and every > 0 and predicted % every == 0


def due(predicted: int, every: int, scores: Mapping[int, float], present: Collection[int]) -> bool:
    """Whether they are to be, now that its masks are known; as `on_turn` and `certain`. present: the entities to be
    seen, of those that have scores.
    """
    if not on_turn(predicted, every):
        return False
    covers = torch.tensor([key in present for key in scores], dtype=torch.bool, device="cpu")
    return bool(certain(torch.tensor(list(scores.values()), dtype=torch.float32, device="cpu"), covers))


def renewed(
    example: Context, later: Context, grid: tuple[int, int], matching: MatchingConfig, sure: Tensor | None = None
) -> Context:
    """`example` with a linear model that is fitted to its own tokens and to those of a later frame of its video
    together, all of an owner's counting the same.

    later: a frame with predicted masks, its tokens on `grid` (h, w). Entities that the example does not know are left
    out, and what is near to them. sure: () bool, without which the model stays what it was; None: it is.
    """
    if sure is not None and sure.device.type == "cpu" and not sure:
        return example
    assert example.target_model is not None
    assert example.matching is not None
    assert example.weights is not None
    assert later.matching is not None
    assert later.weights is not None
    owner = renumbered(partition(later.weights, matching.ridge_share), later.entities, example.entities)
    touched = (later.weights.amax(0) > TOUCHED).view(grid)
    known, new = (example.matching, example.weights), (later.matching, owner, touched)
    model = fit_to_both(example.target_model, known, new, matching, later.fovea)
    if sure is not None:  # a GPU fits in any case: to ask it whether it should would be to wait for it
        before = example.linear
        model = TargetModel(
            torch.where(sure, model.weight, before.weight), torch.where(sure, model.offset, before.offset)
        )
    return example.renewing(model)


def fit_to_both(
    model: TargetModel,
    example: tuple[Tensor, Tensor],
    later: tuple[Tensor, Tensor, Tensor],
    matching: MatchingConfig,
    fovea: Fovea | None = None,
) -> TargetModel:
    """The linear model of an example's tokens and a later frame's.

    model: of the example alone. example: its tokens (T, C) and weights (n, T), what each entity covers of them. later:
    the other frame's tokens (h * w, C), their owners (h * w,) int64 by its masks, 0 for background, and (h, w) bool,
    which of them any entity touches. fovea: which of them are not the same as others, None: all.
    """
    tokens, owner, touched = later
    agreed = model.margins(tokens).gather(0, (owner - 1).clamp(min=0)[None])[0] > AGREED
    kept = torch.where(owner > 0, agreed, ~surroundings(touched, RING).flatten())
    own = F.one_hot(partition(example[1], matching.ridge_share), len(example[1]) + 1).float()
    new = F.one_hot(owner, own.shape[1]).float() * kept[:, None]
    if fovea is not None:  # one speaks for all that are the same
        tokens = tokens[fovea.seen]
        new = new.new_zeros(len(fovea), new.shape[1]).index_add_(0, fovea.source, new)
    return fit_counted(torch.cat([example[0], tokens]), torch.cat([own, new]), matching.ridge)
