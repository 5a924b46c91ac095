"""``conv1d_transformer``: strided convolutions over time, Transformer layers, a projection. arXiv 2406.17272.

    z = W LayerNorm(layer_m(... layer_1(conv_n(... conv_1(LayerNorm(h)))))) + b

| paper | here | shape |
|---|---|---|
| Conv1d layers | ``convs`` | each halves the frame rate |
| Transformer layers | ``layers`` | (B, K, dim) |
| projection | ``out`` | (D, dim) |

Differs from the paper: it names the adapter and gives no sizes; all of them are our choice. So are the rotary positions and
the layers that start as the identity.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from stapes.adapters.base import Adapter
from stapes.adapters.layers import StridedConv, TransformerLayer
from stapes.types import Padded


class Conv1dTransformer(Adapter):
    """Convolutions of stride 2, then Transformer layers: (B, T, E) -> (B, ceil(T / 2**convs), D).

    Args:
        encoder_dim: E.
        llm_dim: D.
        dim: width of the convolutions and layers.
        convs: how many convolutions, each of stride 2.
        kernel: their width in frames, odd.
        layers: how many Transformer layers.
        heads: attention heads of each.
        ffn_dim: width of their feed-forward part.
        dropout: in the layers.
        start_at_zero: let each layer start as the identity; see ``TransformerLayer``.
    """

    def __init__(
        self,
        encoder_dim: int,
        llm_dim: int,
        dim: int = 512,
        convs: int = 2,
        kernel: int = 5,
        layers: int = 2,
        heads: int = 8,
        ffn_dim: int = 2048,
        dropout: float = 0.0,
        start_at_zero: bool = True,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(encoder_dim)
        widths = [encoder_dim, *[dim] * convs]
        self.convs = nn.ModuleList(StridedConv(a, b, kernel, 2) for a, b in pairwise(widths))
        self.layers = nn.ModuleList(TransformerLayer(widths[-1], heads, ffn_dim, dropout, start_at_zero) for _ in range(layers))
        self.out_norm = nn.LayerNorm(widths[-1])
        self.out = nn.Linear(widths[-1], llm_dim)

    def forward(self, frames: Padded) -> Padded:
        """See ``Adapter.forward``."""
        hidden = Padded(self.norm(frames.zero_padding().values), frames.lengths)
        for module in (*self.convs, *self.layers):
            hidden = module(hidden)
        return Padded(self.out(self.out_norm(hidden.values)), hidden.lengths).zero_padding()

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """T halved once for each convolution, rounded up each time."""
        for conv in self.convs:
            lengths = conv.output_lengths(lengths)  # type: ignore[operator]
        return lengths
