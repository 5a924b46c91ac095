"""``conv1d_mlp`` against its equation."""

import pytest
import torch
import torch.nn.functional as F

from stapes.adapters.conv1d_mlp import Conv1dMLP
from stapes.types import Padded


@pytest.mark.parametrize("frames", [1, 4, 37])
@torch.no_grad()
def test_equation(frames: int):
    """z = W2 GELU(W1 LayerNorm(conv_2(conv_1(LayerNorm(h)))) + b1) + b2; the blocks have tests of their own."""
    torch.manual_seed(0)
    adapter, h = Conv1dMLP(12, 8, dim=16, hidden_dim=24), torch.randn(1, frames, 12)
    x = F.layer_norm(h, (12,)).mT
    for conv in adapter.convs:
        x = F.gelu(F.conv1d(x, conv.conv.weight, conv.conv.bias, stride=2, padding=2))
    z = adapter.out(F.gelu(adapter.hidden(F.layer_norm(x.mT, (16,)))))
    torch.testing.assert_close(adapter(Padded(h, torch.tensor([frames]))).values, z, rtol=1e-5, atol=1e-6)


def test_rates():
    """50 frames a second become 12.5 by default, and 6.25 with a third convolution."""
    assert Conv1dMLP(12, 8).output_lengths(torch.tensor([50, 1500, 5])).tolist() == [13, 375, 2]
    assert Conv1dMLP(12, 8, convs=3).output_lengths(torch.tensor([50, 1500, 5])).tolist() == [7, 188, 1]
