"""A step's samples as tensors on the device: those of one shape together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segic.backbones.base import IMAGENET_MEAN, Backbone
from segic.config import ModelConfig
from segic.training.episodes import Batch
from segic.training.feeds import Drawn

Texts = Mapping[str, Tensor]  # (768,) features by prompt


@dataclass(frozen=True)
class Group:
    """B samples with the same number of frames and entities.

    batch: its masks are 4 times the token grid, or the canvas's size for the paper's models. meta: (B, N, 768) or None.
    kinds, names: of each sample.
    """

    batch: Batch
    meta: Tensor | None
    has_recent: bool
    negatives: bool
    kinds: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]

    @property
    def size(self) -> int:
        return self.batch.masks.shape[0]


def make_groups(
    drawn: Sequence[Drawn], config: ModelConfig, backbone: Backbone | None, device: torch.device, texts: Texts
) -> list[Group]:
    """Groups in the order of their first samples. backbone: computes features that are not cached."""
    sorted_: dict[tuple[int, ...], list[Drawn]] = {}
    for one in drawn:
        masks = one.masks if one.masks is not None else one.sample.masks if one.sample is not None else None
        assert masks is not None
        key = (*masks.shape[:2], one.has_recent, one.negatives, one.sample is None)
        sorted_.setdefault(key, []).append(one)
    return [_group(members, config, backbone, device, texts) for members in sorted_.values()]


def _group(
    members: Sequence[Drawn], config: ModelConfig, backbone: Backbone | None, device: torch.device, texts: Texts
) -> Group:
    first = members[0]
    batch = _cached(members, config, device) if first.sample is None else _live(members, config, backbone, device)
    meta = None
    if config.instructions.meta == "text":
        meta = torch.stack([torch.stack([texts[p] for p in one.prompts]) for one in members]).to(device)
    kinds, names = tuple(one.kind for one in members), tuple(one.name for one in members)
    return Group(batch, meta, first.has_recent, first.negatives, kinds, names)


def _cached(members: Sequence[Drawn], config: ModelConfig, device: torch.device) -> Batch:
    def stacked(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(one, name) for one in members])).to(device).float()

    masks = stacked("masks")
    canvas = (masks.shape[-2], masks.shape[-1]) if config.matching is None else None
    return Batch(stacked("features"), stacked("pixels"), masks, canvas)


def _live(members: Sequence[Drawn], config: ModelConfig, backbone: Backbone | None, device: torch.device) -> Batch:
    assert backbone is not None
    samples = [one.sample for one in members if one.sample is not None]
    frames = torch.from_numpy(np.stack([s.frames for s in samples])).to(device)
    masks = torch.from_numpy(np.stack([s.masks for s in samples])).to(device)
    features, pixels = encode(frames, [s.valid for s in samples], backbone)
    size = (masks.shape[-2], masks.shape[-1])
    if config.matching is None:
        return Batch(features, pixels, masks.float(), canvas=size)
    small = (4 * features.shape[-2], 4 * features.shape[-1])
    reduced = F.interpolate(masks.flatten(0, 1).float(), small, mode="area").unflatten(0, masks.shape[:2])
    return Batch(features, pixels, reduced)


@torch.no_grad()
def encode(frames: Tensor, valid: Sequence[Sequence[tuple[int, int]]], backbone: Backbone) -> tuple[Tensor, Tensor]:
    """(B, F, S, S, 3) uint8 -> features (B, F, C, h, w) float32 and small pictures (B, F, 3, 8h, 8w) float32, 0..255.

    valid: the part of each frame that holds a picture. The rest is filled with the mean colour, so that it is zero
    after the backbone's normalisation, as padding is.
    """
    pixels = frames.permute(0, 1, 4, 2, 3).float()
    mean = torch.tensor(IMAGENET_MEAN, device=pixels.device).view(3, 1, 1)
    side = (pixels.shape[-2], pixels.shape[-1])
    for b, row in enumerate(valid):
        for f, (height, width) in enumerate(row):
            if (height, width) != side:
                pixels[b, f, :, height:] = mean
                pixels[b, f, :, :, width:] = mean
    flat = pixels.flatten(0, 1)
    features = backbone(flat).float()
    size = (8 * features.shape[-2], 8 * features.shape[-1])
    shape = pixels.shape[:2]
    small = F.interpolate(flat, size, mode="area").round()
    return features.unflatten(0, shape), small.unflatten(0, shape)
