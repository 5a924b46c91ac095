"""``conv`` against its equation in NumPy, and against the parameter counts of arXiv 2409.17044."""

import contract
import numpy as np
import pytest
import torch
from adapters.equations import conv, norm, transformer

from stapes.adapters.conv import Conv
from stapes.types import Padded

OPTIONS = {"dim": 16, "heads": 2, "ffn_dim": 24}


def shortened(x: np.ndarray, first: torch.nn.Module, second: torch.nn.Module) -> np.ndarray:
    """c_2(ReLU(c_1(x))) with c(x) = LayerNorm(Conv1d(x))."""
    x = np.maximum(norm(conv(x, first.conv), first.then[0]), 0)
    return norm(conv(x, second.conv), second.then)


@pytest.mark.parametrize("frames", [1, 4, 5, 23])
@torch.no_grad()
def test_equation_as_in_the_authors_code(frames: int):
    adapter, h = contract.awake(Conv(12, 8, **OPTIONS)), torch.randn(1, frames, 12)
    first, second, *base = adapter.steps
    z = transformer(shortened(h[0].numpy(), first, second), base)
    found = adapter(Padded(h, torch.tensor([frames])))
    assert len(base) == 6
    np.testing.assert_allclose(found.values[0], z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 4, 5, 23])
@torch.no_grad()
def test_equation_with_two_layers_before(frames: int):
    adapter, h = contract.awake(Conv(12, 8, **OPTIONS, layers_before=2)), torch.randn(1, frames, 12)
    enter, one, two, first, second, three, four, leave = adapter.steps
    x = transformer(h[0].numpy(), [enter, one, two])
    z = transformer(shortened(x, first, second), [three, four, leave])
    found = adapter(Padded(h, torch.tensor([frames])))
    np.testing.assert_allclose(found.values[0], z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("encoder_dim", "options", "parameters"),
    [(1280, {}, 42_332_928), (1024, {}, 38_595_840), (1280, {"layers_before": 2}, 32_494_848 + 2 * (768 * (3 * 768 + 3)))],
    ids=["Whisper large", "SeamlessM4T large", "Whisper large, convolutions inside"],
)
def test_parameters_of_conv_based(encoder_dim: int, options: dict[str, int], parameters: int):
    """To the 4096 of Mistral 7B and Llama 3.1 8B. Inside, a convolution has 768 (3 x 768 + 1) and its norm 2 x 768."""
    with torch.device("meta"):
        adapter = Conv(encoder_dim, 4096, **options)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == parameters
