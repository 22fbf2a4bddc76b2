"""SEGIC: the four stages of figure 2, wired. One path for images, several examples, and video."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from segic.backbones.base import Backbone
from segic.canvas import Canvas, coverage
from segic.config import MatchingConfig, ModelConfig
from segic.correspondence import entity_margins, mean_similarity, unit, upsampled_norm, window
from segic.decoder import Decoder
from segic.errors import UsageError
from segic.instructions import Instructions, best_points, mask_pool
from segic.target_model import TargetModel, fit_target_model
from segic.tiles import near_margins

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segic.images import Example, Prompt, Segmentation
    from segic.text import TextEncoder

MAP_STRIDE = 4  # the paper's propagated mask is computed at a quarter of the canvas's resolution
ENTITIES_AT_ONCE = 16  # decoded together; more go in chunks of this, so that memory does not grow with their number
PAIRS_AT_ONCE = 2**25  # of tokens that are compared at once; large frames go in chunks of this


@dataclass(frozen=True)
class Encoded:
    """Everything that is computed once for an image, whatever is asked about it later.

    features:  (1, C, h, w) backbone features f.
    embedding: (1, 256, h, w) the decoder's view of them.
    matching:  (h * w, C) features of length 1 in the backbone's precision, for dense matching; None for the paper's.
    norm:      (1, H', W') norm of the upsampled features, for the paper's models; None with dense matching.
    detail:    (1, D, 4h, 4w) for models with a detail branch, else None.
    canvas:    where the frame lies on the backbone's input.
    """

    features: Tensor
    embedding: Tensor
    matching: Tensor | None
    norm: Tensor | None
    detail: Tensor | None
    canvas: Canvas

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) in tokens."""
        return self.features.shape[-2], self.features.shape[-1]


@dataclass(frozen=True, eq=False)
class Context:
    """One in-context example: an image's features and the masks of the entities it shows. Equal only to itself.

    entities: the caller's keys of all masks given, empty ones too.
    visual:   (n, C) float32 visual instructions (eq. 3) in that order, zeros for an empty mask.
    present:  (n,) whether the entity's mask covers anything.
    matching: (h * w, C) and group (h * w,) int64 (0 background, else 1 + position in `entities`) for dense matching.
    target_model: of given examples, for models that use one, else None.
    """

    entities: tuple[int, ...]
    visual: Tensor
    present: tuple[bool, ...]
    matching: Tensor | None
    group: Tensor | None
    target_model: TargetModel | None = None


@dataclass(frozen=True)
class Prediction:
    """Masks of N entities on one target.

    logits:     (N, h4, w4) float32 over the canvas. scores: (N,), in 0..1 for models that were trained to say so.
    propagated: (N, h', w') float32, the propagated mask a over the canvas.
    """

    logits: Tensor
    scores: Tensor
    propagated: Tensor


def partition(weights: Tensor) -> Tensor:
    """(N, h, w) coverage -> (hw,) int64: each token's owner, 0 for background, 1..N.

    An entity too small to own any token by majority gets the one that it covers most.
    """
    flat = weights.flatten(1)
    stacked = torch.cat([1 - flat.sum(0, keepdim=True), flat])
    owner = stacked.argmax(0)
    for index in range(flat.shape[0]):
        if flat[index].max() > 0 and not (owner == index + 1).any():
            owner[flat[index].argmax()] = index + 1
    return owner


def owners(logits: Tensor) -> Tensor:
    """(N, H, W) logits -> (H, W) int64: per pixel the object of the largest logit above zero, 1..N, else 0."""
    best = logits.max(0)
    return torch.where(best.values > 0, best.indices + 1, 0)


def token_centres(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """(N, H, W) masks on the canvas -> (N, *grid) 0 or 1: the tokens whose centre is covered, as released.

    Small masks can miss every centre (a 6 px square survives one time in nine); those keep their coverage instead.
    """
    weights = (F.interpolate(masks[None], grid, mode="bilinear", align_corners=False)[0] > 0.5).float()
    for index in (weights.flatten(1).amax(1) == 0).nonzero().flatten().tolist():
        weights[index] = coverage(masks[index : index + 1], grid)[0]
    return weights


class SEGIC:
    """A frozen backbone and a trained decoder. Holds no state of any image or video.

    The methods are safe to call from one thread at a time. Everything runs without gradients; training uses the stages
    themselves (`segic.training`).
    """

    def __init__(
        self,
        config: ModelConfig,
        backbone: Backbone,
        decoder: Decoder,
        name: str = "",
        files: Mapping[str, Path] | None = None,
    ):
        """The decoder is put into evaluation mode and frozen. files: what the weights were read from, by part
        ("backbone", "decoder"), for reports.
        """
        self.config = config
        self.backbone = backbone
        self.decoder = decoder.eval().requires_grad_(False)
        self.name = name
        self.files = dict(files or {})

    @property
    def device(self) -> torch.device:
        return self.decoder.inst_type_embed.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The decoder's precision; the backbone may run in a lower one."""
        return self.decoder.inst_type_embed.weight.dtype

    @property
    def precision(self) -> torch.dtype:
        """The backbone's, which decides speed; see `dtype` for the decoder's."""
        return self.backbone.dtype

    def canvas(self, frame: tuple[int, int]) -> Canvas:
        """How a frame of (height, width) pixels is put before the backbone."""
        if self.config.canvas == "square":
            return Canvas.square(frame, self.config.size)
        return Canvas.own_aspect(frame, self.config.size, self.backbone.stride)

    @torch.no_grad()
    def encode(self, images: Tensor) -> list[Encoded]:
        """The backbone, once an image. images: (B, 3, H, W) uint8 RGB, any device. Returns one Encoded an image."""
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise UsageError(
                f"images are {images.dtype} of shape {tuple(images.shape)}; expected uint8 of shape (B, 3, H, W), RGB"
            )
        canvas = self.canvas((images.shape[-2], images.shape[-1]))
        pixels = canvas.place(images.to(self.device))
        return self.encode_features(self.backbone(pixels, canvas.valid), canvas, pixels)

    @torch.no_grad()
    def encode_features(self, features: Tensor, canvas: Canvas, pixels: Tensor | None = None) -> list[Encoded]:
        """As `encode`, from features (B, C, h, w) computed elsewhere. pixels: (B, 3, *canvas.padded), 0..255."""
        precision = features.dtype  # of the backbone; matching products are the largest after it and stay in it
        features = features.to(self.dtype)
        embedding = self.decoder.embed(features)
        grid = (features.shape[-2], features.shape[-1])
        detail = None if pixels is None else self.decoder.frame_detail(pixels, grid)
        dense = self.config.matching is not None
        size = (canvas.padded[0] // MAP_STRIDE, canvas.padded[1] // MAP_STRIDE)
        norm = None if dense else upsampled_norm(features, size)

        def one(t: Tensor | None, i: int) -> Tensor | None:
            return None if t is None else t[i : i + 1]

        return [
            Encoded(
                features[i : i + 1],
                embedding[i : i + 1],
                # Each by itself: a view would keep the whole batch.
                unit(features[i].float()).to(precision) if dense else None,
                one(norm, i),
                one(detail, i),
                canvas,
            )
            for i in range(features.shape[0])
        ]

    @torch.no_grad()
    def context(self, image: Encoded, masks: Tensor, entities: Sequence[int]) -> Context:
        """An example from an encoded image and its masks (N, H, W), bool or 0..1, at the frame's size or any other
        resolution of the whole frame; entities: N keys of the caller's.
        """
        masks = masks.to(self.device).float()
        if self.config.matching is not None:
            return self._with_target_model(self._context(image, image.canvas.cover(masks, image.grid), entities))
        source = (masks.shape[-2], masks.shape[-1])
        placed = Canvas(source, image.canvas.picture, image.canvas.padded).place(masks[None])[0]
        weights = token_centres(placed, image.grid)
        lost = weights.flatten(1).amax(1) == 0
        if lost.any():  # making a large frame smaller steps over single pixels
            weights[lost] = image.canvas.cover(masks[lost], image.grid)
        return self._context(image, weights, entities)

    @torch.no_grad()
    def remember(self, image: Encoded, logits: Tensor, entities: Sequence[int]) -> Context:
        """A frame with its own prediction, logits (N, h4, w4) over the canvas, as an example for the frames to come."""
        if self.config.matching is None:
            full = F.interpolate(logits[None], image.canvas.padded, mode="bilinear", align_corners=False)[0]
            return self._context(image, token_centres((full > 0).float(), image.grid), entities)
        best = logits.amax(0, keepdim=True)
        return self._context(image, coverage((logits == best) & (logits > 0), image.grid), entities)

    def _context(self, image: Encoded, weights: Tensor, entities: Sequence[int]) -> Context:
        """weights: (N, h, w) what each entity covers of the tokens."""
        visual = mask_pool(image.features, weights[None])[0]
        present = tuple((weights.flatten(1).amax(1) > 0).tolist())
        group = partition(weights) if image.matching is not None else None
        return Context(tuple(entities), visual, present, image.matching, group)

    def _with_target_model(self, context: Context) -> Context:
        matching = self.config.matching
        if matching is None or not matching.ridge:
            return context
        assert context.matching is not None
        assert context.group is not None
        fitted = fit_target_model(context.matching, context.group, len(context.entities), matching.ridge)
        return replace(context, target_model=fitted)

    @torch.no_grad()
    def predict(
        self,
        target: Encoded,
        given: Sequence[Context],
        recent: Sequence[Context] = (),
        *,
        entities: Sequence[int],
        meta: Tensor | None = None,
        video: bool = False,
    ) -> Prediction:
        """Masks of `entities` on the target.

        given: in-context examples; every entity is present in at least one of them. recent: frames of the same video
        with masks that were predicted on them, or given; one of `given` again adds no second instance token.
        meta: (N, 768) or (768,) text features for models that take text. video: entities' points enter each other's
        token lists, as released for video.

        Raises UsageError for an entity without an example, and without text features where the model takes them.
        """
        n = len(entities)
        if meta is None and self.config.instructions.meta == "text":
            raise UsageError(
                f"the model {self.name or self.config.backbone} takes text; give it text features as `meta`"
            )
        if meta is not None and meta.ndim == 1:
            meta = meta.expand(n, -1)
        propagated = self._propagate(target, given, recent, entities)
        best = propagated.amax(2)
        visual = self._visual(given, recent, entities)
        points = best_points(best)
        full = Instructions(propagated, points, visual, None if meta is None else meta[None].to(self.device))
        logits, scores = [], []
        for start in range(0, n, ENTITIES_AT_ONCE):
            out = self.decoder(
                target.embedding, full, target.detail, entities=n, cross_points=video,
                chosen=slice(start, min(n, start + ENTITIES_AT_ONCE)),
            )  # fmt: skip
            logits.append(out.logits[0])
            scores.append(out.scores[0])
        return Prediction(torch.cat(logits).float(), torch.cat(scores).float(), best[0].float())

    def prepare(self, examples: "Sequence[Example]", text: "TextEncoder | None" = None) -> "Prompt":
        """In-context examples, encoded once for any number of targets; see `segic.images.prepare_examples`."""
        from segic.images import prepare_examples

        return prepare_examples(self, examples, text)

    def segment(self, image: "NDArray[np.uint8]", examples: "Sequence[Example] | Prompt") -> "Segmentation":
        """Finds on `image`, (H, W, 3) uint8 RGB, what the examples show; see `segic.images.Segmentation`."""
        from segic.images import Prompt, segment_encoded, to_batch

        prompt = examples if isinstance(examples, Prompt) else self.prepare(examples)
        return segment_encoded(self, self.encode(to_batch(image))[0], prompt)

    def upsample(self, logits: Tensor, canvas: Canvas) -> Tensor:
        """(N, h4, w4) logits -> (N, H, W) at the frame's own size, float32."""
        return canvas.restore(logits, through_padded=self.config.canvas == "square")

    def _visual(self, given: Sequence[Context], recent: Sequence[Context], entities: Sequence[int]) -> Tensor:
        """(1, N, R, C): R instance tokens an entity: its examples', and the last recent frame's unless that is one of
        the examples. Shorter lists repeat their first.
        """
        lists: list[list[Tensor]] = [[] for _ in entities]
        for context in [*given, *(c for c in recent[-1:] if c not in given)]:
            where = {key: i for i, key in enumerate(context.entities)}
            for row, key in zip(lists, entities, strict=True):
                if key in where and context.present[where[key]]:
                    row.append(context.visual[where[key]])
        longest = max(len(row) for row in lists)
        missing = next((key for row, key in zip(lists, entities, strict=True) if not row), None)
        if missing is not None:
            raise UsageError(
                f"entity {missing} has no example with a mask that is not empty; give it one or leave it out"
            )
        return torch.stack([torch.stack(row + [row[0]] * (longest - len(row))) for row in lists])[None]

    def _propagate(
        self, target: Encoded, given: Sequence[Context], recent: Sequence[Context], entities: Sequence[int]
    ) -> Tensor:
        """Eq. 2: the propagated masks, (1, N, P, H, W)."""
        if self.config.matching is not None:
            return self._margins(target, given, recent, entities)
        assert target.norm is not None
        first = self._visual(given, (), entities)[:, :, 0]
        eps = 1e-8
        similarity = mean_similarity(target.features, target.norm, first, eps)
        return F.interpolate(similarity, target.canvas.padded, mode="bilinear", align_corners=False)[:, :, None]

    def _margins(
        self, target: Encoded, given: Sequence[Context], recent: Sequence[Context], entities: Sequence[int]
    ) -> Tensor:
        """(1, N, P, h, w): dense margins against the examples and against recent frames (zero without any), and those
        of the examples' target models where the model has them.
        """
        matching = self.config.matching
        assert matching is not None
        assert target.matching is not None
        from_given = margins_to(target.matching, given, entities, matching)
        if recent:
            from_recent = margins_to(target.matching, recent, entities, matching, target.grid)
        else:
            from_recent = torch.zeros_like(from_given)
        maps = [from_given, from_recent]
        if matching.ridge:
            maps.append(target_margins(target.matching, given, entities))
        return torch.stack(maps, 1).unflatten(-1, target.grid)[None]


def target_margins(target: Tensor, given: Sequence[Context], entities: Sequence[int]) -> Tensor:
    """Margins of target tokens (T, C) by the examples' target models -> (N, T) float32: an entity's mean over the
    examples that show it, 0 without any.
    """
    total = torch.zeros(len(entities), len(target), device=target.device)
    shown = torch.zeros(len(entities), 1, device=target.device)
    for context in given:
        assert context.target_model is not None
        margins = context.target_model.margins(target)
        for own, key in enumerate(context.entities):
            if context.present[own] and key in entities:
                total[entities.index(key)] += margins[own]
                shown[entities.index(key)] += 1
    return total / shown.clamp(min=1)


def margins_to(
    target: Tensor,
    contexts: Sequence[Context],
    entities: Sequence[int],
    matching: MatchingConfig,
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """`entity_margins` of target tokens (T, C) against the tokens of several examples together -> (N, T) float32.

    grid: (h, w) of frames of one video, whose tokens match those within the radius only.
    """
    position = {key: i + 1 for i, key in enumerate(entities)}
    groups, tokens = [], []
    for context in contexts:
        assert context.matching is not None
        assert context.group is not None
        lookup = torch.tensor([0, *(position.get(key, 0) for key in context.entities)], device=target.device)
        groups.append(lookup[context.group])
        tokens.append(context.matching)
    group = torch.cat(groups)
    if grid is not None and target.device.type == "cpu":  # a GPU would rather form all pairs than wait for many parts
        return near_margins(target, tokens, group, grid, matching.radius, len(entities), matching.topk)
    group, order = group.sort()  # sorted, each entity's columns are a slice of the products
    others = torch.cat(tokens)[order]
    far = None
    if grid is not None:
        far = ~window(grid, matching.radius, target.device).repeat(1, len(tokens))[:, order]
    rows = max(1, PAIRS_AT_ONCE // len(group))
    out = []
    for start in range(0, len(target), rows):
        part = slice(start, start + rows)
        similarity = (target[part] @ others.T).float()
        if far is not None:
            similarity.masked_fill_(far[part], 0)
        out.append(entity_margins(similarity, group, len(entities), matching.topk))
    return torch.cat(out, 1)
