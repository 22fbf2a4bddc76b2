"""Weights and inputs of the golden outputs, made by formula.

Every array is a function of its name: its numbers are drawn from torch's CPU generator, seeded by the name's hash. The
golden files beside this module hold what the released implementation computed from them. Changing any number here makes
those files worthless.
"""

import hashlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def seed(name: str) -> int:
    """0..2**32 - 1, from the first four bytes of the name's sha256."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def generator(name: str) -> torch.Generator:
    """A CPU generator that belongs to the name."""
    return torch.Generator().manual_seed(seed(name))


def randn(name: str, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers, float32."""
    return torch.randn(tuple(shape), generator=generator(name))


def weight(key: str, shape: Sequence[int]) -> Tensor:
    """The decoder's tensor `key`: gains near 1, small biases, embeddings of 0.5, the rest by its fan-in."""
    shape = tuple(shape)
    values = randn(key, shape)
    if key.endswith(".bias"):
        return 0.05 * values
    if len(shape) == 1:
        return 1 + 0.05 * values  # gains of norms
    if "positional_encoding_gaussian_matrix" in key:
        return values
    if any(word in key for word in ("embed", "tokens", "token")) and len(shape) == 2 and "proj" not in key:
        return 0.5 * values
    fan = 1
    for size in shape[1:] if "output_upscaling" not in key else (shape[0], *shape[2:]):
        fan *= size
    return values / fan**0.5


def features(name: str, b: int, c: int, h: int, w: int) -> Tensor:
    """(B, C, h, w) float32: smooth over 8 tokens, with noise, as a backbone's features are. For h = 1, plain noise."""
    if h == 1:
        return randn("f:" + name, (b, c, h, w))
    coarse = randn("f:" + name, (b, c, h // 8, w // 8))
    smooth = F.interpolate(coarse, (h, w), mode="bilinear", align_corners=False)
    return smooth + 0.5 * randn("n:" + name, (b, c, h, w))


def masks(name: str, n: int, h: int, w: int) -> Tensor:
    """(N, h, w) float32, 0 or 255: one ellipse each; they may overlap."""
    yy, xx = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    out = []
    for i in range(n):
        u = torch.rand(4, generator=generator(f"m:{name}:{i}"))
        cy, cx = h * (0.3 + 0.4 * u[0]), w * (0.2 + 0.6 * u[1])
        ry, rx = h * (0.12 + 0.15 * u[2]), w * (0.08 + 0.12 * u[3])
        out.append(((yy - cy) / ry) ** 2 + ((xx - cx) / rx) ** 2 <= 1)
    return torch.stack(out).float() * 255
