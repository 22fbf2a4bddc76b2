"""DINOv2 (Oquab et al. 2023), S/B/L/G, with and without registers, at any input size that the patch size allows.

Parameter names are those of the official `dinov2_vit*14_pretrain.pth` files, so these load as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segic.backbones.attention import attention
from segic.backbones.base import IMAGENET_MEAN, IMAGENET_STD, normalise
from segic.backbones.fovea import SCALES, Fovea
from segic.backbones.frozen_linear import FrozenLinear
from segic.backbones.int8 import Int8Linear, plain_norm
from segic.errors import UsageError
from segic.parts import by_parts, joined, split
from segic.remembered import handed_out
from segic.weights.dinov2_layout import GRID, HEAD, LAYOUTS, PATCH

Linear = FrozenLinear | Int8Linear

KEPT = 8  # position embeddings of so many grids, 3 MB and more each


@dataclass(frozen=True)
class DinoV2Config:
    """Sizes of one DINOv2. `registers` is 0 or 4; `swiglu` is the giant's gated MLP."""

    name: str
    width: int
    depth: int
    heads: int
    swiglu: bool = False
    registers: int = 0


CONFIGS: Mapping[str, DinoV2Config] = {
    size.name: DinoV2Config(size.name, size.width, size.depth, size.width // HEAD, size.swiglu, size.registers)
    for size in sorted(LAYOUTS.values(), key=lambda size: (size.width, size.registers))
}


def check_layers(config: DinoV2Config, layers: tuple[int, ...]) -> None:
    """UsageError for a layer that the backbone does not have."""
    if not all(1 <= number <= config.depth for number in layers):
        raise UsageError(
            f"layers {list(layers)}: {config.name} has the layers 1 to {config.depth}; give some of these, or none for "
            "the last one alone"
        )


class _Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1: Linear = FrozenLinear(width, 4 * width, gelu=True)
        self.fc2: Linear = FrozenLinear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.fc1(x))
        return out

    def to_int8(self, norm: nn.LayerNorm) -> None:
        self.fc1, self.fc2 = Int8Linear(self.fc1, norm), Int8Linear(self.fc2)


class _SwiGLU(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8
        self.w12: Linear = FrozenLinear(width, 2 * hidden)
        self.w3: Linear = FrozenLinear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        out: Tensor = self.w3(F.silu(gate) * value)
        return out

    def to_int8(self, norm: nn.LayerNorm) -> None:
        self.w12, self.w3 = Int8Linear(self.w12, norm), Int8Linear(self.w3)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv: Linear = FrozenLinear(width, 3 * width)
        self.proj: Linear = FrozenLinear(width, width)

    def enter(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (3, B, heads, N, C / heads): queries, keys and values."""
        out: Tensor = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return out

    def mix(self, entered: Tensor, most: int) -> Tensor:
        """What all tokens have entered -> (B, N, C)."""
        q, k, v = entered
        return attention(q, k, v, most).transpose(1, 2).flatten(2)

    def to_int8(self, norm: nn.LayerNorm) -> None:
        self.qkv, self.proj = Int8Linear(self.qkv, norm), Int8Linear(self.proj)


class _Scale(nn.Module):
    """A branch's result, scaled by channel, added to what it came from."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        return torch.addcmul(x, branch, self.gamma)


class _Block(nn.Module):
    def __init__(self, config: DinoV2Config):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attn = _Attention(config.width, config.heads)
        self.ls1 = _Scale(config.width)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = _SwiGLU(config.width) if config.swiglu else _Mlp(config.width)
        self.ls2 = _Scale(config.width)

    def forward(self, x: Tensor, most: int) -> Tensor:
        """(B, N, C) -> the same; most: the largest that N can be for pictures of this size."""
        entered = joined([self.attn.enter(self.norm1(part)) for part in split(x)], most, dim=3)
        if x.device.type == "cpu":
            entered = entered.contiguous()  # the CPU's attention is a quarter faster on rows that lie side by side
        mixed = self.attn.mix(entered, most)
        del entered  # the largest of all this, but for what follows
        return joined([self._add(part, own) for part, own in zip(split(x), split(mixed), strict=True)], most)

    def _add(self, x: Tensor, mixed: Tensor) -> Tensor:
        # Side by side, as a part of several pictures is not: products of that are formed in another order.
        x = self.ls1(x, self.attn.proj(mixed.contiguous()))
        out: Tensor = self.ls2(x, self.mlp(self.norm2(x)))
        return out

    def to_int8(self) -> None:
        self.attn.to_int8(self.norm1)
        self.mlp.to_int8(self.norm2)
        self.norm1, self.norm2 = plain_norm(self.norm1), plain_norm(self.norm2)


class _PatchEmbed(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, stride=PATCH)


def resample_positions(grid: Tensor, height: int, width: int, offset: bool) -> Tensor:
    """Position embedding for another number of patches.

    grid: (1, C, 37, 37). Returns (1, C, height, width). As the official code: bicubic; without registers
    (`offset=True`) by the scale factor (n + 0.1) / 37 and no antialiasing, with registers by size and antialiased.
    Other ways change the embedding by about 10 %.
    """
    if (height, width) == tuple(grid.shape[-2:]):
        return grid
    if not offset:
        return F.interpolate(grid, size=(height, width), mode="bicubic", antialias=True)
    factors = ((height + 0.1) / grid.shape[-2], (width + 0.1) / grid.shape[-1])
    return F.interpolate(grid, scale_factor=factors, mode="bicubic")


def halved(picture: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H // 2, W // 2), means of 2 x 2. As sums of slices, which take CPUs a quarter of the time
    that `avg_pool2d` does.
    """
    rows, columns = picture.shape[2] // 2 * 2, picture.shape[3] // 2 * 2
    lines = picture[:, :, 0:rows:2, :columns] + picture[:, :, 1:rows:2, :columns]
    return (lines[..., 0::2] + lines[..., 1::2]) * 0.25


def _channels(values: tuple[float, ...]) -> Tensor:
    """(3, 1, 1), on the CPU even where modules are built without storage: no weight file holds these."""
    return torch.tensor(values, device="cpu", dtype=torch.float32).view(3, 1, 1)


class DinoV2(nn.Module):
    """A frozen DINOv2; see `segic.backbones.base.Backbone` for the call.

    layers: blocks (1-based) whose normalised patch tokens are concatenated along the channels, in this order;
            empty for the last block only (the paper's). UsageError for one that there is not. Blocks after the last of
            them are not built.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: DinoV2Config, layers: tuple[int, ...] = ()):
        super().__init__()
        check_layers(config, layers)
        self.name = config.name
        self.stride = PATCH
        self.config = config
        self.layers = layers or (config.depth,)
        self.width = config.width * len(self.layers)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID * GRID, config.width))
        if config.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, config.registers, config.width))
        self.patch_embed = _PatchEmbed(config.width)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(max(self.layers)))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.register_buffer("mean", _channels(IMAGENET_MEAN), persistent=False)
        self.register_buffer("std", _channels(IMAGENET_STD), persistent=False)
        self._positions: dict[tuple[int, int, int], Tensor] = {}
        self._int8 = False
        self.eval().requires_grad_(False)

    @property
    def dtype(self) -> torch.dtype:
        return self.pos_embed.dtype

    @property
    def precision(self) -> torch.dtype:
        return torch.int8 if self._int8 else self.dtype

    def to_int8(self) -> "DinoV2":
        """The blocks' products are of bytes from now on; for CPUs. Best from weights in float32; they do not come back.

        UsageError as `segic.backbones.int8.Int8Linear`.
        """
        if not self._int8:
            for block in self.blocks:
                block.to_int8()  # type: ignore[operator]
        self._int8 = True
        return self

    def train(self, mode: bool = True) -> "DinoV2":
        """Stays in evaluation mode: the backbone is frozen."""
        return super().train(False)

    def _apply(self, fn, recurse: bool = True) -> "DinoV2":  # type: ignore[no-untyped-def]
        where = fn(torch.empty(0, device="cpu")).device
        if self._int8 and where.type != "cpu":
            raise UsageError(f"a backbone whose products are of bytes is for CPUs, and this is {where}; load it anew")
        self._positions.clear()  # they live on the old device, in the old dtype
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _position(self, height: int, width: int, scale: int = 1) -> Tensor:
        """(1, C, height // scale, width // scale), kept for the last sizes: means over `scale` rows and columns of
        those of a grid of (height, width).
        """
        key = (height, width, scale)
        if key not in self._positions:
            if len(self._positions) >= KEPT:
                del self._positions[next(iter(self._positions))]
            grid = self.pos_embed[:, 1:].float().reshape(1, GRID, GRID, -1).permute(0, 3, 1, 2)
            resampled = resample_positions(grid, height, width, offset=not self.config.registers)
            fine = resampled.to(self.pos_embed.dtype)
            self._positions[key] = fine if scale == 1 else F.avg_pool2d(fine, scale)
        return handed_out(self._positions[key])

    def _patches(self, picture: Tensor) -> Tensor:
        """A normalised picture (B, 3, H, W) -> (B, tokens, C), with their positions."""
        out: Tensor = self.patch_embed.proj(picture)
        out = out + self._position(out.shape[2], out.shape[3])
        return out.flatten(2).transpose(1, 2)

    def _chosen_patches(self, picture: Tensor, fovea: Fovea) -> Tensor:
        """A normalised picture (B, 3, H, W) -> (B, tokens, C): those of the fovea, with the positions of those that
        they stand for.
        """
        grid = (picture.shape[2] // PATCH, picture.shape[3] // PATCH)
        chosen = []
        for scale, tokens in zip(SCALES, fovea.tokens, strict=True):
            if scale > 1:
                picture = halved(picture)
            if len(tokens):
                chosen.append((self._cut(picture, tokens), self._position(*grid, scale).flatten(2).mT[:, tokens]))
        # The patches' convolution, as a product: on CPUs cutting out those that are wanted costs less than all of it.
        weight, bias = self.patch_embed.proj.weight.flatten(1), self.patch_embed.proj.bias
        patches, positions = (torch.cat(list(each), dim=1) for each in zip(*chosen, strict=True))
        return by_parts(lambda part: F.linear(part, weight, bias), patches) + positions

    def _cut(self, picture: Tensor, tokens: Tensor) -> Tensor:
        """(B, T, 3 * 14 * 14) those patches at `tokens`, (T,) int64, of a picture (B, 3, H, W); what its last rows and
        columns have beside whole patches is left out.
        """
        h, w = picture.shape[2] // PATCH, picture.shape[3] // PATCH
        cut = picture[:, :, : PATCH * h, : PATCH * w].unflatten(2, (h, PATCH)).unflatten(4, (w, PATCH))
        return cut[:, :, tokens // w, :, tokens % w].transpose(0, 1).flatten(2)

    @torch.no_grad()
    def forward(self, pixels: Tensor, valid: tuple[int, int] | None = None, fovea: Fovea | None = None) -> Tensor:
        picture = normalise(pixels, self.mean, self.std, valid, self.pos_embed.dtype)
        b, h, w = len(picture), picture.shape[2] // PATCH, picture.shape[3] // PATCH
        x = self._patches(picture) if fovea is None else self._chosen_patches(picture, fovea)
        special = [self.cls_token + self.pos_embed[:, :1]]
        if self.config.registers:
            special.append(self.register_tokens)
        x = torch.cat([t.expand(b, -1, -1) for t in special] + [x], dim=1)
        outputs: dict[int, Tensor] = {}
        most = h * w + sum(t.shape[1] for t in special)
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, most)
            if number in self.layers:
                outputs[number] = self.norm(x[:, 1 + self.config.registers :])
        kept = [outputs[number] for number in self.layers]
        out = torch.cat(kept if fovea is None else [tokens[:, fovea.source] for tokens in kept], dim=-1)
        return out.transpose(1, 2).reshape(b, self.width, h, w)
