"""Attention over all tokens of a frame: two thirds of a small backbone's time on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor

from segic.devices import cpu_has

ROWS = 256  # queries a thread whose scores are formed at once: with 2,000 keys they stay in a core's cache
WORTH_IT = 512  # tokens; with fewer, torch's own is as fast


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
    the scores is small enough that rounding them costs nothing.
    """
    n = q.shape[2]
    q.mul_(q.shape[3] ** -0.5)
    k.sub_(k.mean(2, keepdim=True))
    out = torch.empty_like(q)
    step = min(n, ROWS * torch.get_num_threads())
    scores, shares = (q.new_empty(step, n) for _ in range(2))
    for queries, keys, values, result in zip(*(t.flatten(0, 1) for t in (q, k, v, out)), strict=True):
        for start in range(0, n, step):
            rows = slice(start, min(n, start + step))
            score, share = scores[: rows.stop - start], shares[: rows.stop - start]
            torch.mm(queries[rows], keys.T, out=score)
            torch.softmax(score, dim=1, out=share)
            torch.mm(share, values, out=result[rows])
    return out


def _products_beat_torch() -> bool:
    """Whether bfloat16 is multiplied in hardware, but not by AMX, which torch's own attention knows how to use."""
    return cpu_has("avx512_bf16") and not cpu_has("amx_tile")
