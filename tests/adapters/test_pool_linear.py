"""``pool_linear`` against its equation in NumPy, and against SENSE-ASR's numbers."""

import math

import numpy as np
import pytest
import torch

from stapes.adapters.pool_linear import PoolLinear
from stapes.errors import RecipeError
from stapes.types import Padded


def z(adapter: PoolLinear, h: np.ndarray, K: int) -> np.ndarray:
    """z = W norm(AdaptiveAvgPool(h)) + b: bin i averages frames floor(i T / K) to ceil((i + 1) T / K)."""
    T = len(h)
    pooled = np.stack([h[i * T // K : math.ceil((i + 1) * T / K)].mean(0) for i in range(K)])
    normed = (pooled - pooled.mean(1, keepdims=True)) / np.sqrt(pooled.var(1, keepdims=True) + adapter.norm.eps)
    return normed @ adapter.linear.weight.numpy().T + adapter.linear.bias.numpy()


@pytest.mark.parametrize(
    ("options", "frames", "embeddings"),
    [
        ({}, 1500, 250),
        ({}, 6, 1),
        ({}, 7, 2),
        ({"embeddings": 250}, 1500, 250),
        ({"embeddings": 7}, 31, 7),
        ({"embeddings": 7}, 3, 7),
        ({"embeddings_per_second": 12.5}, 31, 8),
        ({"embeddings_per_second": 500}, 31, 31),
    ],
)
@torch.no_grad()
def test_equation(options: dict[str, float], frames: int, embeddings: int):
    torch.manual_seed(0)
    adapter = PoolLinear(12, 8, 0.02, **options)
    h = torch.randn(1, frames, 12)
    found = adapter(Padded(h, torch.tensor([frames])))
    assert found.lengths.tolist() == [embeddings]
    np.testing.assert_allclose(found.values[0].numpy(), z(adapter, h[0].numpy(), embeddings), rtol=1e-4, atol=1e-5)


def test_parameters_of_sense_asr():
    """Whisper small's 768 to TinyLlama's 2048: 768 x 2048 + 2048, and the norm's 2 x 768."""
    with torch.device("meta"):
        adapter = PoolLinear(768, 2048, 0.02, embeddings=250)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == 1_576_448


def test_a_number_and_a_rate_exclude_each_other():
    with pytest.raises(RecipeError, match="both embeddings and embeddings_per_second, expected one of them"):
        PoolLinear(12, 8, 0.02, embeddings=7, embeddings_per_second=5.0)
