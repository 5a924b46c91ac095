"""``stack_mlp``: concatenate k frames, then a two-layer MLP. SLAM-ASR, arXiv 2402.08846.

    z_i = W2 ReLU(W1 [h_{ik}; ...; h_{ik+k-1}] + b1) + b2

| paper | here | shape |
|---|---|---|
| k = 5 (of 50 frames a second) | ``stride`` | |
| h | ``frames.values`` | (B, T, E) |
| W1 | ``hidden`` | (2048, k E) |
| W2 | ``out`` | (D, 2048) |

Differs from the paper: the public code drops the T mod k last frames; here the last group is filled up with zeros, so that
the end of an utterance is heard.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from stapes.adapters.base import Adapter
from stapes.adapters.layers import stack
from stapes.types import Padded


class StackMLP(Adapter):
    """Stack ``stride`` frames and map them by an MLP: (B, T, E) -> (B, ceil(T / stride), D).

    Args:
        encoder_dim: E.
        llm_dim: D.
        stride: frames per embedding; 5 in the paper.
        hidden_dim: width of the hidden layer; 2048 in the paper.
    """

    def __init__(self, encoder_dim: int, llm_dim: int, stride: int = 5, hidden_dim: int = 2048) -> None:
        super().__init__()
        self.stride = stride
        self.hidden = nn.Linear(stride * encoder_dim, hidden_dim)
        self.out = nn.Linear(hidden_dim, llm_dim)

    def forward(self, frames: Padded) -> Padded:
        """See ``Adapter.forward``."""
        stacked = stack(frames, self.stride)
        return Padded(self.out(F.relu(self.hidden(stacked.values))), stacked.lengths).zero_padding()

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """ceil(T / stride)."""
        return -(-lengths // self.stride)
