"""``cross_attention``: every stretch of speech looks up what it sounds like in a table of embeddings. arXiv 2309.13963.

    H = W1 Conv1d(h) + b1;  z = W2 MultiHead(H, E, E) + b2

| paper | here | shape |
|---|---|---|
| encoder output | ``frames.values`` | (B, T, E) |
| convolution and linear layer, the queries H | ``conv`` | (B, ceil(T / stride), dim) |
| text embeddings E, keys and values | ``keys``, ``table`` | (entries, D) or (V, D) |
| multi-head attention | ``attention`` | (B, ceil(T / stride), dim) |
| | ``out`` | (D, dim) |

An embedding is a mixture of what the table holds: speech chooses, the table says in which words.

``keys: llm`` is the paper's table as readers' notes have it: the LLM's own embeddings, which are not trained with the adapter
and not part of its checkpoint. Keys and values are then made of the whole vocabulary in every step, 2 V dim numbers: with the
default dim, 400 MB in float32 for 49,152 tokens. ``keys: learned``, the default, is ours: a smaller table that is trained.

Differs from the paper: its text could not be had; the equation, and that the table is the LLM's, are from readers' notes. The
learned table, its size and start, how sharply it is looked up at first, kernel, stride (50 -> 12.5 embeddings a second),
widths, heads and the last linear layer are our choice.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from stapes.adapters.attention import Attention
from stapes.adapters.base import Adapter
from stapes.adapters.layers import StridedConv
from stapes.errors import RecipeError
from stapes.types import Padded

SHARPNESS = 12.0  # ours; an attention that starts out even gives every sound the same mixture of the table, and learns for long


class CrossAttention(Adapter):
    """Convolve, then attend to a table of embeddings: (B, T, E) -> (B, ceil(T / stride), D).

    Args:
        encoder_dim: E.
        llm_dim: D.
        llm_table: (V, D), the LLM's embeddings.
        dim: width of the queries and of the attention.
        heads: of the attention.
        entries: rows of the learned table; with the LLM's there are V.
        stride: frames per embedding.
        kernel: width of the convolution in frames; see ``StridedConv``.
        keys: what is attended to, "learned" or "llm".

    Raises:
        RecipeError: ``keys`` is something else.
    """

    table: Tensor

    def __init__(
        self,
        encoder_dim: int,
        llm_dim: int,
        llm_table: Tensor,
        dim: int = 1024,
        heads: int = 8,
        entries: int = 1024,
        stride: int = 4,
        kernel: int = 7,
        keys: Literal["learned", "llm"] = "learned",
    ) -> None:
        super().__init__()
        if keys not in ("learned", "llm"):
            raise RecipeError("adapter.keys", f"'{keys}'", "'learned' or 'llm'")
        self.conv = StridedConv(encoder_dim, dim, kernel, stride, nn.Linear(dim, dim))
        if keys == "learned":
            self.table = nn.Parameter(torch.randn(entries, llm_dim))
        else:
            self.register_buffer("table", llm_table.detach(), persistent=False)
        self.attention = Attention(dim, heads, source_dim=llm_dim)
        if keys == "learned":
            assert self.attention.query is not None, "it does not attend to itself"
            with torch.no_grad():
                self.attention.query.weight *= SHARPNESS
        self.out = nn.Linear(dim, llm_dim)

    def forward(self, frames: Padded) -> Padded:
        """See ``Adapter.forward``."""
        queries = self.conv(frames)
        # All utterances as one row: keys and values, which may be of a whole vocabulary, are made once and not for each.
        table = self.table.to(queries.values.dtype)[None]
        found = self.attention(queries.values.flatten(0, 1)[None], table)[0].unflatten(0, queries.values.shape[:2])
        return Padded(self.out(found), queries.lengths).zero_padding()

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """ceil(T / stride)."""
        return self.conv.output_lengths(lengths)
