"""The blocks that adapters share, each against NumPy."""

import math

import contract
import numpy as np
import pytest
import torch

from stapes.adapters import ADAPTERS
from stapes.adapters.layers import StridedConv, TransformerLayer, rotate
from stapes.errors import RecipeError
from stapes.types import Padded

erf = np.vectorize(math.erf)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + erf(x / math.sqrt(2))) / 2


def norm(x: np.ndarray, layer: torch.nn.LayerNorm) -> np.ndarray:
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.eps)
    return scaled * layer.weight.numpy() + layer.bias.numpy()


def linear(x: np.ndarray, layer: torch.nn.Linear) -> np.ndarray:
    return x @ layer.weight.numpy().T + layer.bias.numpy()


def strided_conv(x: np.ndarray, layer: StridedConv) -> np.ndarray:
    """out_i = GELU(b + sum_j W_j x_{i s + j - k // 2}), zeros beyond either end."""
    W, b, s = layer.conv.weight.numpy(), layer.conv.bias.numpy(), layer.stride
    k = W.shape[2]
    padded = np.pad(x, ((k // 2, k), (0, 0)))
    starts = range(0, len(x), s)
    return gelu(np.stack([b + sum(W[:, :, j] @ padded[start + j] for j in range(k)) for start in starts]))


def rotary(x: np.ndarray) -> np.ndarray:
    """(K, C) as C / 2 complex numbers, number c of step t turned by t 10000^(-2c / C)."""
    K, C = x.shape
    turn = np.exp(1j * np.arange(K)[:, None] * 10_000.0 ** (-2 * np.arange(C // 2) / C))
    turned = (x[:, : C // 2] + 1j * x[:, C // 2 :]) * turn
    return np.concatenate([turned.real, turned.imag], axis=1)


def transformer_layer(x: np.ndarray, layer: TransformerLayer) -> np.ndarray:
    """x + out(attention(norm(x))), then x + ffn(norm(x)); every head on its own columns."""
    C = x.shape[1] // layer.heads
    q, k, v = np.split(linear(norm(x, layer.attention_norm), layer.qkv), 3, axis=1)
    heads = []
    for columns in (slice(head * C, (head + 1) * C) for head in range(layer.heads)):
        scores = rotary(q[:, columns]) @ rotary(k[:, columns]).T / math.sqrt(C)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        heads.append(weights / weights.sum(1, keepdims=True) @ v[:, columns])
    x = x + linear(np.concatenate(heads, axis=1), layer.out)
    return x + linear(gelu(linear(norm(x, layer.ffn_norm), layer.ffn_in)), layer.ffn_out)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 2), (5, 2), (7, 3)])
@pytest.mark.parametrize("steps", [1, 2, 9, 10])
@torch.no_grad()
def test_strided_conv(kernel: int, stride: int, steps: int):
    torch.manual_seed(0)
    layer, x = StridedConv(6, 4, kernel, stride), torch.randn(1, steps, 6)
    found = layer(Padded(x, torch.tensor([steps])))
    assert found.lengths.tolist() == [math.ceil(steps / stride)]
    np.testing.assert_allclose(found.values[0], strided_conv(x[0].numpy(), layer), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_transformer_layer():
    torch.manual_seed(0)
    layer, x = contract.awake(TransformerLayer(16, 2, 24, 0.1)), torch.randn(1, 11, 16)
    found = layer(Padded(x, torch.tensor([11])))
    np.testing.assert_allclose(found.values[0], transformer_layer(x[0].numpy(), layer), rtol=1e-4, atol=1e-5)


def test_a_layer_that_starts_at_zero_is_the_identity():
    x = torch.randn(1, 11, 16)
    frames = Padded(x, torch.tensor([11]))
    assert torch.equal(TransformerLayer(16, 2, 24, 0.0)(frames).values, x)
    assert not torch.equal(TransformerLayer(16, 2, 24, 0.0, start_at_zero=False)(frames).values, x)


@pytest.mark.parametrize("name", ["conv1d_mlp", "conv1d_transformer"])
def test_an_even_kernel_is_an_error(name: str):
    with pytest.raises(RecipeError, match=r"adapter\.kernel: 4, expected an odd number"):
        ADAPTERS.build({"name": name, "kernel": 4}, encoder_dim=8, llm_dim=8, seconds_per_frame=0.02)


def test_heads_that_do_not_fit_are_an_error():
    for heads in (3, 16):
        with pytest.raises(
            RecipeError, match=rf"adapter\.heads: {heads} heads for a dim of 16, expected a dim that is a multiple"
        ):
            TransformerLayer(16, heads, 24, 0.0)


def test_rotary_attention_depends_on_distance_alone():
    torch.manual_seed(0)
    query, key = rotate(torch.randn(1, 1, 1, 8).expand(1, 1, 900, 8)), rotate(torch.randn(1, 1, 1, 8).expand(1, 1, 900, 8))
    scores = (query @ key.mT)[0, 0]
    torch.testing.assert_close(scores[0, 5], scores[800, 805], rtol=1e-3, atol=1e-4)
    assert abs(scores[0, 5] - scores[0, 6]) > 1e-3


def test_rotary_positions_do_not_run_out_of_digits_in_bfloat16():
    x = torch.ones(1, 1, 700, 8)
    torch.testing.assert_close(rotate(x.bfloat16()).float(), rotate(x), rtol=0.01, atol=0.01)
