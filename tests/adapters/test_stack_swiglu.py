"""``stack_swiglu`` against its equation in NumPy, and against the size of Ultravox's projector."""

from typing import Literal

import contract
import numpy as np
import pytest
import torch
from adapters.equations import numbers, stacked

from stapes.adapters.stack_swiglu import StackSwiGLU
from stapes.errors import RecipeError
from stapes.types import Padded


def rms_norm(x: np.ndarray, weight: torch.Tensor) -> np.ndarray:
    return x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-6) * numbers(weight)


@pytest.mark.parametrize("norm_at", ["mid", "out"])
@pytest.mark.parametrize("frames", [1, 8, 23])
@torch.no_grad()
def test_equation(frames: int, norm_at: Literal["mid", "out"]):
    """z = W2 n(SiLU(x'') x') or n(W2 SiLU(x'') x'), where x = W1 n(h stacked)."""
    torch.manual_seed(0)
    adapter, h = contract.awake(StackSwiGLU(12, 8, hidden_dim=16, norm_at=norm_at)), torch.randn(1, frames, 12)
    x = rms_norm(stacked(h[0].numpy(), 8), adapter.norm.weight) @ numbers(adapter.hidden.weight).T
    value, gate = x[:, :8], x[:, 8:]
    x = gate / (1 + np.exp(-gate)) * value
    if norm_at == "mid":
        z = rms_norm(x, adapter.mid_norm.weight) @ numbers(adapter.out.weight).T
    else:
        z = rms_norm(x @ numbers(adapter.out.weight).T, adapter.out_norm.weight)
    found = adapter(Padded(h, torch.tensor([frames])))
    np.testing.assert_allclose(found.values[0], z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("norm_at", "norm"), [("mid", 2048), ("out", 4096)])
def test_parameters_of_ultravox(norm_at: Literal["mid", "out"], norm: int):
    """From Whisper large v3 turbo to Llama 3.1 8B: 8 x 1280 frames to 4096, half of that to 4096, two norms; some 50 M."""
    with torch.device("meta"):
        adapter = StackSwiGLU(1280, 4096, norm_at=norm_at)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == 10_240 * 4097 + 2048 * 4096 + norm


def test_norms_start_at_two_fifths():
    adapter = StackSwiGLU(12, 8, hidden_dim=16)
    for norm in (adapter.norm, adapter.mid_norm):
        np.testing.assert_allclose(numbers(norm.weight), 0.4)


def test_options_that_do_not_fit_are_errors():
    with pytest.raises(RecipeError, match=r"adapter\.hidden_dim: 15, expected an even number"):
        StackSwiGLU(12, 8, hidden_dim=15)
    with pytest.raises(RecipeError, match=r"adapter\.norm_at: 'pre', expected 'mid' or 'out'"):
        StackSwiGLU(12, 8, norm_at="pre")  # type: ignore[arg-type]
