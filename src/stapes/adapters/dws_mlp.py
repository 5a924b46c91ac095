"""``dws_mlp``: depthwise-separable strided convolutions, then an MLP. "A comprehensive solution", arXiv 2406.17272.

    z = W2 GELU(W1 LayerNorm(conv_n(... conv_1(LayerNorm(h)))) + b1) + b2,  conv(x) = GELU(P depthwise(x) + p)

| paper | here | shape |
|---|---|---|
| depthwise convolutions | ``convs``, ``kernel`` | each halves the frame rate; one kernel for each channel |
| pointwise convolutions P | ``convs[i].then[0]`` | (dim, E) or (dim, dim) |
| MLP | ``hidden``, ``out`` | (hidden_dim, dim), (D, hidden_dim) |

A depthwise-separable convolution first filters every channel by itself, then mixes the channels of each step: where a plain one
has kernel E dim weights, it has kernel E + E dim.

Differs from the paper: it names the adapter and gives no sizes; all of them are our choice, those of ``conv1d_mlp``, so that
the two compare the kind of convolution alone. So is that nothing stands between the two halves of a convolution.
"""

from __future__ import annotations

from torch import nn

from stapes.adapters.conv1d_mlp import Conv1dMLP
from stapes.adapters.layers import StridedConv


class SeparableConv(StridedConv):
    """Every channel convolved by itself, then a linear layer and GELU: (B, T, E) -> (B, ceil(T / stride), C)."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int, stride: int) -> None:
        pointwise = nn.Sequential(nn.Linear(in_dim, out_dim), nn.GELU())
        super().__init__(in_dim, in_dim, kernel, stride, pointwise, groups=in_dim)


class DwsMLP(Conv1dMLP):
    """``Conv1dMLP``, whose options it takes, with separable convolutions: (B, T, E) -> (B, ceil(T / 2**convs), D)."""

    conv = SeparableConv
