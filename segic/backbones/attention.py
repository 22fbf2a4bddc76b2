"""Attention over all tokens of a frame: two thirds of a small backbone's time on a CPU."""

from math import log

import torch
import torch.nn.functional as F
from torch import Tensor

from segic.devices import cpu_has
from segic.parts import with_room

LEAST = 128  # queries, a thread: of fewer, products are thin
SCORES = 2**20  # formed at once, a thread: fewer make more products of less each, more leave a core's caches
ROWS = 16  # of which a part of the queries is a multiple
WORTH_IT = 512  # tokens; with fewer, torch's own is as fast
LOG2_E = 1 / log(2)
LARGEST = 100.0  # scores up to this may be raised as they are: sums of 2 to such powers fit into bfloat16


def attention(q: Tensor, k: Tensor, v: Tensor, most: int = 0) -> Tensor:
    """Softmax attention of (B, heads, N, D) queries, keys and values that lie contiguously -> (B, heads, N, D).

    most: what N may be in the calls to come. q and k may be overwritten. Without gradients.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] >= WORTH_IT and _products_beat_torch():
        return spelled_out(q, k, v, most)
    return F.scaled_dot_product_attention(q, k, v)


def spelled_out(q: Tensor, k: Tensor, v: Tensor, most: int = 0) -> Tensor:
    """As `attention`, head by head from matrix products, whose results are rounded to bfloat16. In the result, heads
    lie side by side.

    torch's own kernel multiplies bfloat16 at a third of the rate that matrix products reach on CPUs without AMX. The
    mean key is taken off first: it moves all scores of a query alike, which softmax does not see, and what remains of
    the scores is small enough that rounding them costs nothing; and small enough, but for a few heads, to be raised
    without looking for the largest of each query first. What the shares of a query add up to is divided by at the end.
    """
    batch, heads, n, width = q.shape
    q.mul_(width**-0.5 * LOG2_E)
    k.sub_(k.mean(2, keepdim=True))
    are_small = (_longest(q) * _longest(k) <= LARGEST).flatten().tolist()
    rows = _rows_at_once(n)
    room = _scores_at_once(max(n, most)) + ROWS * max(n, most)
    scores = with_room(q, (rows * n,), room, dim=0).view(rows, n)
    sums = with_room(q, q.shape, most, dim=2)
    totals = with_room(q, (batch, heads, n), most, dim=2)
    by_head = zip(are_small, *(t.flatten(0, 1) for t in (q, k, v, sums, totals)), strict=True)
    for small, queries, keys, values, result, total in by_head:
        for start in range(0, n, rows):
            part = slice(start, min(n, start + rows))
            score = scores[: part.stop - start]
            torch.mm(queries[part], keys.T, out=score)
            if not small:
                score.sub_(score.amax(1, keepdim=True))
            share = score.exp2_()
            torch.mm(share, values, out=result[part])
            torch.sum(share, 1, out=total[part])
    out = with_room(q, (batch, n, heads, width), most, dim=1).transpose(1, 2)
    return torch.div(sums, totals[..., None], out=out)


def _rows_at_once(n: int) -> int:
    """Of n queries, so many that they have about as many scores as are formed at once, in parts about as large."""
    count = -(-n * n // _scores_at_once(n))
    return ROWS * -(-n // (ROWS * count))


def _scores_at_once(n: int) -> int:
    return max(SCORES, LEAST * n) * torch.get_num_threads()


def _longest(vectors: Tensor) -> Tensor:
    """(..., N, D) -> (...): about the largest length. No score is larger than the product of two of them."""
    return torch.linalg.vector_norm(vectors, dim=-1).amax(-1)


def _products_beat_torch() -> bool:
    """Whether bfloat16 is multiplied in hardware, but not by AMX, which torch's own attention knows how to use."""
    return cpu_has("avx512_bf16") and not cpu_has("amx_tile")
