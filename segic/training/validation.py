"""One-shot episodes on held-out samples: IoU by kind, and a picture of the first few."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segic.backbones.base import Backbone
from segic.config import ModelConfig
from segic.decoder import Decoder
from segic.training.episodes import as_example, predict, prepare
from segic.training.feeds import Drawn, LiveFeed, load_cached
from segic.training.grid import Row, write_grid
from segic.training.groups import Group, Texts, make_groups
from segic.training.losses import soft_iou
from segic.training.plan import Stream, generator
from segic.training.recipe import Recipe

ENTITIES = 3  # of a cached sample


@dataclass(frozen=True)
class Episodes:
    """A fixed set of held-out samples: paths of cached ones, or a feed that draws the same ones each time.

    left_out: why by file, of those that could not be used so far.
    """

    recipe: Recipe
    config: ModelConfig
    backbone: Backbone | None
    device: torch.device
    texts: Texts
    cached: Sequence[Path] = ()
    feed: LiveFeed | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    def __call__(self, decoder: Decoder, picture: Path | None = None) -> dict[str, float]:
        """Scores of a decoder in evaluation mode: IoU on the last frame by kind of sample ("pair", "views", ...), and
        "episodes", the mean over all entities. picture: where the grid is written.
        """
        scores: defaultdict[str, list[float]] = defaultdict(list)
        rows: list[Row] = []
        for index in range(len(self)):
            drawn = self.draw(index)
            self.left_out.update((one.file, one.reason) for one in drawn.skipped)
            (group,) = make_groups([drawn], self.config, self.backbone, self.device, self.texts)
            logits = answer(decoder, self.config, group, crossed_points=self.recipe.episode.crossed_points)
            last = group.batch.masks.shape[1] - 1
            wanted = _at(group.batch.masks[:, last], logits)
            scores[drawn.kind] += soft_iou(logits[0].flatten(1), wanted[0].flatten(1)).tolist()
            if len(rows) < self.recipe.validation.grid:
                rows.append(_row(group, logits))
        if picture is not None and rows:
            write_grid(picture, rows)
        every = [value for values in scores.values() for value in values]
        means = {kind: float(np.mean(values)) for kind, values in sorted(scores.items())}
        return {**means, "episodes": float(np.mean(every))} if every else {}

    def draw(self, index: int) -> Drawn:
        """Sample `index`, always the same one."""
        how = self.recipe.validation
        if self.cached:
            rng, whole = generator(how.seed, Stream.VALIDATION, index), self.config.matching is None
            return load_cached(self.cached[index], ENTITIES, rng, flip=False, whole=whole)
        assert self.feed is not None
        return self.feed.draw_from(lambda attempt: generator(how.seed, Stream.VALIDATION, index, attempt))

    def __len__(self) -> int:
        return len(self.cached) or self.recipe.validation.samples


@torch.no_grad()
def answer(decoder: Decoder, config: ModelConfig, group: Group, *, crossed_points: bool) -> Tensor:
    """(B, N, 4h, 4w) logits of the last frame, from the first one's masks; in a chain, through the frame between."""
    last = group.batch.masks.shape[1] - 1
    example = (0, group.batch.masks[:, 0])
    frames = prepare(decoder, group.batch, (1, last) if group.has_recent else (last,))
    recent = None
    if group.has_recent:
        between = predict(decoder, config, frames, 1, example, meta=group.meta, crossed_points=crossed_points)
        recent = (1, as_example(config, frames, between.logits))
    out = predict(decoder, config, frames, last, example, recent, meta=group.meta, crossed_points=crossed_points)
    return out.logits.float()


def _at(masks: Tensor, like: Tensor) -> Tensor:
    """(B, N, H, W) masks at the logits' resolution."""
    return masks if masks.shape[-2:] == like.shape[-2:] else F.interpolate(masks, like.shape[-2:], mode="area")


def _row(group: Group, logits: Tensor) -> Row:
    pixels, masks = group.batch.pixels[0], group.batch.masks[0]
    last = masks.shape[0] - 1

    def picture(frame: int) -> np.ndarray:
        return pixels[frame].permute(1, 2, 0).cpu().numpy().astype(np.uint8)

    return Row(
        picture(0), picture(last), masks[0].cpu().numpy() > 0.5, masks[last].cpu().numpy() > 0.5,
        (logits[0] > 0).cpu().numpy(),
    )  # fmt: skip
