"""``linear`` against its equation in NumPy."""

import numpy as np
import pytest
import torch
from adapters.equations import linear, stacked

from stapes.adapters.linear import Linear
from stapes.types import Padded


@pytest.mark.parametrize("frames", [1, 4, 23])
@pytest.mark.parametrize("stride", [1, 3, 4])
@torch.no_grad()
def test_equation(stride: int, frames: int):
    """z_i = W [h_{ik}; ...; h_{ik+k-1}] + b."""
    torch.manual_seed(0)
    adapter, h = Linear(12, 8, stride=stride), torch.randn(1, frames, 12)
    found = adapter(Padded(h, torch.tensor([frames])))
    wanted = linear(stacked(h[0].numpy(), stride), adapter.linear)
    np.testing.assert_allclose(found.values[0], wanted, rtol=1e-4, atol=1e-5)


def test_parameters():
    """From Whisper large's 1280 to a 7B LLM's 4096, four frames at a time: 4 x 1280 x 4096 + 4096."""
    with torch.device("meta"):
        adapter = Linear(1280, 4096)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == 20_975_616
