"""The loss of a group of samples: predictions in a row, each from examples that earlier ones may have made.

Pairs (the paper): the target from the example; then, with context reversion, the first image from the target with the
prediction as its mask; both losses averaged. Chains of three frames: the recent frame from the example; then the target
from the example and the recent frame, or the first frame from the recent one (reversion). A video's first step is one
prediction: the target from a recent frame that is the example as well. Longer chains go on back and forth between the
recent frame and the target, each from the example and the prediction before: so errors that are handed on, and grow,
are seen.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segic.config import ModelConfig
from segic.decoder import Decoder, Output
from segic.training.disturbance import disturb, lose
from segic.training.episodes import as_example, predict, prepare
from segic.training.groups import Group
from segic.training.losses import mask_loss, point_values, sample_points, soft_iou
from segic.training.plan import StepPlan
from segic.training.recipe import Loss


@dataclass(frozen=True)
class Terms:
    """The loss of a group and what it is made of: means over predictions and masks. Only `loss` carries a gradient.

    figures: (5,) float32: loss, cross-entropy, dice, IoU of the first and of the second prediction that is trained (the
    first's again where there was no second). On the device, so that nothing waits for them.
    """

    loss: Tensor
    figures: Tensor


FIGURES = ("loss", "ce", "dice", "iou", "iou2")


def group_loss(
    decoder: Decoder, config: ModelConfig, group: Group, plan: StepPlan, loss: Loss, *, crossed_points: bool,
    generator: torch.Generator,
) -> Terms:  # fmt: skip
    """The loss of one group. generator: where the loss's points are drawn, on the group's device."""
    example, middle, last = _roles(group, plan)
    chain = middle is not None
    first_target = middle if middle is not None else last
    reverse = plan.video_reversion if chain else plan.reversion
    again = example if reverse else last
    beginning = middle if plan.first else None
    both = (chain or reverse) and beginning is None
    given = example if beginning is None else beginning
    # Nobody can be found who is not shown.
    masks = group.batch.masks * (group.batch.masks[:, given].flatten(2).amax(-1) > 0)[:, None, :, None, None]
    frames = prepare(decoder, group.batch, tuple(dict.fromkeys((first_target, again))) if both else (last,))

    def ask(target: int, *shown: tuple[int, Tensor], trained: bool = True) -> Output:
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            return predict(
                decoder, config, frames, target, *shown, meta=group.meta, negatives=group.negatives,
                crossed_points=crossed_points, renewed=plan.renewed,
            )  # fmt: skip

    def score(out: Output, target: int) -> "_Scores":
        return _score(out, masks[:, target], loss, generator)

    shown = given, masks[:, given]
    if beginning is not None:
        only = score(ask(last, shown, shown), last)
        return _terms(only, only)
    longer = plan.longer if chain and not reverse else 0
    out = ask(first_target, shown, trained=not longer)
    scores = [] if longer else [score(out, first_target)]
    if reverse:
        scores.append(score(ask(example, (first_target, as_example(config, frames, out.logits))), example))
    elif middle is not None:
        known = as_example(config, frames, out.logits) if plan.predicted else masks[:, middle]
        if plan.disturbed:
            known = disturb(known, generator)
        if plan.lost:
            known = lose(known, generator)
        here, there = middle, last
        for number in range(1, longer + 2):
            if number > 1:
                known = as_example(config, frames, out.logits)
            trained = number >= longer  # the last two
            out = ask(there, shown, (here, known), trained=trained)
            if trained:
                scores.append(score(out, there))
            here, there = there, here
    return _terms(scores[0], scores[-1])


def _terms(one: "_Scores", two: "_Scores") -> Terms:
    loss = (one.loss + two.loss) / 2
    parts = [loss, (one.ce + two.ce) / 2, (one.dice + two.dice) / 2, one.iou, two.iou]
    return Terms(loss, torch.stack([part.detach().float() for part in parts]))


def _roles(group: Group, plan: StepPlan) -> tuple[int, int | None, int]:
    """(example, recent frame or None, target) among a group's frames."""
    last = group.batch.masks.shape[1] - 1
    if group.has_recent:
        return (0, 2, 1) if plan.video_swap else (0, 1, 2)
    return (last, None, 0) if plan.swap else (0, None, last)


@dataclass(frozen=True)
class _Scores:
    loss: Tensor
    ce: Tensor
    dice: Tensor
    iou: Tensor


def _score(out: Output, target: Tensor, how: Loss, generator: torch.Generator) -> _Scores:
    """out: logits (B, N, 4h, 4w). target: (B, N, H, W) in 0..1, of any resolution."""
    logits, wanted = out.logits.flatten(0, 1).float(), target.flatten(0, 1)
    if how.points:
        with torch.no_grad():
            points = sample_points(logits, how.points, how.oversampling, how.uncertain, generator)
            values = point_values(wanted, points)
        ce, dice = mask_loss(point_values(logits, points), values)
    else:
        ce, dice = mask_loss(logits.flatten(1), _resized(wanted, logits).flatten(1))
    with torch.no_grad():
        iou = soft_iou(logits.flatten(1), _resized(wanted, logits).flatten(1))
    total = how.ce * ce.mean() + how.dice * dice.mean()
    if how.score:
        total = total + how.score * F.mse_loss(out.scores.flatten().float(), iou)
    return _Scores(total, ce.mean(), dice.mean(), iou.mean())


def _resized(masks: Tensor, like: Tensor) -> Tensor:
    if masks.shape[-2:] == like.shape[-2:]:
        return masks
    return F.interpolate(masks[None], like.shape[-2:], mode="area")[0]
