"""What the published procedure does between the backbone's features and an object's logits; see `published`."""

from collections import deque
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from segic.canvas import Canvas, coverage
from segic.carrying import FAR, SCALE, TEMPERATURE, carry
from segic.decoder import Decoder
from segic.instructions import Instructions, best_points, mask_pool
from segic.model import SEGIC
from segic.ownership import claims, partition
from segic.propagation import Context
from segic.renewal import due, renewed
from segic.target_model import TargetModel, fit_target_model

QUARTER = 4  # features are upsampled to the canvas's size divided by this before the cosine
VIDEO_EPS = 1e-4  # the released video code's, in the cosine


class Steps(Protocol):
    """One clip's state. Shapes: features (1, C, h, w), pixels (1, 3, *canvas.padded)."""

    def start(self, features: Tensor, pixels: Tensor, canvas: Canvas, masks: Tensor) -> None:
        """The first frame with its masks, (N, H, W) float32 at the frame's size."""

    def step(self, features: Tensor, pixels: Tensor, canvas: Canvas) -> tuple[Tensor, list[float]]:
        """The next frame: logits (N, h4, w4) over the canvas, and scores in 0..1."""


class ReleasedSteps:
    """The released models. meta: (768,) text feature for models that take text.

    A mask so small that no token's centre lies under it has no mean feature: its visual instruction is zero here, where
    segic keeps the tokens that it touches.
    """

    def __init__(self, model: SEGIC, meta: Tensor | None):
        self._decoder = model.decoder
        self._meta = meta
        self._first = torch.empty(0)  # (N, C), frame 0's visual instructions
        self._previous: Tensor | None = None  # (N, C), the previous frame's, from frame 2 on

    def start(self, features: Tensor, pixels: Tensor, canvas: Canvas, masks: Tensor) -> None:
        self._first = _means(features, canvas.place(masks[None])[0])

    def step(self, features: Tensor, pixels: Tensor, canvas: Canvas) -> tuple[Tensor, list[float]]:
        size = (canvas.padded[0] // QUARTER, canvas.padded[1] // QUARTER)
        upsampled = F.interpolate(features, size, mode="bilinear", align_corners=False)
        maps = []
        for visual in self._first:
            cosine = F.cosine_similarity(upsampled, visual[None, :, None, None], dim=1, eps=VIDEO_EPS)
            maps.append(F.interpolate(cosine[None], canvas.padded, mode="bilinear", align_corners=False)[0, 0])
        propagated = torch.stack(maps)[None, :, None]
        shown = [self._first] if self._previous is None else [self._first, self._previous]
        n = len(self._first)
        given = Instructions(
            propagated,
            best_points(propagated[:, :, 0]),
            torch.stack(shown, 1)[None],
            None if self._meta is None else self._meta.float().expand(1, n, -1),
        )
        embedding = self._decoder.embed(features)
        logits, scores = _one_by_one(self._decoder, embedding, given, None, n)
        full = [F.interpolate(each[None, None], canvas.padded, mode="bilinear")[0, 0] for each in logits]
        self._previous = _means(features, torch.stack([(each > 0).float() for each in full]))
        return logits, scores


def _means(features: Tensor, masks: Tensor) -> Tensor:
    """(1, C, h, w) features and (N, *canvas) masks -> (N, C): the mean under each mask, divided by at least one."""
    means = []
    for mask in masks:
        under = F.interpolate(mask[None, None], features.shape[-2:], mode="bilinear", align_corners=False)[0, 0] > 0.5
        means.append((features[0] * under).sum((1, 2)) / under.sum().clamp(min=1))
    return torch.stack(means)


@dataclass(frozen=True)
class _Example:
    """tokens (hw, D) of length 1, weights (N, h, w) what each object covers of them, group (hw,) 0 background or 1..N,
    visual (N, C), present (N,) bool, masks (N, 4h, 4w) what each object covers of the logits' pixels.
    """

    tokens: Tensor
    weights: Tensor
    group: Tensor
    visual: Tensor
    present: Tensor
    masks: Tensor


class DenseSteps:
    """Models that match densely: the published order of work around their own correspondence."""

    def __init__(self, model: SEGIC):
        assert model.config.matching is not None
        self._matching = model.config.matching
        self._decoder = model.decoder
        self._given: _Example | None = None
        self._fitted: Context | None = None
        self._renew_every = model.config.renew_every
        self._steps = 0
        self._recent: deque[_Example] = deque(maxlen=max(1, model.config.recent))

    def start(self, features: Tensor, pixels: Tensor, canvas: Canvas, masks: Tensor) -> None:
        grid = (features.shape[-2], features.shape[-1])
        fine = canvas.cover(masks, (SCALE * grid[0], SCALE * grid[1]))
        self._given = self._example(features, canvas.cover(masks, grid), fine)
        self._recent.append(self._given)

    def step(self, features: Tensor, pixels: Tensor, canvas: Canvas) -> tuple[Tensor, list[float]]:
        assert self._given is not None
        grid = (features.shape[-2], features.shape[-1])
        n = len(self._given.visual)
        tokens = self._decoder.matching(features)[0]
        near = _window(grid, self._matching.radius, tokens.device)
        margins = []
        for number in range(1, n + 1):
            far = _margin(tokens, [self._given], number, self._matching.topk, None)
            shown = any(bool(example.present[number - 1]) for example in self._recent)
            recent = _margin(tokens, [*self._recent], number, self._matching.topk, near)
            maps = [far, recent if shown else torch.zeros_like(recent)]
            if self._matching.ridge:
                maps.append(self._target_model().margins(tokens)[number - 1])
            margins.append(torch.stack(maps))
        propagated = torch.stack(margins).unflatten(-1, grid)[None]
        points = best_points(propagated.amax(2))
        embedding = self._decoder.embed(features)
        detail = self._decoder.frame_detail(pixels, grid)
        given = Instructions(propagated, points, self._instances(), None, self._carried(tokens, grid))
        logits, scores = _one_by_one(self._decoder, embedding, given, detail, n)
        mine = claims(logits).float()
        self._recent.append(self._example(features, coverage(mine, grid), mine))
        self._steps += 1
        last = _context(self._recent[-1])
        if self._fitted is not None and due(self._steps, self._renew_every, dict(enumerate(scores)), last.shown):
            self._fitted = renewed(self._fitted, last, grid, self._matching)
        return logits, scores

    def _example(self, features: Tensor, weights: Tensor, masks: Tensor) -> _Example:
        """weights, masks: what each object covers of the tokens and of the logits' pixels."""
        tokens = self._decoder.matching(features)[0]
        visual, present = mask_pool(features, weights[None])[0], weights.flatten(1).amax(1) > 0
        return _Example(tokens, weights, partition(weights), visual, present, masks)

    def _carried(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor | None:
        """(1, N, 4h, 4w): the last frame's masks moved by the mean displacement of what its tokens are most like."""
        if not self._matching.carry:
            return None
        last = self._recent[-1]
        near = _window(grid, self._matching.carry, tokens.device)
        index = torch.arange(len(tokens), device=tokens.device)
        place = torch.stack([index % grid[1], torch.div(index, grid[1], rounding_mode="floor")]).float()
        likeness = tokens @ last.tokens.T - FAR * (place[:, :, None] - place[:, None]).square().sum(0)
        share = (likeness / TEMPERATURE).masked_fill(~near, -torch.inf).softmax(1)
        flow = (place @ share.T - place).unflatten(1, grid)
        return carry(last.masks, flow)[None]

    def _target_model(self) -> TargetModel:
        """The given example's, fitted first when it is asked for."""
        assert self._given is not None
        if self._fitted is None:
            group = partition(self._given.weights, self._matching.ridge_share)
            fitted = fit_target_model(self._given.tokens, group, len(self._given.visual), self._matching.ridge)
            self._fitted = replace(_context(self._given), target_model=fitted)
        return self._fitted.linear

    def _instances(self) -> Tensor:
        """(1, N, R, C): the given example's feature, and the last frame's where the object was seen in it."""
        assert self._given is not None
        last = self._recent[-1]
        if last is self._given:
            return self._given.visual[None, :, None]
        seen = torch.where(last.present[:, None], last.visual, self._given.visual)
        return torch.stack([self._given.visual, seen], 1)[None]


def _context(example: _Example) -> Context:
    """The same as segic has it, for the target model. Objects are numbered from 0."""
    entities = tuple(range(len(example.visual)))
    weights = example.weights.flatten(1)
    return Context(entities, example.visual, example.present, example.tokens, example.group, weights)


def _window(grid: tuple[int, int], radius: int, device: torch.device) -> Tensor:
    """(hw, hw) bool: pairs of tokens at most `radius` rows and columns apart."""
    rows = torch.arange(grid[0], device=device).repeat_interleave(grid[1])
    columns = torch.arange(grid[1], device=device).repeat(grid[0])
    return ((rows[:, None] - rows).abs() <= radius) & ((columns[:, None] - columns).abs() <= radius)


def _margin(tokens: Tensor, examples: list[_Example], number: int, topk: int, near: Tensor | None) -> Tensor:
    """(hw,): the mean of the best cosines to the object's tokens less that to all others'. The whole similarity is
    formed; outside `near` it is zero.
    """
    parts = [tokens @ example.tokens.T for example in examples]
    if near is not None:
        parts = [part.masked_fill(~near, 0) for part in parts]
    similarity = torch.cat(parts, 1)
    mine = torch.cat([example.group for example in examples]) == number
    return _mean_of_best(similarity[:, mine], topk) - _mean_of_best(similarity[:, ~mine], topk)


def _mean_of_best(similarity: Tensor, topk: int) -> Tensor:
    """(T, E) -> (T,), zero where there is nothing to compare with."""
    if similarity.shape[1] == 0:
        return similarity.new_zeros(similarity.shape[0])
    return similarity.topk(min(topk, similarity.shape[1]), dim=1).values.mean(1)


def _one_by_one(
    decoder: Decoder, embedding: Tensor, given: Instructions, detail: Tensor | None, n: int
) -> tuple[Tensor, list[float]]:
    """One decoder call an object, with all the others as its negatives: logits (N, h4, w4) and scores in 0..1."""
    logits, scores = [], []
    for index in range(n):
        chosen = slice(index, index + 1)
        out = decoder(embedding, given, detail, entities=n, cross_points=True, chosen=chosen)
        logits.append(out.logits[0, 0])
        scores.append(float(out.scores[0, 0].clamp(0, 1)))
    return torch.stack(logits), scores
