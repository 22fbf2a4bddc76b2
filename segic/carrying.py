"""Masks carried from one frame of a video to the next, along the dense correspondences of their tokens.

Matching says of a whole token, 14 x 14 pixels, whose it is. What masks show inside of a token, and on which side of an
edge each of two look-alikes stood, survives if the masks themselves are moved: by how far away the tokens lie in the
last frame that are most like a token, a soft argmax, which is finer than a token.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from segic.neighbours import neighbour_cosines, neighbours
from segic.remembered import remembered
from segic.tiles import offsets, surroundings, tiles

SCALE = 4  # rows and columns of a carried mask a token: those of the decoder's logits
TEMPERATURE = 0.01  # of the softmax over cosines: a displacement is the mean over a few good matches
FAR = 0.005  # off the cosine a squared token of distance: of matches that are as good, the nearest is meant


def token_flow(
    target: Tensor, source: Tensor, grid: tuple[int, int], radius: int, wanted: Tensor | None = None
) -> Tensor:
    """Where each token of a frame was in an earlier frame: (2, h, w) float32, how many columns to the right and rows
    down from where it is.

    target, source: (h * w, D) of length 1 for a grid of (h, w). The mean displacement d under a softmax of
    (cosine - FAR |d|^2) / TEMPERATURE over the source's tokens at most `radius` rows and columns away. wanted: (h, w)
    bool, tokens that must have theirs; others may have 0.
    """
    if target.device.type != "cpu":
        return _neighbour_flow(target, source, grid, radius)
    targets, sources = target.unflatten(0, grid), source.unflatten(0, grid)
    out = torch.zeros(2, *grid, device=target.device, dtype=torch.float32)
    for tile in tiles(grid, radius):
        if wanted is not None and not wanted[tile.here].any():
            continue
        mine = targets[tile.here].flatten(0, 1)
        near = sources[tile.near].flatten(0, 1)
        down, likely_down = _along(tile.rows, tile.near_rows, radius, target.device)
        right, likely_right = _along(tile.columns, tile.near_columns, radius, target.device)
        likely = likely_down[:, None, :, None] + likely_right[None, :, None, :]
        cosines = (mine @ near.T).float().view(likely.shape)
        share = (cosines / TEMPERATURE + likely).flatten(2).softmax(-1).view(likely.shape)
        out[0][tile.here] = (share.sum(2) * right).sum(-1)
        out[1][tile.here] = (share.sum(3) * down[:, None]).sum(-1)
    return out


def _neighbour_flow(target: Tensor, source: Tensor, grid: tuple[int, int], radius: int) -> Tensor:
    """As `token_flow`, where a GPU would have to be waited for to leave tokens out."""
    near = neighbours(grid, radius, target.device)
    likely = neighbour_cosines(target, source, near) / TEMPERATURE + _likely_around(grid, radius, target.device)
    share = likely.softmax(1)
    return torch.stack([share @ near.right, share @ near.down]).unflatten(1, grid)


def within_reach(masks: Tensor, radius: int) -> Tensor:
    """(h, w) bool: the tokens whose flow decides where masks (N, 4h, 4w) are carried, by up to `radius` tokens.

    A pixel's displacement is a mixture of those of its token and of the next one, hence two tokens more.
    """
    covered = F.max_pool2d((masks > 0).any(0, keepdim=True).float(), SCALE)[0] > 0
    return surroundings(covered, radius + 2)


def carry(masks: Tensor, flow: Tensor) -> Tensor:
    """Masks (N, 4h, 4w) of the earlier frame where its tokens are by now: the same shape. flow: (2, h, w) from
    `token_flow`. Beyond the frame's border its outermost pixels go on.
    """
    height, width = masks.shape[-2:]
    fine = F.interpolate(flow[None], (height, width), mode="bilinear", align_corners=False)[0] * SCALE
    # Clamped, rather than padded by grid_sample, which some devices cannot.
    x = (_centres(width, masks.device) + fine[0]).clamp(0.5, width - 0.5)
    y = (_centres(height, masks.device)[:, None] + fine[1]).clamp(0.5, height - 0.5)
    where = torch.stack([2 * x / width - 1, 2 * y / height - 1], dim=-1)
    out: Tensor = F.grid_sample(masks[None].float(), where[None], align_corners=False)[0]
    return out


@remembered(64)
def _along(here: range, near: range, radius: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """`offsets`, and what they add to the softmax's logits, float32. All frames of a video ask for the same."""
    away = offsets(here, near, device)
    return away, _likely(away).masked_fill(away.abs() > radius, -torch.inf)


@remembered(4)
def _likely_around(grid: tuple[int, int], radius: int, device: torch.device) -> Tensor:
    """(h * w, K) float32 what distance adds to the softmax's logits for each of `neighbours`."""
    near = neighbours(grid, radius, device)
    return (_likely(near.down) + _likely(near.right)).masked_fill(~near.inside, -torch.inf)


def _likely(away: Tensor) -> Tensor:
    """What the distance along one axis adds to the softmax's logits."""
    return away.float() ** 2 * (-FAR / TEMPERATURE)


@remembered(8)
def _centres(count: int, device: torch.device) -> Tensor:
    """(count,) float32, where the middles of a row's pixels are."""
    return torch.arange(count, device=device, dtype=torch.float32) + 0.5
