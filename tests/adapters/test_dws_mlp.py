"""``dws_mlp`` against its equation in NumPy, and its size against the formula of depthwise-separable convolutions."""

import contract
import numpy as np
import pytest
import torch
from adapters.equations import conv, gelu, linear, norm, numbers

from stapes.adapters.conv1d_mlp import Conv1dMLP
from stapes.adapters.dws_mlp import DwsMLP
from stapes.types import Padded


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("frames", [1, 4, 37])
@torch.no_grad()
def test_equation(frames: int, kernel: int):
    """z = W2 GELU(W1 LayerNorm(conv_2(conv_1(LayerNorm(h)))) + b1) + b2, conv(x) = GELU(P depthwise(x) + p)."""
    torch.manual_seed(0)
    adapter, h = contract.awake(DwsMLP(12, 8, dim=16, hidden_dim=24, kernel=kernel)), torch.randn(1, frames, 12)
    x = norm(h[0].numpy(), adapter.norm)
    for separable in adapter.convs:
        assert numbers(separable.conv.weight).shape == (x.shape[1], 1, kernel)
        x = gelu(linear(conv(x, separable.conv), separable.then[0]))
    z = linear(gelu(linear(norm(x, adapter.mlp_norm), adapter.hidden)), adapter.out)
    found = adapter(Padded(h, torch.tensor([frames])))
    np.testing.assert_allclose(found.values[0], z, rtol=1e-4, atol=1e-5)


def test_parameters_against_plain_convolutions():
    """From HuBERT large to Vicuna 7B: only the convolutions differ, k E C + C weights or k E + E and E C + C."""
    with torch.device("meta"):
        separable, plain = DwsMLP(1024, 4096), Conv1dMLP(1024, 4096)
    counts = [sum(parameter.numel() for parameter in adapter.parameters()) for adapter in (separable, plain)]
    saved = sum(5 * E * C + C - (5 * E + E + E * C + C) for E, C in ((1024, 512), (512, 512)))
    assert counts[1] - counts[0] == saved
