"""``wlq_former``: a Q-Former over every third of a second. "WLQ-former" of arXiv 2409.17044, after SALMONN, arXiv 2310.13289.

    z_i = W QFormer(q, LayerNorm(h)_{iw ... iw+w-1}) + b        QFormer: see ``attention``

| paper | here | shape |
|---|---|---|
| window of 0.333 s, w frames | ``window_seconds``, ``window`` | round(0.333 s x frame rate): 17 at 50 Hz, 2 at 6.25 Hz |
| encoder output | ``frames.values`` | (B, T, E) |
| trainable queries q, 1 | ``q_former.queries`` | (Q, 768) |
| Q-Former: 4 layers, 12 heads, feed-forward 3072 | ``q_former`` | (B K, Q, 768), K = ceil(T / w) |
| linear layer | ``out`` | (D, 768) |

Sizes are those of the authors' code of 2409.17044; SALMONN has 2 layers. Windows do not overlap.

Differs from the paper: the last window holds the frames that are left and no zeros, which the code lets the queries read
(SALMONN's drops those frames). What dropout is in the Q-Former we do not know; 0.1 is BERT's.
"""

from __future__ import annotations

from torch import Tensor

from stapes.adapters.layers import windows
from stapes.adapters.q_former import QFormerAdapter
from stapes.types import Padded


class WLQFormer(QFormerAdapter):
    """A Q-Former over each window: (B, T, E) -> (B, Q ceil(T / window), D).

    Args:
        encoder_dim: E.
        llm_dim: D.
        seconds_per_frame: time step of the frames.
        window_seconds: rounded to whole frames, at least one.
        queries: Q, embeddings per window.
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
        seconds_per_frame: float,
        window_seconds: float = 1 / 3,
        queries: int = 1,
        dim: int = 768,
        layers: int = 4,
        heads: int = 12,
        ffn_dim: int = 3072,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoder_dim, llm_dim, queries, dim, layers, heads, ffn_dim, dropout)
        self.window = max(1, round(window_seconds / seconds_per_frame))

    def forward(self, frames: Padded) -> Padded:
        """See ``Adapter.forward``."""
        utterances = len(frames.lengths)
        found = self.read(self.place(windows(self.normed(frames), self.window), utterances))
        return Padded(found.unflatten(0, (utterances, -1)).flatten(1, 2), self.output_lengths(frames.lengths)).zero_padding()

    def place(self, cut: Padded, utterances: int) -> Padded:
        """Tell the windows (B K, w, E) of B utterances where they stand; here they are not told."""
        return cut

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Q ceil(T / window)."""
        return self.queries * -(-lengths // self.window)
