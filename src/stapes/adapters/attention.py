"""The post-norm Transformer of BERT (arXiv 1810.04805) and the Q-Former of BLIP-2 (arXiv 2301.12597), blind to padding.

    x <- LayerNorm(x + attention(x, x));  [x <- LayerNorm(x + attention(x, h));]  x <- LayerNorm(x + W2 GELU(W1 x))

Keys and values come out of one matrix, and with the queries too where all three read the same. A Q-Former with a single query
has nothing to weigh in its self-attention, so that two thirds of that matrix never learn; as in the papers, whose parameter
counts have them, they are there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stapes.adapters.layers import key_mask
from stapes.errors import RecipeError
from stapes.types import Padded

EPS = 1e-12
INIT_STD = 0.02


class Attention(nn.Module):
    """Multi-head attention of (B, Q, C) over (B, S, E), or over itself: (B, Q, C).

    Args:
        dim: C.
        heads: that share C.
        dropout: of the attention weights.
        source_dim: E; None to attend to itself.

    Raises:
        RecipeError: ``dim`` cannot be shared out among the heads.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0, source_dim: int | None = None) -> None:
        super().__init__()
        if dim % heads:
            raise RecipeError("adapter.heads", f"{heads} heads for a dim of {dim}", "a dim that is a multiple of the heads")
        self.heads, self.dropout = heads, dropout
        self.query = None if source_dim is None else nn.Linear(dim, dim)
        self.read = nn.Linear(dim, 3 * dim) if source_dim is None else nn.Linear(source_dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, hidden: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend where ``mask`` (B, 1, 1, S) is true; None is everywhere."""
        projections = self.read(source).chunk(3 if self.query is None else 2, dim=-1)
        if self.query is not None:
            projections = (self.query(hidden), *projections)
        query, key, value = (projection.unflatten(-1, (self.heads, -1)).transpose(1, 2) for projection in projections)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).flatten(2))


class PostNormLayer(nn.Module):
    """Self-attention, cross-attention where there is a source, feed-forward; see the module: (B, K, C) -> (B, K, C).

    Args:
        dim: C.
        heads: attention heads.
        ffn_dim: width of the feed-forward part.
        dropout: after each part, and of the attention weights.
        source_dim: width of what the cross-attention reads; None for a layer without.
    """

    def __init__(self, dim: int, heads: int, ffn_dim: int, dropout: float, source_dim: int | None = None) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, dropout)
        self.attention_norm = nn.LayerNorm(dim, eps=EPS)
        if source_dim is not None:
            self.cross_attention = Attention(dim, heads, dropout, source_dim)
            self.cross_norm = nn.LayerNorm(dim, eps=EPS)
        self.ffn_in = nn.Linear(dim, ffn_dim)
        self.ffn_out = nn.Linear(ffn_dim, dim)
        self.ffn_norm = nn.LayerNorm(dim, eps=EPS)
        self.dropout = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INIT_STD)
                nn.init.zeros_(module.bias)

    def forward(self, frames: Padded, source: Padded | None = None) -> Padded:
        """Attend over the real steps only."""
        hidden = frames.values
        found = self.attention(hidden, hidden, key_mask(frames))
        hidden = self.attention_norm(hidden + self.dropout(found))
        if source is not None:
            found = self.cross_attention(hidden, source.values, key_mask(source))
            hidden = self.cross_norm(hidden + self.dropout(found))
        found = self.ffn_out(F.gelu(self.ffn_in(hidden)))
        return Padded(self.ffn_norm(hidden + self.dropout(found)), frames.lengths)


class QFormer(nn.Module):
    """Learned queries that read frames, layer after layer: (B, T, E) -> (B, Q, C).

    Args:
        source_dim: E.
        queries: Q.
        dim: C.
        layers: each a ``PostNormLayer`` with cross-attention.
        heads: attention heads of each.
        ffn_dim: width of their feed-forward part.
        dropout: in the layers, and of the queries.
    """

    def __init__(self, source_dim: int, queries: int, dim: int, layers: int, heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.queries = nn.Parameter(INIT_STD * torch.randn(queries, dim))
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(PostNormLayer(dim, heads, ffn_dim, dropout, source_dim) for _ in range(layers))

    def forward(self, frames: Padded) -> Tensor:
        """Read the real frames only; a row without any gives numbers that mean nothing."""
        rows, queries = len(frames.lengths), len(self.queries)
        start = self.norm(self.queries).expand(rows, -1, -1)
        hidden = Padded(self.dropout(start), frames.lengths.new_full((rows,), queries))
        for layer in self.layers:
            hidden = layer(hidden, frames)
        return hidden.values
