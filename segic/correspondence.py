"""Dense correspondence discovery (paper section 3.1) and label propagation over it (eq. 1 and 2).

Two ways of propagating an example's mask to the target:

- the paper's: every pixel of the target is compared with the mean feature of the example's mask (`mean_similarity`);
- dense: every token of the target looks for its own best matches inside and outside each entity (`entity_margins`).

Neither ever resamples a many-channel feature map, and neither forms the pixel-by-pixel matrix C of eq. 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FEW_GROUPS = 4  # for more, ranking whole rows once costs less than looking for the best of each group
# Columns for each of the best that are looked for: from SORTED on torch's search is a partial sort; of fewer it orders
# many first, which from SOME on takes longer than looking at as many as that.
SOME, SORTED = 16, 64


@dataclass(frozen=True)
class _Axis:
    """Bilinear resampling along one axis, half-pixel centres: lower neighbour's index and the upper one's weight."""

    lower: Tensor
    weight: Tensor


def _axis(inputs: int, outputs: int, device: torch.device) -> _Axis:
    position = (torch.arange(outputs, device=device, dtype=torch.float32) + 0.5) * (inputs / outputs) - 0.5
    position = position.clamp(min=0)
    lower = position.long().clamp(max=inputs - 1)
    return _Axis(lower, position - lower)


def upsampled_norm(features: Tensor, size: tuple[int, int]) -> Tensor:
    """The norm of bilinearly upsampled features, without upsampling them.

    features: (B, C, h, w). Returns (B, *size), equal to `F.interpolate(features, size, mode="bilinear").norm(dim=1)`.
    A bilinear mixture's squared norm is a quadratic form in its four corners, so six maps of dot products between
    neighbours, one channel each, hold all that is needed.
    """
    f = features.float()
    right, down = torch.cat([f[..., 1:], f[..., -1:]], -1), torch.cat([f[..., 1:, :], f[..., -1:, :]], -2)
    diagonal = torch.cat([down[..., 1:], down[..., -1:]], -1)

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(1)

    itself, beside, below = dot(f, f), dot(f, right), dot(f, down)
    crossed = dot(f, diagonal) + dot(right, down)

    rows, columns = _axis(f.shape[-2], size[0], f.device), _axis(f.shape[-1], size[1], f.device)
    y, x = rows.lower[:, None], columns.lower[None, :]
    y1, x1 = (y + 1).clamp(max=f.shape[-2] - 1), (x + 1).clamp(max=f.shape[-1] - 1)
    b, d = rows.weight[:, None], columns.weight[None, :]
    a, c = 1 - b, 1 - d
    squared = (
        (a * c) ** 2 * itself[:, y, x]
        + (a * d) ** 2 * itself[:, y, x1]
        + (b * c) ** 2 * itself[:, y1, x]
        + (b * d) ** 2 * itself[:, y1, x1]
        + 2 * c * d * (a**2 * beside[:, y, x] + b**2 * beside[:, y1, x])
        + 2 * a * b * (c**2 * below[:, y, x] + d**2 * below[:, y, x1])
        + 2 * a * b * c * d * crossed[:, y, x]
    )
    return squared.clamp(min=0).sqrt()


def mean_similarity(features: Tensor, norm: Tensor, visual: Tensor, eps: float) -> Tensor:
    """Eq. 2's `a` as released: the cosine between the upsampled features and each entity's visual instruction.

    features: (B, C, h, w); norm: (B, H', W') from `upsampled_norm`; visual: (B, N, C). Returns (B, N, H', W') in -1..1.
    The numerator commutes with the upsampling.
    """
    products = torch.einsum("bchw,bnc->bnhw", features.float(), visual.float())
    numerator = F.interpolate(products, tuple(norm.shape[-2:]), mode="bilinear", align_corners=False)
    length = visual.float().norm(dim=-1)[..., None, None]
    return numerator / (norm[:, None].clamp(min=eps) * length.clamp(min=eps))


def unit(features: Tensor) -> Tensor:
    """(..., C, h, w) features -> (..., h * w, C) of length 1, for cosine matching."""
    return F.normalize(features.flatten(-2).transpose(-1, -2), dim=-1)


def window(grid: tuple[int, int], radius: int, device: torch.device) -> Tensor:
    """(hw, hw) bool: which pairs of tokens of two frames lie at most `radius` rows and columns apart."""
    y = torch.arange(grid[0], device=device)
    x = torch.arange(grid[1], device=device)
    near_y = (y[:, None] - y).abs() <= radius
    near_x = (x[:, None] - x).abs() <= radius
    pairs = near_y[:, None, :, None] & near_x[None, :, None, :]
    return pairs.reshape(grid[0] * grid[1], -1)


def entity_margins(similarity: Tensor, group: Tensor, entities: int, topk: int) -> Tensor:
    """How much better each target token matches an entity than everything else: dense label propagation.

    similarity: (T, E) cosines of target tokens to example tokens; where a pair is not allowed, 0 or less. In any
    precision: the best are found as they are, and averaged in float32.
    group: (E,) int64, 0 for background, 1..entities for the entity that owns the example token.
    Returns (entities, T): the mean of the `topk` best cosines to the entity's tokens minus the mean of the `topk` best
    to all others' (background and the other entities: each entity is the others' negative). An entity without tokens
    has margins of minus the others' best.

    The cost is that of one pass over `similarity`, whatever the number of entities.
    """
    return margins_of_best(best_matches(similarity, group, entities + 1, topk).float())


def best_matches(similarity: Tensor, group: Tensor, groups: int, topk: int) -> Tensor:
    """(T, E) cosines and (E,) int64 groups -> (groups, T, topk): the best of each group, falling, minus infinity where
    a group has fewer.
    """
    if group.device.type != "cpu":  # it would have to be waited for to tell how many columns are whose
        return best_by_group(similarity, group, groups, topk)[0]
    if not bool((group[1:] >= group[:-1]).all()):  # callers with large matrices sort their tokens before the product
        group, order = group.sort()
        similarity = similarity[:, order]
    return best_of_columns(similarity, torch.bincount(group, minlength=groups).tolist(), topk)


def margins_of_best(best: Tensor) -> Tensor:
    """`entity_margins` from the best similarities by group: (1 + entities, T, topk), minus infinity where there are
    fewer -> (entities, T).
    """
    topk, entities = best.shape[2], best.shape[0] - 1
    if entities == 1:
        background, entity = _mean_of_found(best)
        return (entity - background)[None]
    # An entity can own at most `topk` of the 2 * topk best matches of all groups together, so the best of the others
    # is among these.
    ranked, place = best.transpose(0, 1).flatten(1).topk(min(2 * topk, best.shape[0] * topk), dim=1)
    mine = (place // topk)[None] == torch.arange(1, entities + 1, device=best.device)[:, None, None]
    others = ranked.expand(entities, -1, -1).masked_fill(mine, -torch.inf).topk(topk, dim=2).values
    of_entities, of_others = _mean_of_found(torch.stack([best[1:], others]))
    return of_entities - of_others


def best_of_columns(similarity: Tensor, counts: Sequence[int], topk: int) -> Tensor:
    """As `best_matches`, of columns that are sorted by group; counts: how many each group has."""
    best = similarity.new_full((len(counts), similarity.shape[0], topk), -torch.inf)
    for index, columns in enumerate(similarity.split(list(counts), dim=1)):
        count = columns.shape[1]
        if SOME * topk <= count < SORTED * topk:
            columns = F.pad(columns, (0, SORTED * topk - count), value=-torch.inf)
        k = min(topk, count)
        best[index, :, :k] = columns.topk(k, dim=1).values
    return best


def best_by_group(similarity: Tensor, group: Tensor, groups: int, topk: int) -> tuple[Tensor, Tensor]:
    """(T, E) cosines and (E,) or (T, E) int64 groups -> (groups, T, topk): the best of each group, falling, minus
    infinity where a group has fewer; and (groups, T) int64, how many each group has. Groups from `groups` on are left
    out.

    Every shape follows from those of the arguments, so that nothing has to be waited for.
    """
    if groups <= FEW_GROUPS:
        return _best_of_each(similarity, group, groups, topk)
    # Sorted by group and then by falling cosine, which is between -1 and 1: all that is of a group lies together.
    key, order = (4.0 * group - similarity.float()).sort(dim=1)
    borders = 4.0 * torch.arange(groups + 1, device=group.device, dtype=key.dtype) - 2
    starts = torch.searchsorted(key, borders.expand(len(key), -1).contiguous())
    place = starts[:, :-1, None] + torch.arange(topk, device=group.device)
    column = order.gather(1, place.clamp(max=key.shape[1] - 1).flatten(1))
    best = similarity.gather(1, column).unflatten(1, (groups, topk))
    best = best.masked_fill(place >= starts[:, 1:, None], -torch.inf)
    return best.transpose(0, 1), (starts[:, 1:] - starts[:, :-1]).T


def _best_of_each(similarity: Tensor, group: Tensor, groups: int, topk: int) -> tuple[Tensor, Tensor]:
    """As `best_by_group`, by maxima of each group, which costs as much again for each."""
    key = torch.arange(groups, device=group.device)[:, None, None]
    own = key == (group if group.ndim == 2 else group[None])
    rest = torch.where(own, similarity, -torch.inf)
    best = []
    for _ in range(topk):  # a GPU's own search for the few best of a row takes twice as long
        value, place = rest.max(2, keepdim=True)
        best.append(value)
        rest.scatter_(2, place, -torch.inf)
    return torch.cat(best, 2), own.sum(2).expand(-1, len(similarity))


def _mean_of_found(best: Tensor) -> Tensor:
    """(..., k) with minus infinity where there was no match -> (...) mean of the rest, 0 where there was none."""
    none = best == -torch.inf
    return best.masked_fill(none, 0).sum(-1) / (best.shape[-1] - none.sum(-1)).clamp(min=1)
