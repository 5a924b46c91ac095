"""``transformer`` against its equation in NumPy, and against the parameter counts of arXiv 2409.17044."""

import contract
import numpy as np
import pytest
import torch
from adapters.equations import linear, norm, post_norm_layer
from torch import nn

from stapes.adapters.transformer import Transformer
from stapes.types import Padded


@pytest.mark.parametrize("frames", [1, 23])
@torch.no_grad()
def test_equation(frames: int):
    """z = LayerNorm(W2 layer_3(... layer_1(LayerNorm(W1 h + b1))) + b2)."""
    adapter, h = contract.awake(Transformer(12, 8, dim=16, layers=3, heads=2, ffn_dim=24)), torch.randn(1, frames, 12)
    first, *layers, last = adapter.steps
    x = norm(linear(h[0].numpy(), first.project[0]), first.project[1])
    for layer in layers:
        x = post_norm_layer(x, layer)
    z = norm(linear(x, last.project[0]), last.project[1])
    found = adapter(Padded(h, torch.tensor([frames])))
    np.testing.assert_allclose(found.values[0], z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("encoder_dim", "parameters"), [(1280, 32_494_848), (1024, 32_298_240)], ids=["Whisper large", "SeamlessM4T large"]
)
def test_parameters_of_base(encoder_dim: int, parameters: int):
    """To the 4096 of Mistral 7B and Llama 3.1 8B."""
    with torch.device("meta"):
        adapter = Transformer(encoder_dim, 4096)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == parameters


def test_equal_widths_need_no_projection():
    adapter = Transformer(16, 16, dim=16, layers=1, heads=2, ffn_dim=24)
    assert isinstance(adapter.steps[0].project, nn.Identity)
    assert isinstance(adapter.steps[-1].project, nn.Identity)
