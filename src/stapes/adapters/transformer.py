"""``transformer``: four Transformer layers at the frame rate of the encoder. "Base" of arXiv 2409.17044.

    x = LayerNorm(W1 h + b1);  x = layer_4(... layer_1(x));  z = LayerNorm(W2 x + b2)

| paper | here | shape |
|---|---|---|
| encoder output | ``frames.values`` | (B, T, E) |
| W1, W2 | ``steps[0]``, ``steps[-1]`` | (768, E), (D, 768) |
| BERT layers: 12 heads, feed-forward 3072, dropout 0.1 | ``layers``, ``heads``, ``ffn_dim``, ``dropout`` | (B, T, 768) |

Sizes are those of the authors' code. There are no positions: the frames bring the encoder's. A projection stands only where
two widths differ. Nothing is compressed: 50 frames a second are 50 embeddings a second.

Differs from the paper: nothing that we know of; its text could not be compared, its code could. Dropout ends each branch and
is in the attention, as in BERT.
"""

from __future__ import annotations

from torch import Tensor, nn

from stapes.adapters.attention import PostNormLayer
from stapes.adapters.base import Adapter
from stapes.types import Padded


class Projection(nn.Module):
    """Linear and LayerNorm where the widths differ, nothing where they do not: (B, T, E) -> (B, T, C)."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(in_dim, out_dim), nn.LayerNorm(out_dim)) if in_dim != out_dim else nn.Identity()

    def forward(self, frames: Padded) -> Padded:
        """Project every frame."""
        return Padded(self.project(frames.values), frames.lengths)


class Transformer(Adapter):
    """Project, attend, project: (B, T, E) -> (B, T, D).

    Args:
        encoder_dim: E.
        llm_dim: D.
        dim: width of the layers.
        layers: how many.
        heads: attention heads of each.
        ffn_dim: width of their feed-forward part.
        dropout: in the layers.
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
    ) -> None:
        super().__init__()
        stack = (PostNormLayer(dim, heads, ffn_dim, dropout) for _ in range(layers))
        self.steps = nn.ModuleList([Projection(encoder_dim, dim), *stack, Projection(dim, llm_dim)])

    def forward(self, frames: Padded) -> Padded:
        """See ``Adapter.forward``."""
        hidden = frames.zero_padding()
        for step in self.steps:
            hidden = step(hidden)
        return hidden.zero_padding()

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """T: one embedding for each frame."""
        return lengths
