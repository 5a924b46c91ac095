"""``conv1d_transformer`` against its equation in NumPy."""

import contract
import numpy as np
import pytest
import torch
from adapters.equations import linear, norm, strided_conv, transformer_layer

from stapes.adapters.conv1d_transformer import Conv1dTransformer
from stapes.types import Padded

OPTIONS = {"dim": 16, "heads": 2, "ffn_dim": 24}


@pytest.mark.parametrize("frames", [1, 4, 37])
@torch.no_grad()
def test_equation(frames: int):
    """z = W LayerNorm(layer_2(layer_1(conv_2(conv_1(LayerNorm(h)))))) + b."""
    torch.manual_seed(0)
    adapter, h = contract.awake(Conv1dTransformer(12, 8, **OPTIONS)), torch.randn(1, frames, 12)
    first_conv, second_conv = adapter.convs
    first_layer, second_layer = adapter.layers
    assert first_conv.conv.stride == second_conv.conv.stride == (2,)
    x = strided_conv(strided_conv(norm(h[0].numpy(), adapter.norm), first_conv), second_conv)
    x = transformer_layer(transformer_layer(x, first_layer), second_layer)
    found = adapter(Padded(h, torch.tensor([frames])))
    np.testing.assert_allclose(found.values[0], linear(norm(x, adapter.out_norm), adapter.out), rtol=1e-4, atol=1e-5)


def test_layers_start_as_the_identity_unless_told_otherwise():
    torch.manual_seed(0)
    h = Padded(torch.randn(1, 20, 12), torch.tensor([20]))
    fresh = Conv1dTransformer(12, 8, **OPTIONS)
    without = Conv1dTransformer(12, 8, **OPTIONS | {"layers": 0})
    without.load_state_dict(fresh.state_dict(), strict=False)
    assert torch.equal(fresh(h).values, without(h).values)
    usual = Conv1dTransformer(12, 8, **OPTIONS, start_at_zero=False)
    assert all(parameter.any() for name, parameter in usual.named_parameters() if name.endswith("weight"))


def test_dropout_works_in_training_only():
    adapter = Conv1dTransformer(12, 8, **OPTIONS, dropout=0.5, start_at_zero=False)
    h = Padded(torch.randn(1, 20, 12), torch.tensor([20]))
    assert not torch.equal(adapter.train()(h).values, adapter(h).values)
    assert torch.equal(adapter.eval()(h).values, adapter(h).values)
