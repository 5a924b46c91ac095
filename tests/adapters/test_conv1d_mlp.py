"""``conv1d_mlp`` against its equation in NumPy."""

import contract
import numpy as np
import pytest
import torch
from adapters.equations import gelu, linear, norm, strided_conv

from stapes.adapters.conv1d_mlp import Conv1dMLP
from stapes.types import Padded


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("frames", [1, 4, 37])
@torch.no_grad()
def test_equation(frames: int, kernel: int):
    """z = W2 GELU(W1 LayerNorm(conv_2(conv_1(LayerNorm(h)))) + b1) + b2, conv(x) = GELU(W x + b) over a kernel's frames."""
    torch.manual_seed(0)
    adapter, h = contract.awake(Conv1dMLP(12, 8, dim=16, hidden_dim=24, kernel=kernel)), torch.randn(1, frames, 12)
    first, second = adapter.convs
    assert first.conv.kernel_size == second.conv.kernel_size == (kernel,)
    assert first.conv.stride == second.conv.stride == (2,)
    x = strided_conv(strided_conv(norm(h[0].numpy(), adapter.norm), first), second)
    z = linear(gelu(linear(norm(x, adapter.mlp_norm), adapter.hidden)), adapter.out)
    found = adapter(Padded(h, torch.tensor([frames])))
    np.testing.assert_allclose(found.values[0], z, rtol=1e-4, atol=1e-5)


def test_rates():
    """50 frames a second become 12.5 by default, and 6.25 with a third convolution."""
    assert Conv1dMLP(12, 8).output_lengths(torch.tensor([50, 1500, 5])).tolist() == [13, 375, 2]
    assert Conv1dMLP(12, 8, convs=3).output_lengths(torch.tensor([50, 1500, 5])).tolist() == [7, 188, 1]
