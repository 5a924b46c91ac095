"""``conv``: two strided convolutions, a quarter of the frames, and four Transformer layers. "Conv-based" of arXiv 2409.17044.

    c(x) = LayerNorm(Conv1d(x));  x = c_2(ReLU(c_1(h)));  z = Base(x)        Base: see ``transformer``

| paper | here | shape |
|---|---|---|
| encoder output | ``frames.values`` | (B, T, E) |
| c_1, c_2: kernel 3, stride 2 | ``kernel`` | (E, E, 3) each, or (dim, dim, 3) |
| layers between h and c_1 | ``layers_before`` | |
| Base | as in ``transformer`` | (B, ceil(T / 4), 768) |

There are two readings of where the convolutions stand. ``layers_before: 0``, the default, is the authors' code: at the very
front, at the encoder's width. ``layers_before: 2`` is how another implementer reads the paper: after the first projection and
two of the layers, at the layers' width. The first is the default because it is the authors' own, and the cheaper one: all four
layers attend over a quarter of the frames.

Differs from the paper: the authors' code can add unstrided convolutions between the two, and has none by default; there are
none here.
"""

from __future__ import annotations

from torch import Tensor, nn

from stapes.adapters.layers import StridedConv
from stapes.adapters.transformer import Shortened


class Conv(Shortened):
    """Two convolutions of stride 2 before or inside ``Transformer``: (B, T, E) -> (B, ceil(T / 4), D).

    Args:
        encoder_dim: E.
        llm_dim: D.
        dim: width of the layers.
        layers: how many.
        heads: attention heads of each.
        ffn_dim: width of their feed-forward part.
        dropout: in the layers.
        kernel: width of the convolutions in frames, odd.
        layers_before: how many of the layers come before the convolutions; with 0, the projection comes after them too.
    """

    def __init__(
        self,
        encoder_dim: int,
        llm_dim: int,
        dim: int = 768,
        layers: int = 4,
        heads: int = 12,
        ffn_dim: int = 3072,
        dropout: float = 0.1,
        kernel: int = 3,
        layers_before: int = 0,
    ) -> None:
        super().__init__(encoder_dim, llm_dim, dim, layers, heads, ffn_dim, dropout, layers_before)
        place, width = self.place, self.width
        first = StridedConv(width, width, kernel, 2, nn.Sequential(nn.LayerNorm(width), nn.ReLU()))
        second = StridedConv(width, width, kernel, 2, nn.LayerNorm(width))
        self.steps = nn.ModuleList([*self.steps[:place], first, second, *self.steps[place:]])

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """T halved twice, rounded up each time."""
        return -(-lengths // 4)
