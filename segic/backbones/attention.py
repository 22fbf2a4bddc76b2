"""Attention over all tokens of a frame: two thirds of a small backbone's time on a CPU."""

from math import log

import torch
import torch.nn.functional as F
from torch import Tensor

from segic.devices import cpu_has

ROWS = 256  # queries a thread whose scores are formed at once: with 2,000 keys they stay in a core's cache
WORTH_IT = 512  # tokens; with fewer, torch's own is as fast
LOG2_E = 1 / log(2)
LARGEST = 100.0  # scores up to this may be raised as they are: sums of 2 to such powers fit into bfloat16


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of (B, heads, N, D) queries, keys and values that lie contiguously -> (B, heads, N, D).

    q and k may be overwritten. Without gradients.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] >= WORTH_IT and _products_beat_torch():
        return spelled_out(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def spelled_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As `attention`, head by head from matrix products, whose results are rounded to bfloat16.

    torch's own kernel multiplies bfloat16 at a third of the rate that matrix products reach on CPUs without AMX. The
    mean key is taken off first: it moves all scores of a query alike, which softmax does not see, and what remains of
    the scores is small enough that rounding them costs nothing; and small enough, but for a few heads, to be raised
    without looking for the largest of each query first. What the shares of a query add up to is divided by at the end.
    """
    heads, n = q.shape[0] * q.shape[1], q.shape[2]
    q.mul_(q.shape[3] ** -0.5 * LOG2_E)
    k.sub_(k.mean(2, keepdim=True))
    largest = (_longest(q) * _longest(k)).flatten().tolist()
    out = torch.empty_like(q)
    totals = q.new_empty(heads, n)
    step = min(n, ROWS * torch.get_num_threads())
    scores, shares = (q.new_empty(step, n) for _ in range(2))
    parts = zip(largest, *(t.flatten(0, 1) for t in (q, k, v, out)), totals, strict=True)
    for bound, queries, keys, values, result, total in parts:
        for start in range(0, n, step):
            rows = slice(start, min(n, start + step))
            score, share = scores[: rows.stop - start], shares[: rows.stop - start]
            torch.mm(queries[rows], keys.T, out=score)
            if bound > LARGEST:
                score.sub_(score.amax(1, keepdim=True))
            torch.exp2(score, out=share)
            torch.mm(share, values, out=result[rows])
            torch.sum(share, 1, out=total[rows])
    return out.div_(totals.view(*q.shape[:3], 1))


def _longest(vectors: Tensor) -> Tensor:
    """(..., N, D) -> (...): the largest length, float32. No score is larger than the product of two of them."""
    return torch.linalg.vector_norm(vectors, dim=-1, dtype=torch.float32).amax(-1)


def _products_beat_torch() -> bool:
    """Whether bfloat16 is multiplied in hardware, but not by AMX, which torch's own attention knows how to use."""
    return cpu_has("avx512_bf16") and not cpu_has("amx_tile")
