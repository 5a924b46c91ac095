"""``segment_q_former``: a Q-Former over every segment of a long recording, told which one it reads. arXiv 2309.13963.

    z_s = W QFormer(q, LayerNorm(h_s) + p(s)) + b;  z = [z_0; z_1; ...]        QFormer: see ``attention``

| paper | here | shape |
|---|---|---|
| segments h_s, as long as the encoder can read | ``segment_seconds``, ``window`` | (w, E) |
| sinusoidal position p(s) of a segment | ``sinusoids`` | (E,) |
| trainable queries q, 80 | ``q_former.queries`` | (Q, 768) |
| Q-Former, the same for all segments | ``q_former`` | (B K, Q, 768), K = ceil(T / w) |
| linear layer | ``out`` | (D, 768) |

Segments let speech be longer than the encoder's window without its embeddings becoming fewer for each second. A last segment
of half a second has Q embeddings too.

With the default of 30 s there is only ever one segment here, and p(0) is all that sets this apart from ``q_former``: every
encoder takes 30 s at most (``auto``: what its ``max_seconds`` says). Longer audio is cut at pauses before it gets there, each
piece is transcribed on its own, and training leaves it out. Only where ``segment_seconds`` is shorter than the utterances are
there several segments.

Differs from the paper: its text could not be had; that positions are sinusoids of the segment's index, added to the encoder's
output, and that 80 queries did best, is from a reader's notes. Counting from 0, layers, widths, dropout and the LayerNorm are
our choice; so is 30 s, which is Whisper's window.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stapes.adapters.wlq_former import WLQFormer
from stapes.types import Padded


class SegmentQFormer(WLQFormer):
    """A Q-Former over each segment: (B, T, E) -> (B, Q ceil(T / window), D).

    Args:
        encoder_dim: E.
        llm_dim: D.
        seconds_per_frame: time step of the frames.
        segment_seconds: rounded to whole frames, at least one.
        queries: Q, embeddings per segment.
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
        segment_seconds: float = 30.0,
        queries: int = 80,
        dim: int = 768,
        layers: int = 2,
        heads: int = 12,
        ffn_dim: int = 3072,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(
            encoder_dim, llm_dim, seconds_per_frame, segment_seconds, queries, dim, layers, heads, ffn_dim, dropout
        )

    def place(self, cut: Padded, utterances: int) -> Padded:
        """Add p(s) to every frame of segment s."""
        positions = sinusoids(len(cut.lengths) // utterances, cut.values).repeat(utterances, 1)
        return Padded(cut.values + positions[:, None], cut.lengths)


def sinusoids(count: int, like: Tensor, base: float = 10_000.0) -> Tensor:
    """(count, E) positions (arXiv 1706.03762), sines before cosines, for values (..., E); computed in float32."""
    width = like.shape[-1]
    frequency = base ** (-torch.arange(0, width, 2, device=like.device, dtype=torch.float32) / width)
    angle = torch.arange(count, device=like.device, dtype=torch.float32)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[:, :width].to(like.dtype)
