"""SEGIC: the four stages of figure 2, wired. One path for images, several examples, and video."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from segic.backbones.base import Backbone
from segic.backbones.fovea import ROWS, Fovea, fovea
from segic.branches import side_by_side
from segic.canvas import Canvas, coverage
from segic.carrying import SCALE
from segic.config import ModelConfig, check_size
from segic.correspondence import mean_similarity, upsampled_norm
from segic.decoder import Decoder
from segic.errors import UsageError
from segic.exposure import brightened
from segic.instructions import Instructions, best_points, mask_pool
from segic.numbers import numbers
from segic.ownership import claims, partition
from segic.precision import in_own_precision
from segic.propagation import Context, by_entity, carried_masks, dense_maps
from segic.renewal import certain, renewed
from segic.target_model import fit_target_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segic.images import Example, Prompt, Segmentation
    from segic.text import TextEncoder

MASKS_AT_ONCE = 16  # in full resolution as floats
MAP_STRIDE = 4  # the paper's propagated mask is computed at a quarter of the canvas's resolution
FOVEAE = 20  # about so many numbers of tokens can foveated frames of a size have
ENTITIES_AT_ONCE = 16  # decoded together; more go in chunks of this, so that memory does not grow with their number
ENTITIES_AT_ONCE_CPU = 4  # of more, a CPU's caches would not hold what goes from step to step


@dataclass(frozen=True, eq=False)
class Encoded:
    """Everything that is computed once for an image, whatever is asked about it later.

    features:  (1, C, h, w) backbone features f.
    embedding: (1, 256, h, w) the decoder's view of them.
    matching:  (h * w, D) tokens of length 1 in the backbone's precision, for dense matching; None for the paper's.
    norm:      (1, H', W') norm of the upsampled features, for the paper's models; None with dense matching.
    detail:    (1, D, 4h, 4w) for models with a detail branch, else None.
    canvas:    where the frame lies on the backbone's input.
    fovea:     which tokens have features of their own; None: all.
    """

    features: Tensor
    embedding: Tensor
    matching: Tensor | None
    norm: Tensor | None
    detail: Tensor | None
    canvas: Canvas
    fovea: Fovea | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) in tokens."""
        return self.features.shape[-2], self.features.shape[-1]


@dataclass(frozen=True)
class Prediction:
    """Masks of N entities on one target.

    logits:     (N, h4, w4) float32 over the canvas. scores: (N,), in 0..1 for models that were trained to say so.
    propagated: (N, h', w') float32, the propagated mask a over the canvas.
    margins:    (N, P, h, w) float32, what that is the largest of, as in `dense_maps`; None without dense matching.
    """

    logits: Tensor
    scores: Tensor
    propagated: Tensor
    margins: Tensor | None = None


def owners(logits: Tensor, ids: Sequence[int] | None = None) -> Tensor:
    """(N, H, W) logits -> (H, W) int32: per pixel the id of the object of the largest logit above zero, else 0. ids: of
    the N objects; None: 1..N.
    """
    keys = tuple(range(1, len(logits) + 1) if ids is None else ids)
    if logits.device.type == "cpu":  # a search along objects, far apart in memory, takes it three times as long
        most, labels = logits.new_zeros(logits.shape[1:]), logits.new_zeros(logits.shape[1:], dtype=torch.int32)
        for mine, key in zip(logits, keys, strict=True):
            labels.masked_fill_(mine > most, key)
            torch.maximum(most, mine, out=most)
        return labels
    best = logits.max(0)
    return numbers((0, *keys), logits.device).to(torch.int32)[torch.where(best.values > 0, best.indices + 1, 0)]


def token_centres(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """(N, H, W) masks on the canvas -> (N, *grid) 0 or 1: the tokens whose centre is covered, as released.

    Small masks can miss every centre (a 6 px square survives one time in nine); those keep their coverage instead.
    """
    centres = (F.interpolate(masks[None], grid, mode="bilinear", align_corners=False)[0] > 0.5).float()
    return torch.where(centres.flatten(1).any(1)[:, None, None], centres, coverage(masks, grid))


class SEGIC:
    """A frozen backbone and a trained decoder. Holds no state of any image or video.

    Images may be encoded in one thread while masks are predicted in another; neither is for two threads at once.
    Everything runs without gradients; training uses the stages themselves (`segic.training`).
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
        """That of the backbone's products, which decides speed; see `dtype` for the decoder's."""
        return self.backbone.precision

    @property
    def _carry(self) -> int:
        """How far carried masks may move, in tokens; 0 for models that do not carry any."""
        return self.config.matching.carry if self.config.matching is not None else 0

    def at_size(self, size: int) -> "SEGIC":
        """The same model, with the same weights, that looks at pictures of another size, in pixels. UsageError for one
        that `load_model` would not take.
        """
        size = check_size(size)
        if size == self.config.size:
            return self
        return SEGIC(replace(self.config, size=size), self.backbone, self.decoder, self.name, self.files)

    def canvas(self, frame: tuple[int, int]) -> Canvas:
        """How a frame of (height, width) pixels is put before the backbone."""
        if self.config.canvas == "square":
            return Canvas.square(frame, self.config.size)
        return Canvas.own_aspect(frame, self.config.size, self.backbone.stride)

    def grid(self, frame: tuple[int, int]) -> tuple[int, int]:
        """(h, w) tokens of a frame of (height, width) pixels."""
        height, width = self.canvas(frame).padded
        return height // self.backbone.stride, width // self.backbone.stride

    def layout(self, coarsest: Tensor) -> Fovea:
        """Which tokens of a frame are seen together; coarsest: (h, w) int64, of `segic.backbones.fovea.SCALES`."""
        blocks = coarsest.numel() // (3 * FOVEAE)
        return fovea(coarsest.to(self.device), max(1, blocks if blocks < ROWS else blocks // ROWS * ROWS))

    @in_own_precision
    def encode(self, images: Tensor, coarsest: Tensor | None = None) -> list[Encoded]:
        """The backbone, once an image. images: (B, 3, H, W) uint8 RGB, any device. Returns one Encoded an image.

        coarsest: (h, w) int64, how many tokens along each side, 1, 2 or 4, may be seen as one, in all images; None: 1.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise UsageError(
                f"images are {images.dtype} of shape {tuple(images.shape)}; expected uint8 of shape (B, 3, H, W), RGB"
            )
        canvas = self.canvas((images.shape[-2], images.shape[-1]))
        pixels = canvas.place(images.to(self.device))
        if self.config.matching is not None:
            pixels = brightened(pixels, self.config.brighten)
        layout = None if coarsest is None else self.layout(coarsest)
        return self.encode_features(self.backbone(pixels, canvas.valid, layout), canvas, pixels, layout)

    @in_own_precision
    def encode_features(
        self, features: Tensor, canvas: Canvas, pixels: Tensor | None = None, layout: Fovea | None = None
    ) -> list[Encoded]:
        """As `encode`, from features (B, C, h, w) computed elsewhere. pixels: (B, 3, *canvas.padded), 0..255. layout:
        which of the features are not the same as others, None for all.
        """
        precision = features.dtype  # of the backbone; matching products are the largest after it and stay in it
        features = features.to(self.dtype)
        embedding = self.decoder.embed(features, layout)
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
                self.decoder.matching(features[i : i + 1], layout, precision)[0] if dense else None,
                one(norm, i),
                one(detail, i),
                canvas,
                layout,
            )
            for i in range(features.shape[0])
        ]

    @in_own_precision
    def context(self, image: Encoded, masks: Tensor, entities: Sequence[int]) -> Context:
        """An example from an encoded image and its masks (N, H, W), bool or 0..1, at the frame's size or any other
        resolution of the whole frame; entities: N keys of the caller's.
        """
        if self.config.matching is not None:
            size = (SCALE * image.grid[0], SCALE * image.grid[1])
            fine = self._cover(image, masks, size) if self._carry else None
            weights = self._cover(image, masks, image.grid)
            return self._with_target_model(self._context(image, weights, entities, fine))
        placed = Canvas((masks.shape[-2], masks.shape[-1]), image.canvas.picture, image.canvas.padded)
        parts = (placed.place(part.to(self.device).float()[None])[0] for part in masks.split(MASKS_AT_ONCE))
        weights = torch.cat([token_centres(part, image.grid) for part in parts])
        lost = weights.flatten(1).amax(1) == 0
        if lost.any():  # making a large frame smaller steps over single pixels
            weights[lost] = self._cover(image, masks[lost.to(masks.device)], image.grid)
        return self._context(image, weights, entities)

    def _cover(self, image: Encoded, masks: Tensor, grid: tuple[int, int]) -> Tensor:
        """`Canvas.cover` on the model's device, a few masks at a time: many of a large picture take gigabytes as
        floats.
        """
        parts = masks.split(MASKS_AT_ONCE)
        return torch.cat([image.canvas.cover(part.to(self.device), grid) for part in parts])

    @in_own_precision
    def remember(self, image: Encoded, logits: Tensor, entities: Sequence[int]) -> Context:
        """A frame with its own prediction, logits (N, h4, w4) over the canvas, as an example for the frames to come."""
        if self.config.matching is None:
            full = F.interpolate(logits[None], image.canvas.padded, mode="bilinear", align_corners=False)[0]
            return self._context(image, token_centres((full > 0).float(), image.grid), entities)
        mine = claims(logits)
        return self._context(image, coverage(mine, image.grid), entities, mine.float() if self._carry else None)

    def _context(
        self, image: Encoded, weights: Tensor, entities: Sequence[int], masks: Tensor | None = None
    ) -> Context:
        """weights: (N, h, w) what each entity covers of the tokens. masks: (N, 4h, 4w) of the logits' pixels, where
        they are carried.
        """
        visual = mask_pool(image.features, weights[None])[0]
        covers = weights.flatten(1).amax(1) > 0
        if image.matching is None:
            return Context(tuple(entities), visual, covers)
        return Context(
            tuple(entities), visual, covers, image.matching, partition(weights), weights.flatten(1), masks,
            fovea=image.fovea,
        )  # fmt: skip

    def _with_target_model(self, context: Context) -> Context:
        matching = self.config.matching
        if matching is None or not matching.ridge:
            return context
        assert context.matching is not None
        assert context.weights is not None
        group = partition(context.weights, matching.ridge_share)
        fitted = fit_target_model(context.matching, group, len(context.entities), matching.ridge)
        return replace(context, target_model=fitted)

    @in_own_precision
    def renew(self, example: Context, later: Context, grid: tuple[int, int], scores: Tensor | None = None) -> Context:
        """A given example of a video, its linear model fitted anew to a later frame's predicted masks as well; see
        `segic.renewal`. Only for models that do so (`ModelConfig.renew_every`). grid: of the tokens. scores: (n,) of
        the later frame's entities, that decide whether it is fitted; None: it is.
        """
        assert self.config.matching is not None
        sure = None if scores is None else certain(scores, later.covers)
        return renewed(example, later, grid, self.config.matching, sure)

    @in_own_precision
    def predict(
        self,
        target: Encoded,
        given: Sequence[Context],
        recent: Sequence[Context] = (),
        *,
        entities: Sequence[int],
        meta: Tensor | None = None,
        video: bool = False,
        cut: Tensor | None = None,
    ) -> Prediction:
        """Masks of `entities` on the target.

        given: in-context examples; every entity is present in at least one of them. recent: frames of the same video
        with masks that were predicted on them, or given; one of `given` again adds no second instance token.
        meta: (N, 768) or (768,) text features for models that take text. video: entities' points enter each other's
        token lists, as released for video. cut: () bool, whether the target is of another shot than `recent`, so that
        where things were says nothing of it; None: it is not.

        Raises UsageError for an entity without an example, and without text features where the model takes them.
        """
        n = len(entities)
        if meta is None and self.config.instructions.meta == "text":
            raise UsageError(
                f"the model {self.name or self.config.backbone} takes text; give it text features as `meta`"
            )
        if meta is not None and meta.ndim == 1:
            meta = meta.expand(n, -1)
        propagated, carried = side_by_side(
            self.device,
            lambda: self._propagate(target, given, recent, entities, cut),
            lambda: self._carried(target, recent, entities, cut),
        )
        best = propagated.amax(2)  # the best of an entity's margins, or the paper's only mask
        visual = self._visual(given, recent, entities)
        points = best_points(best)
        text = None if meta is None else meta[None].to(self.device)
        full = Instructions(propagated, points, visual, text, carried)
        out = self.decoder.masks(
            target.embedding, full, target.detail, entities=n, cross_points=video,
            at_once=ENTITIES_AT_ONCE_CPU if self.device.type == "cpu" else ENTITIES_AT_ONCE,
        )  # fmt: skip
        margins = propagated[0].float() if self.config.matching is not None else None
        return Prediction(out.logits[0].float(), out.scores[0].float(), best[0].float(), margins)

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
        the examples. Where there are fewer, the first stands in.
        """
        lists: list[list[Tensor]] = [[] for _ in entities]
        for context in given:
            where = {key: i for i, key in enumerate(context.entities)}
            for row, key in zip(lists, entities, strict=True):
                if key in where and context.present[where[key]]:
                    row.append(context.visual[where[key]])
        missing = next((key for row, key in zip(lists, entities, strict=True) if not row), None)
        if missing is not None:
            raise UsageError(
                f"entity {missing} has no example with a mask that is not empty; give it one or leave it out"
            )
        longest = max(len(row) for row in lists)
        padding = [[row[0]] * (longest - len(row)) for row in lists]
        if recent and recent[-1] not in given:
            last = recent[-1]
            first = torch.stack([row[0] for row in lists])
            covered = by_entity(last.covers, last.entities, entities)[:, None]
            latest = torch.where(covered, by_entity(last.visual, last.entities, entities), first)
            lists = [[*row, one] for row, one in zip(lists, latest, strict=True)]
        return torch.stack([torch.stack(row + more) for row, more in zip(lists, padding, strict=True)])[None]

    def _carried(
        self, target: Encoded, recent: Sequence[Context], entities: Sequence[int], cut: Tensor | None
    ) -> Tensor | None:
        """(1, N, 4h, 4w), or None for models that do not carry masks."""
        if not self._carry:
            return None
        assert target.matching is not None
        return carried_masks(target.matching, target.grid, recent, entities, self._carry, cut)[None]

    def _propagate(
        self, target: Encoded, given: Sequence[Context], recent: Sequence[Context], entities: Sequence[int],
        cut: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Eq. 2: the propagated masks, (1, N, P, H, W)."""
        if self.config.matching is not None:
            assert target.matching is not None
            how = self.config.matching, target.fovea, cut
            return dense_maps(target.matching, target.grid, given, recent, entities, *how)[None]
        assert target.norm is not None
        first = self._visual(given, (), entities)[:, :, 0]
        eps = 1e-8
        similarity = mean_similarity(target.features, target.norm, first, eps)
        return F.interpolate(similarity, target.canvas.padded, mode="bilinear", align_corners=False)[:, :, None]
