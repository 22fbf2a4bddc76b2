"""What the decoder is trained on: chains of in-context predictions over one scene's frames.

An episode is a target with its examples. In video, examples are the first frame and frames that the model itself has
segmented; so a chain predicts a recent frame from the example, then the target from the example and that prediction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from segic.carrying import SCALE, carry, token_flow
from segic.config import ModelConfig
from segic.correspondence import entity_margins, mean_similarity, upsampled_norm, window
from segic.decoder import Decoder, Output
from segic.instructions import Instructions, best_points, mask_pool
from segic.model import MAP_STRIDE, token_centres
from segic.ownership import claims, partition
from segic.renewal import TOUCHED, fit_to_both
from segic.target_model import fit_target_model

EPS = 1e-8  # of the paper's cosine, as in `SEGIC`


@dataclass(frozen=True)
class Batch:
    """B scenes of F frames with the same number N of entities.

    features (B, F, C, h, w) float32; pixels (B, F, 3, 8h, 8w) float32, 0..255; masks (B, F, N, 4h, 4w) float32, the
    share of each pixel of the logits that the entity covers, or (B, F, N, *canvas) where `canvas` is given.
    canvas: (height, width) in pixels, for the paper's models; None for dense matching, which needs none.
    """

    features: Tensor
    pixels: Tensor
    masks: Tensor
    canvas: tuple[int, int] | None = None


@dataclass(frozen=True)
class Frames:
    """A batch's frames after what runs once a frame.

    features (B, F, C, h, w), matching (B, F, hw, D): of all frames. embedding (B, 256, h, w) and detail (B, D, 4h, 4w)
    or None, by frame: of those that are targets. The paper's models have norm (B, H', W'), by frame, for matching.
    """

    features: Tensor
    matching: Tensor | None
    embedding: Mapping[int, Tensor]
    detail: Mapping[int, Tensor | None]
    norm: Mapping[int, Tensor] = field(default_factory=dict)
    canvas: tuple[int, int] | None = None

    @property
    def grid(self) -> tuple[int, int]:
        return self.features.shape[-2], self.features.shape[-1]


def prepare(decoder: Decoder, batch: Batch, targets: Sequence[int]) -> Frames:
    """Embeds the frames that something will be predicted on."""
    grid = (batch.features.shape[-2], batch.features.shape[-1])
    embedding = {t: decoder.embed(batch.features[:, t]) for t in targets}
    detail = {t: decoder.frame_detail(batch.pixels[:, t], grid) for t in targets}
    if batch.canvas is None:
        with torch.no_grad():
            matching = decoder.matching(batch.features.flatten(0, 1)).unflatten(0, batch.features.shape[:2])
        return Frames(batch.features, matching, embedding, detail)
    size = (batch.canvas[0] // MAP_STRIDE, batch.canvas[1] // MAP_STRIDE)
    with torch.no_grad():
        norm = {t: upsampled_norm(batch.features[:, t], size) for t in targets}
    return Frames(batch.features, None, embedding, detail, norm, batch.canvas)


@torch.no_grad()
def margins(frames: Frames, config: ModelConfig, target: int, example: int, weights: Tensor, local: bool) -> Tensor:
    """(B, N, h, w) dense margins of the target frame against one example frame with weights (B, N, h, w)."""
    assert config.matching is not None
    assert frames.matching is not None
    grid, n = frames.grid, weights.shape[1]
    near = window(grid, config.matching.radius, weights.device) if local else None
    out = []
    for b in range(weights.shape[0]):
        similarity = frames.matching[b, target] @ frames.matching[b, example].T
        if near is not None:
            similarity = similarity.masked_fill(~near, 0)
        out.append(entity_margins(similarity, partition(weights[b]), n, config.matching.topk))
    return torch.stack(out).unflatten(-1, grid)


@torch.no_grad()
def target_margins(
    frames: Frames,
    config: ModelConfig,
    target: int,
    example: int,
    weights: Tensor,
    later: tuple[int, Tensor] | None = None,
) -> Tensor:
    """(B, N, h, w) margins of the target frame by target models of the example frame with weights (B, N, h, w). later:
    a frame and its weights that the models are fitted to as well (`segic.renewal`).
    """
    assert config.matching is not None
    assert frames.matching is not None
    ridge, least = config.matching.ridge, config.matching.ridge_share
    out = []
    # A covariance in lower precision would not be positive definite.
    with torch.autocast(weights.device.type, enabled=False):
        for b in range(weights.shape[0]):
            tokens, covered = frames.matching[b, example], weights[b].flatten(1)
            model = fit_target_model(tokens, partition(covered, least), len(covered), ridge)
            if later is not None:
                index, theirs = later
                touched = theirs[b].amax(0) > TOUCHED
                new = frames.matching[b, index], partition(theirs[b], least), touched
                model = fit_to_both(model, (tokens, covered), new, config.matching)
            out.append(model.margins(frames.matching[b, target]))
    return torch.stack(out).unflatten(-1, frames.grid)


@torch.no_grad()
def carried_masks(frames: Frames, radius: int, target: int, recent: tuple[int, Tensor] | None, like: Tensor) -> Tensor:
    """(B, N, 4h, 4w) the recent frame's masks, moved along with its tokens; zeros without one. like: (B, N, h, w)."""
    size = (SCALE * frames.grid[0], SCALE * frames.grid[1])
    if recent is None:
        return like.new_zeros(*like.shape[:2], *size)
    assert frames.matching is not None
    index, masks = recent
    known = F.interpolate(masks.detach(), size, mode="area")
    pairs = zip(known, frames.matching[:, target], frames.matching[:, index], strict=True)
    return torch.stack([carry(one, token_flow(to, was, frames.grid, radius)) for one, to, was in pairs])


def predict(
    decoder: Decoder,
    config: ModelConfig,
    frames: Frames,
    target: int,
    example: tuple[int, Tensor],
    recent: tuple[int, Tensor] | None = None,
    *,
    meta: Tensor | None = None,
    negatives: bool = True,
    crossed_points: bool = True,
    renewed: bool = False,
) -> Output:
    """Masks of all N entities on frame `target`. example, recent: a frame and its masks (B, N, H, W) in 0..1.

    meta: (B, N, 768) text features. negatives: the entities are each other's negatives. crossed_points: they enter each
    other's lists with their points as well. renewed: target models are fitted to the recent frame too.
    """
    if config.matching is not None:
        given = _instruct_dense(config, frames, target, example, recent, renewed)
    else:
        given = _instruct_by_mean(frames, target, example, recent)
    given = replace(given, meta=meta)
    embedding, detail = frames.embedding[target], frames.detail[target]
    n = example[1].shape[1]
    if negatives or n == 1:
        return decoder(embedding, given, detail, entities=n, cross_points=crossed_points)
    alone = Instructions(*(_each_alone(getattr(given, part.name)) for part in fields(given)))
    embedding = embedding.repeat_interleave(n, 0)
    detail = None if detail is None else detail.repeat_interleave(n, 0)
    out = decoder(embedding, alone, detail, entities=1, cross_points=False)
    return Output(out.logits[:, 0].unflatten(0, (-1, n)), out.scores[:, 0].unflatten(0, (-1, n)))


def as_example(config: ModelConfig, frames: Frames, logits: Tensor) -> Tensor:
    """A prediction's logits (B, N, 4h, 4w) as the masks of an example for `predict`, 0 or 1, without a gradient.

    As `SEGIC.remember`: with dense matching, a pixel is its best entity's only.
    """
    logits = logits.detach()
    if config.matching is None:
        assert frames.canvas is not None
        logits = F.interpolate(logits.float(), frames.canvas, mode="bilinear", align_corners=False)
        return (logits > 0).float()
    return claims(logits).float()


def _again(example: tuple[int, Tensor], recent: tuple[int, Tensor]) -> bool:
    """Whether the recent frame is the example, as for a video's second frame: it then adds no second instance token."""
    return recent[0] == example[0]


def _instance_tokens(visual: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """(B, N, R, C) instance tokens of R frames, each (B, N, C): an entity that a frame does not show, by its weights
    (B, N, h, w), has the example's again, as in `SEGIC.predict`.
    """
    shown = [(w.flatten(2).amax(-1) > 0)[..., None] for w in weights[: len(visual)]]
    return torch.stack([torch.where(s, v, visual[0]) for s, v in zip(shown, visual, strict=True)], 2)


def _each_alone(instruction: Tensor | None) -> Tensor | None:
    """(B, N, ...) -> (B * N, 1, ...): every entity as an image of its own, with nobody beside it."""
    return None if instruction is None else instruction.flatten(0, 1)[:, None]


@torch.no_grad()
def _instruct_dense(
    config: ModelConfig,
    frames: Frames,
    target: int,
    example: tuple[int, Tensor],
    recent: tuple[int, Tensor] | None,
    renewed: bool,
) -> Instructions:
    shown: Sequence[tuple[int, Tensor]] = [example] if recent is None else [example, recent]
    weights = [F.interpolate(masks.detach(), frames.grid, mode="area") for _, masks in shown]
    pooled = [mask_pool(frames.features[:, i], w) for (i, _), w in zip(shown, weights, strict=True)]
    visual = _instance_tokens(pooled[:1] if recent is not None and _again(example, recent) else pooled, weights)
    maps = [margins(frames, config, target, example[0], weights[0], local=False)]
    if recent is None:
        maps.append(torch.zeros_like(maps[0]))
    else:  # as `segic.propagation.dense_maps`, which says why
        absent = weights[1].flatten(2).amax(-1)[..., None, None] == 0
        maps.append(margins(frames, config, target, recent[0], weights[1], local=True).masked_fill(absent, 0))
    assert config.matching is not None
    carried = carried_masks(frames, config.matching.carry, target, recent, maps[0]) if config.matching.carry else None
    if config.matching.ridge:
        later = (recent[0], weights[1]) if renewed and recent is not None and not _again(example, recent) else None
        maps.append(target_margins(frames, config, target, example[0], weights[0], later))
    propagated = torch.stack(maps, dim=2)
    return Instructions(propagated, best_points(propagated.amax(2)), visual, None, carried)


@torch.no_grad()
def _instruct_by_mean(
    frames: Frames, target: int, example: tuple[int, Tensor], recent: tuple[int, Tensor] | None
) -> Instructions:
    """As `SEGIC.predict` for the paper's models: only the first example makes the propagated mask and the point."""
    assert frames.canvas is not None
    shown = [example] if recent is None or _again(example, recent) else [example, recent]
    # Lower precision would round similarities that differ in their third digit.
    with torch.autocast(frames.features.device.type, enabled=False):
        visual, weights = [], []
        for index, masks in shown:
            weights.append(torch.stack([token_centres(one.float(), frames.grid) for one in masks.detach()]))
            visual.append(mask_pool(frames.features[:, index], weights[-1]))
        maps = mean_similarity(frames.features[:, target], frames.norm[target], visual[0], EPS)
        full = F.interpolate(maps, frames.canvas, mode="bilinear", align_corners=False)
        points = best_points(full)
    return Instructions(full[:, :, None], points, _instance_tokens(visual, weights), None)
