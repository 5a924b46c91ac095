"""``cross_attention``: every stretch of speech looks up what it sounds like in a table of embeddings. arXiv 2309.13963.

    H = W1 Conv1d(h) + b1;  z = W2 MultiHead(H, E, E) + b2

| paper | here | shape |
|---|---|---|
| encoder output | ``frames.values`` | (B, T, E) |
| convolution and linear layer, the queries H | ``conv`` | (B, ceil(T / stride), dim) |
| text embeddings, keys and values | ``table`` | (entries, D) |
| multi-head attention | ``attention`` | (B, ceil(T / stride), dim) |
| | ``out`` | (D, dim) |

An embedding is a mixture of what the table holds: speech chooses, the table says in which words.

Differs from the paper: its text could not be had; the equation is from readers' notes. There the table is the LLM's own, which
an adapter does not see here; ours is learnt, and smaller. Its size and start, kernel, stride (50 -> 12.5 embeddings a second),
widths, heads and the last linear layer are our choice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stapes.adapters.attention import Attention
from stapes.adapters.base import Adapter
from stapes.adapters.layers import StridedConv
from stapes.types import Padded


class CrossAttention(Adapter):
    """Convolve, then attend to a learned table: (B, T, E) -> (B, ceil(T / stride), D).

    Args:
        encoder_dim: E.
        llm_dim: D.
        dim: width of the queries and of the attention.
        heads: of the attention.
        entries: rows of the table.
        stride: frames per embedding.
        kernel: width of the convolution in frames; see ``StridedConv``.
    """

    def __init__(
        self,
        encoder_dim: int,
        llm_dim: int,
        dim: int = 1024,
        heads: int = 8,
        entries: int = 1024,
        stride: int = 4,
        kernel: int = 7,
    ) -> None:
        super().__init__()
        self.conv = StridedConv(encoder_dim, dim, kernel, stride, nn.Linear(dim, dim))
        self.table = nn.Parameter(torch.randn(entries, llm_dim))
        self.attention = Attention(dim, heads, source_dim=llm_dim)
        self.out = nn.Linear(dim, llm_dim)

    def forward(self, frames: Padded) -> Padded:
        """See ``Adapter.forward``."""
        queries = self.conv(frames)
        found = self.attention(queries.values, self.table.expand(len(frames.lengths), -1, -1))
        return Padded(self.out(found), queries.lengths).zero_padding()

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """ceil(T / stride)."""
        return self.conv.output_lengths(lengths)
