"""``q_former``: learned queries read the whole utterance, however long, into a fixed number of embeddings. arXiv 2309.13963.

    z = W QFormer(q, LayerNorm(h)) + b        QFormer: see ``attention``

| paper | here | shape |
|---|---|---|
| encoder output | ``frames.values`` | (B, T, E) |
| trainable queries q, 80 | ``q_former.queries`` | (Q, 768) |
| Q-Former | ``q_former`` | (B, Q, 768) |
| linear layer | ``out`` | (D, 768) |

The queries know no order but their own, and the frames have the encoder's positions only.

Differs from the paper: its text could not be had; that 80 queries did best on up to 30 s of speech is from a reader's notes.
Layers (2, as in SALMONN by the same group), widths (those of BERT base), dropout and the LayerNorm are our choice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stapes.adapters.attention import QFormer
from stapes.adapters.base import Adapter
from stapes.types import Padded


class QFormerAdapter(Adapter):
    """A Q-Former over each utterance: (B, T, E) -> (B, Q, D).

    Args:
        encoder_dim: E.
        llm_dim: D.
        queries: Q, the number of embeddings.
        dim: width of the Q-Former.
        layers: how many.
        heads: attention heads of each.
        ffn_dim: width of their feed-forward part.
        dropout: in the layers.
    """

    def __init__(
        self,
        encoder_dim: int,
        llm_dim: int,
        queries: int = 80,
        dim: int = 768,
        layers: int = 2,
        heads: int = 12,
        ffn_dim: int = 3072,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.queries = queries
        self.norm = nn.LayerNorm(encoder_dim)
        self.q_former = QFormer(encoder_dim, queries, dim, layers, heads, ffn_dim, dropout)
        self.out = nn.Linear(dim, llm_dim)

    def forward(self, frames: Padded) -> Padded:
        """See ``Adapter.forward``."""
        return Padded(self.read(self.normed(frames)), self.output_lengths(frames.lengths))

    def normed(self, frames: Padded) -> Padded:
        """LayerNorm of every frame."""
        return Padded(self.norm(frames.zero_padding().values), frames.lengths)

    def read(self, frames: Padded) -> Tensor:
        """What the queries make of each row: (R, T, E) -> (R, Q, D)."""
        return self.out(self.q_former(frames))

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Q, whatever T is."""
        return torch.full_like(lengths, self.queries)
