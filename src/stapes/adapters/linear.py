"""``linear``: concatenate k frames, then one linear layer: the least that joins an encoder to an LLM. After arXiv 2309.13963.

    z_i = W [h_{ik}; ...; h_{ik+k-1}] + b

| paper | here | shape |
|---|---|---|
| neighbouring frames joined | ``stride`` | k |
| encoder output | ``frames.values`` | (B, T, E) |
| fully connected layer | ``linear`` | (D, k E) |

Differs from the paper: its fully connected connector has, as notes of readers give it, two layers with a ReLU between them,
which is ``stack_mlp``; here is the case of one layer, which shows what depth is worth. k = 4 is our choice (50 -> 12.5
embeddings a second), and so are the zeros that fill up the last group.
"""

from __future__ import annotations

from torch import Tensor, nn

from stapes.adapters.base import Adapter
from stapes.adapters.layers import stack
from stapes.types import Padded


class Linear(Adapter):
    """Stack ``stride`` frames and project them: (B, T, E) -> (B, ceil(T / stride), D).

    Args:
        encoder_dim: E.
        llm_dim: D.
        stride: frames per embedding.
    """

    def __init__(self, encoder_dim: int, llm_dim: int, stride: int = 4) -> None:
        super().__init__()
        self.stride = stride
        self.linear = nn.Linear(stride * encoder_dim, llm_dim)

    def forward(self, frames: Padded) -> Padded:
        """See ``Adapter.forward``."""
        stacked = stack(frames, self.stride)
        return Padded(self.linear(stacked.values), stacked.lengths).zero_padding()

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """ceil(T / stride)."""
        return -(-lengths // self.stride)
