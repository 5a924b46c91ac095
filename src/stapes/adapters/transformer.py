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

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from stapes.adapters.attention import PostNormLayer
from stapes.adapters.base import Adapter
from stapes.errors import RecipeError
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
        return through(self.steps, frames)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """T: one embedding for each frame."""
        return lengths


class Shortened(Transformer):
    """``Transformer`` with a length adapter of a subclass, which stands before all of it or after some of its layers.

    Args:
        encoder_dim: E.
        llm_dim: D.
        dim: width of the layers.
        layers: how many.
        heads: attention heads of each.
        ffn_dim: width of their feed-forward part.
        dropout: in the layers.
        layers_before: how many of the layers come before the length adapter; with 0, the projection comes after it too.

    Attributes:
        place: how many of the steps come before the length adapter.
        width: C of what it reads and gives: E, or that of the layers.

    Raises:
        RecipeError: more layers before the length adapter than there are.
    """

    def __init__(
        self,
        encoder_dim: int,
        llm_dim: int,
        dim: int,
        layers: int,
        heads: int,
        ffn_dim: int,
        dropout: float,
        layers_before: int,
    ) -> None:
        super().__init__(encoder_dim, llm_dim, dim, layers, heads, ffn_dim, dropout)
        if not 0 <= layers_before <= layers:
            raise RecipeError("adapter.layers_before", f"{layers_before} of {layers} layers", "0 or more, at most all of them")
        self.place, self.width = (1 + layers_before, dim) if layers_before else (0, encoder_dim)

    def before(self, frames: Padded) -> Padded:
        """What a length adapter reads that goes by the content: (B, T, E) -> (B, T, C), zeros in the padding.

        Also under autocast in the layers' own precision: rounding would decide how many embeddings there are.
        """
        with torch.autocast(frames.values.device.type, enabled=False):
            return through(self.steps[: self.place], frames)

    def after(self, shortened: Padded) -> Padded:
        """What becomes of the length adapter's output: (B, K, C) -> (B, K, D)."""
        return through(self.steps[self.place :], shortened)


def through(steps: Iterable[nn.Module], frames: Padded) -> Padded:
    """Frames through one step after the other, with zeros in the padding before the first and after the last."""
    hidden = frames.zero_padding()
    for step in steps:
        hidden = step(hidden)
    return hidden.zero_padding()
