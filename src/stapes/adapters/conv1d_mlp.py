"""``conv1d_mlp``: strided convolutions over time, then an MLP. "A comprehensive solution", arXiv 2406.17272.

    z = W2 GELU(W1 LayerNorm(conv_n(... conv_1(LayerNorm(h)))) + b1) + b2

| paper | here | shape |
|---|---|---|
| Conv1d layers | ``convs`` | each halves the frame rate |
| MLP | ``hidden``, ``out`` | (hidden_dim, dim), (D, hidden_dim) |

Differs from the paper: it names the adapter and gives neither kernel sizes, strides, widths nor normalisation; all of them
are our choice (two convolutions of stride 2: 50 -> 12.5 embeddings a second).
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from stapes.adapters.base import Adapter
from stapes.adapters.layers import StridedConv
from stapes.types import Padded


class Conv1dMLP(Adapter):
    """Convolutions of stride 2, then an MLP: (B, T, E) -> (B, ceil(T / 2**convs), D).

    Args:
        encoder_dim: E.
        llm_dim: D.
        dim: channels of the convolutions.
        convs: how many, each of stride 2.
        kernel: their width in frames, odd.
        hidden_dim: width of the MLP's hidden layer.
    """

    conv: type[StridedConv] = StridedConv  # a class of its own for ``dws_mlp``, which differs in nothing else

    def __init__(
        self, encoder_dim: int, llm_dim: int, dim: int = 512, convs: int = 2, kernel: int = 5, hidden_dim: int = 2048
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(encoder_dim)
        widths = [encoder_dim, *[dim] * convs]
        self.convs = nn.ModuleList(self.conv(a, b, kernel, 2) for a, b in pairwise(widths))
        self.mlp_norm = nn.LayerNorm(widths[-1])
        self.hidden = nn.Linear(widths[-1], hidden_dim)
        self.out = nn.Linear(hidden_dim, llm_dim)

    def forward(self, frames: Padded) -> Padded:
        """See ``Adapter.forward``."""
        hidden = Padded(self.norm(frames.zero_padding().values), frames.lengths)
        for conv in self.convs:
            hidden = conv(hidden)
        return Padded(self.out(F.gelu(self.hidden(self.mlp_norm(hidden.values)))), hidden.lengths).zero_padding()

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """T halved once for each convolution, rounded up each time."""
        for conv in self.convs:
            lengths = conv.output_lengths(lengths)  # type: ignore[operator]
        return lengths
