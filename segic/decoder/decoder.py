"""All trained parts in one module, under the names of the released files."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segic.backbones.fovea import Fovea
from segic.carrying import SCALE
from segic.config import ModelConfig
from segic.correspondence import unit
from segic.decoder.detail import DetailBranch
from segic.decoder.layers import ChannelNorm, as_map, block_means
from segic.decoder.mask_decoder import MaskDecoder
from segic.decoder.places import BLOCK, Place, grouped, places
from segic.decoder.prompt import PromptEncoder, pixel_mask_encoder, token_mask_encoder
from segic.decoder.view import Around, View
from segic.instructions import Instructions
from segic.metric import Metric
from segic.parts import by_parts

WIDTH = 256
TEXT_WIDTH = 768

ABSENT = -10.0  # the logits of an entity where it is not, because it is hidden or its place is elsewhere
POSITIVE = 1  # the row of inst_type_embed for the entity itself; row 0 is another entity, its negative


@dataclass(frozen=True)
class Output:
    """logits: (B, N, 4h, 4w) float32 over the canvas. scores: (B, N), the decoder's own estimate of each mask's IoU."""

    logits: Tensor
    scores: Tensor


class Decoder(nn.Module):
    """The 5 M parameters around the frozen backbone.

    `embed` and `frame_detail` run once an image, `forward` once for a batch of targets with all their entities.
    """

    def __init__(self, config: ModelConfig, backbone_width: int, visual_width: int):
        super().__init__()
        self.instructions = config.instructions
        self.neck = nn.Sequential(
            nn.Conv2d(backbone_width, WIDTH, 1, bias=False),
            ChannelNorm(WIDTH),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
            ChannelNorm(WIDTH),
        )
        maps = config.matching.maps if config.matching else 1
        carry = config.matching is not None and config.matching.carry > 0
        channels = maps + SCALE**2 if carry else maps
        encoder = token_mask_encoder(WIDTH, channels) if config.matching else pixel_mask_encoder(WIDTH)
        self.prompt_encoder = PromptEncoder(WIDTH, encoder)
        self.mask_decoder = MaskDecoder(WIDTH)
        self.inst_type_embed = nn.Embedding(2, WIDTH)
        self.inst_proj = nn.Linear(visual_width, WIDTH)
        if config.instructions.meta == "text":
            self.prompt_proj = nn.Linear(TEXT_WIDTH, WIDTH)
        elif config.instructions.meta == "constant":
            self.prompt_constant = nn.Embedding(1, WIDTH)
        width = min(config.matching.width, backbone_width) if config.matching else 0
        self.metric = Metric(backbone_width, width) if width else None
        if config.residual:
            self.residual_gain = nn.Parameter(torch.full((maps,), 8.0))  # margins begin as logits
            self.residual_offset = nn.Parameter(torch.zeros(()))
        self.residual = config.residual
        self.detail = DetailBranch(config.detail, WIDTH // 8 + carry) if config.detail else None

    def embed(self, features: Tensor, layout: Fovea | None = None) -> Tensor:
        """Backbone features (B, C, h, w) -> image embedding f (B, 256, h, w). layout: which of the features are not the
        same as others, None for all.
        """
        # A product, as the 1 x 1 convolution that it is takes many times as long on CPUs: features come token by token.
        weight = self.neck.get_parameter("0.weight").flatten(1)
        chosen = None if layout is None else layout.seen
        tokens = by_parts(lambda part: F.linear(part, weight), features.flatten(2).mT, chosen)
        tokens = tokens if layout is None else tokens[:, layout.source]
        out: Tensor = self.neck[1:](as_map(tokens, features.shape[2], features.shape[3]))
        return out

    def matching(self, features: Tensor, layout: Fovea | None = None, precision: torch.dtype = torch.float32) -> Tensor:
        """Backbone features (B, C, h, w) -> (B, h * w, D) of length 1, which dense matching compares. layout: as in
        `embed`.
        """
        if self.metric is None:
            return unit(features.float()).to(precision)
        tokens: Tensor = self.metric(features, None if layout is None else layout.seen, precision)
        return tokens if layout is None else tokens[:, layout.source]

    def frame_detail(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor | None:
        """Canvas pixels (B, 3, H, W), 0..255 -> what the detail branch keeps of them, None without that branch."""
        return None if self.detail is None else self.detail.frame(pixels, grid)

    def tokens(self, given: Instructions, entities: int, cross_points: bool) -> Tensor:
        """Every entity's token list: (B, N, T, 256), N = entities.

        Order as released: points, padding point, text, instance tokens. With negatives on, an entity's list holds every
        entity's instance tokens, marked own or other, and in video every entity's point as well (`cross_points`).
        """
        dtype, device = self.inst_type_embed.weight.dtype, self.inst_type_embed.weight.device
        own = torch.eye(entities, dtype=torch.bool, device=device)
        parts: list[Tensor] = []
        if given.points is not None and self.instructions.points:
            b = given.points.shape[0]
            points = given.points.float()
            if cross_points and self.instructions.negatives:
                crossed = points[:, None].expand(b, entities, entities, 2)
                parts.append(self.prompt_encoder.points(crossed, own.expand(b, -1, -1)))
            else:
                parts.append(self.prompt_encoder.points(points[:, :, None], own.new_ones(b, entities, 1)))
            parts.append(self.prompt_encoder.padding_point().expand(b, entities, 1, -1))
        meta = self._meta(given, entities)
        if meta is not None:
            parts.append(meta)
        if given.visual is not None and self.instructions.visual:
            visual = self.inst_proj(given.visual.to(dtype))
            if self.instructions.negatives:
                kind = self.inst_type_embed.weight[own.long()]  # (N for whom, N whose, C); POSITIVE on the diagonal
                parts.append((visual[:, None] + kind[None, :, :, None]).flatten(2, 3))
            else:
                parts.append(visual + self.inst_type_embed.weight[POSITIVE])
        batch = max(part.shape[0] for part in parts) if parts else 1
        if not parts:
            return torch.zeros(batch, entities, 0, WIDTH, dtype=dtype, device=device)
        return torch.cat([part.expand(batch, -1, -1, -1) for part in parts], dim=2)

    def _meta(self, given: Instructions, entities: int) -> Tensor | None:
        if self.instructions.meta == "constant":
            return self.prompt_constant.weight.view(1, 1, 1, -1).expand(1, entities, 1, -1)
        if self.instructions.meta == "text" and given.meta is not None:
            out: Tensor = self.prompt_proj(given.meta.to(self.prompt_proj.weight.dtype))[:, :, None]
            return out
        return None

    def forward(
        self,
        embedding: Tensor,
        given: Instructions,
        detail: Tensor | None = None,
        *,
        entities: int,
        cross_points: bool,
        chosen: slice = slice(None),
    ) -> Output:
        """o = D(f', q'), eq. 7.

        embedding (B, 256, h, w), detail (B, D, 4h, 4w) or None. entities: how many `given` speaks of; chosen: those to
        decode, together, with all the others as their negatives.
        """
        b = embedding.shape[0]
        tokens = self.tokens(given, entities, cross_points).expand(b, -1, -1, -1)[:, chosen]
        view = self._view(embedding, given, detail, tokens.shape[1], chosen)
        logits, scores = self._decode(view, tokens.flatten(0, 1))
        return Output(logits.unflatten(0, (b, -1))[:, :, 0], scores.view(b, -1))

    def masks(
        self, embedding: Tensor, given: Instructions, detail: Tensor | None = None, *, entities: int,
        cross_points: bool, at_once: int,
    ) -> Output:  # fmt: skip
        """As the call, of a single target and without gradients, `at_once` entities together at most. On a CPU those
        that are in the carried masks only in their places (`segic.decoder.places`), with logits of ABSENT beyond.
        """
        whole = self._view(embedding, given, detail, entities)
        grid = whole.grid
        tokens = self.tokens(given, entities, cross_points)[0]
        found: list[Place | None] = [None] * entities
        if given.carried is not None and whole.maps is not None and embedding.device.type == "cpu":
            found = places(whole.maps, given.carried[0])  # which a GPU would have to be waited for
        around = self._around(whole) if any(found) else None
        logits = tokens.new_full((entities, 1, SCALE * grid[0], SCALE * grid[1]), ABSENT, dtype=torch.float32)
        scores = tokens.new_empty(entities)
        for group in grouped(found, grid, at_once):
            parts, scores[group.index] = self._decode(whole.of(group, around), tokens[group.index])
            if group.places is None:
                logits[group.index] = parts
            else:
                for number, part, place in zip(group.entities, parts, group.places, strict=True):
                    place.of(logits[number], SCALE).copy_(part)
        return Output(logits[None, :, 0], scores[None])

    def _view(
        self, embedding: Tensor, given: Instructions, detail: Tensor | None, entities: int, chosen: slice = slice(None)
    ) -> View:
        """Whole targets, for the chosen ones of the entities of each, so many."""
        b, _, h, w = embedding.shape
        dtype = embedding.dtype
        propagated = given.propagated if self.instructions.geometric else None
        maps = None if propagated is None else propagated[:, chosen].flatten(0, 1).float()
        carried = None if given.carried is None else given.carried[:, chosen].flatten(0, 1)[:, None].to(dtype)
        evidence = None if maps is None else maps.to(dtype)
        if evidence is not None and carried is not None:
            evidence = torch.cat([evidence, F.pixel_unshuffle(carried, SCALE)], dim=1)
        position = self.prompt_encoder.pe_layer.grid(h, w).to(dtype)

        def for_each(x: Tensor) -> Tensor:
            return x if b == 1 else x[:, None].expand(b, entities, *x.shape[1:]).flatten(0, 1)

        shown = None if detail is None else for_each(detail)
        return View(for_each(embedding), position, maps, evidence, carried, shown)

    def _around(self, whole: View) -> Around:
        """What entities' tokens see of a target beyond their places."""
        image = block_means(whole.embedding, BLOCK)
        spoken = None if whole.evidence is None else block_means(whole.evidence, BLOCK)
        image = image + self.prompt_encoder.masks(spoken, image.shape)
        position = self.prompt_encoder.pe_layer.grid(*whole.grid, BLOCK).to(image.dtype)
        return Around(image.flatten(2).mT, position.flatten(2).mT)

    def _decode(self, view: View, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """A view for N entities and their tokens (N, T, 256) -> logits (N, 1, 4h, 4w) float32, scores (N,)."""
        shape = (len(tokens), *view.embedding.shape[1:])
        image = view.embedding + self.prompt_encoder.masks(view.evidence, shape)
        logits, scores, upscaled = self.mask_decoder(image, view.position, tokens, view.beyond)
        logits = logits.float()  # in half precision they would move in steps of a hundredth and more
        if self.residual and view.maps is not None:
            margins = (view.maps * self.residual_gain[:, None, None]).sum(1, keepdim=True) + self.residual_offset
            logits = logits + F.interpolate(margins, logits.shape[-2:], mode="bilinear", align_corners=False)
        if self.detail is not None and view.detail is not None:
            small_parts = logits.device.type == "cpu" and not torch.is_grad_enabled()
            refined = self.detail.in_boxes if small_parts else self.detail
            logits = refined(logits, upscaled, view.detail, view.carried)
        return logits, scores
