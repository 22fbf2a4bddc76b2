"""The two-way transformer between an entity's tokens and the image (algorithm 1, lines 6-9)."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 4  # times as many queries as keys, or keys as queries, from which on a CPU takes a way of its own
FOLDED = 24  # tokens: of so many, products with what their projections make of them cost less than the projections


class Attention(nn.Module):
    """Multi-head attention with an inner width of its own. (B, Q, C), (B, K, C), (B, K, C) -> (B, Q, C).

    counts: (B, K) in the precision of the rest, the logarithm of how many keys each stands for; None: one.
    """

    def __init__(self, width: int, heads: int, inner: int):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, counts: Tensor | None = None) -> Tensor:
        if q.device.type == "cpu" and not torch.is_grad_enabled():
            if counts is None and q.shape[1] > FEW * k.shape[1]:
                return self._of_few(q, k, v) if k.shape[1] <= FOLDED else self._column_by_column(q, k, v)
            if k.shape[1] > FEW * q.shape[1] and q.shape[1] <= FOLDED:
                return self._by_few(q, k, v, counts)
        queries, keys, values = self._split(self.q_proj(q)), self._split(self.k_proj(k)), self._split(self.v_proj(v))
        weighted = partial(F.scaled_dot_product_attention, attn_mask=None if counts is None else counts[:, None, None])
        mixed = trained_in_float32(weighted, queries, keys, values)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _of_few(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As `forward`, for many queries of few keys: what is learnt of queries and of results goes to the keys' side,
        (W q + b)' k = q' (W' k) + b' k, and what is left are two thin products. Neither the queries' nor the mixed
        values' projections are formed; on a CPU a third of the time.
        """
        keys, values = self._split(self.k_proj(k)), self._split(self.v_proj(v))  # (B, heads, K, inner / heads)
        keys = keys * keys.shape[-1] ** -0.5
        into = keys @ self.q_proj.weight.unflatten(0, (self.heads, -1))
        offset = keys @ self.q_proj.bias.unflatten(0, (self.heads, -1))[..., None]
        scores = torch.baddbmm(offset.flatten(1, 2), into.flatten(1, 2), q.mT)  # (B, heads * K, Q)
        share = scores.unflatten(1, (self.heads, -1)).softmax(2).flatten(1, 2)
        out = values @ self.out_proj.weight.T.unflatten(0, (self.heads, -1))
        return torch.baddbmm(self.out_proj.bias.expand(1, 1, -1), share.mT, out.flatten(1, 2))

    def _by_few(self, q: Tensor, k: Tensor, v: Tensor, counts: Tensor | None = None) -> Tensor:
        """As `forward`, for few queries of many keys: what is learnt of keys and of values goes to the queries' side,
        as in `_of_few`. The keys' bias moves all scores of a query alike, which softmax does not see; shares add up to
        one, so that the values' is added once.
        """
        queries = self._split(self.q_proj(q))  # (B, heads, Q, inner / heads)
        into = (queries * queries.shape[-1] ** -0.5) @ self.k_proj.weight.unflatten(0, (self.heads, -1))
        scores = _product(into.flatten(1, 2), k.mT)  # (B, heads * Q, K)
        share = (scores if counts is None else scores + counts[:, None]).softmax(2)
        seen = _product(share, v).unflatten(1, (self.heads, -1))
        mixed = seen @ self.v_proj.weight.unflatten(0, (self.heads, -1)).mT
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2) + self.v_proj.bias)
        return out

    def _column_by_column(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As `forward`, for many queries of some keys, with the scores of each key side by side: torch's attention goes
        through the few of each query.
        """
        queries, keys, values = self._split(self.q_proj(q)), self._split(self.k_proj(k)), self._split(self.v_proj(v))
        share = ((keys * keys.shape[-1] ** -0.5) @ queries.mT).softmax(2)  # (B, heads, K, Q)
        out: Tensor = self.out_proj((share.mT @ values).transpose(1, 2).flatten(2))
        return out


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b of (B, M, K) and (B, K, N). That of one as a product of matrices: of a batch, torch lays a transposed
    factor out anew on CPUs first, which takes as long as the product.
    """
    return torch.mm(a[0], b[0])[None] if len(a) == 1 else torch.bmm(a, b)


def trained_in_float32(operation: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """operation(*inputs): in float32 where a CPU trains with autocast, in autocast's precision elsewhere.

    For attention, whose bfloat16 gradients take torch 2.13 three to four times as long on CPUs as float32 ones.
    Products without a gradient are as fast in bfloat16, and have half as much to read.
    """
    cpu = inputs[0].device.type == "cpu"
    if not (cpu and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")):
        return operation(*inputs)
    with torch.autocast("cpu", enabled=False):
        return operation(*(x.float() for x in inputs))


class TokenMlp(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.lin1 = nn.Linear(width, hidden)
        self.lin2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lin2(F.relu(self.lin1(x)))
        return out


class TwoWayLayer(nn.Module):
    """Self-attention of the tokens, tokens to image, MLP, image to tokens."""

    def __init__(self, width: int, heads: int, hidden: int, first: bool):
        super().__init__()
        self.first = first  # the first layer's self-attention replaces the tokens and sees no positions
        self.self_attn = Attention(width, heads, width)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = Attention(width, heads, width // 2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = TokenMlp(width, hidden)
        self.norm3 = nn.LayerNorm(width)
        self.norm4 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = Attention(width, heads, width // 2)

    def forward(
        self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor, counts: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            q = tokens + token_pe
            tokens = tokens + self.self_attn(q, q, tokens)
        tokens = self.norm1(tokens)
        placed = image + image_pe
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, placed, image, counts))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(placed, tokens + token_pe, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """Depth 2, with a last attention from the tokens to the image."""

    def __init__(self, width: int = 256, heads: int = 8, hidden: int = 2048, depth: int = 2):
        super().__init__()
        self.layers = nn.ModuleList(TwoWayLayer(width, heads, hidden, first=i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(width, heads, width // 2)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(
        self, image: Tensor, image_pe: Tensor, tokens: Tensor, counts: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """image (N, hw, C), image_pe (1 or N, hw, C), tokens (N, T, C) -> tokens (N, T, C), image (N, hw, C). counts:
        (N, hw), the logarithm of how many of the image's tokens each stands for; None: one.
        """
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe, counts)
        attended = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image, counts)
        return self.norm_final_attn(tokens + attended), image
