"""``stack_mlp`` against its equation in NumPy, and against SLAM-ASR's parameter counts."""

import numpy as np
import pytest
import torch

from stapes.adapters.stack_mlp import StackMLP
from stapes.types import Padded


def z(adapter: StackMLP, h: np.ndarray, k: int) -> np.ndarray:
    """z_i = W2 ReLU(W1 [h_{ik}; ...; h_{ik+k-1}] + b1) + b2, the last group filled up with zeros."""
    W1, b1, W2, b2 = (parameter.numpy() for parameter in (*adapter.hidden.parameters(), *adapter.out.parameters()))
    h = np.concatenate([h, np.zeros((-len(h) % k, h.shape[1]), np.float32)])
    groups = [np.concatenate(list(h[i : i + k])) for i in range(0, len(h), k)]
    return np.stack([W2 @ np.maximum(W1 @ group + b1, 0) + b2 for group in groups])


@pytest.mark.parametrize("frames", [1, 5, 23, 25])
@pytest.mark.parametrize("stride", [1, 3, 5])
@torch.no_grad()
def test_equation(stride: int, frames: int):
    torch.manual_seed(0)
    adapter = StackMLP(12, 8, stride=stride, hidden_dim=16)
    h = torch.randn(1, frames, 12)
    found = adapter(Padded(h, torch.tensor([frames])))
    np.testing.assert_allclose(found.values[0].numpy(), z(adapter, h[0].numpy(), stride), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_voxtral_says_the_same():
    """Its projector reads four frames at once too. Set here: full groups, ReLU for its GELU, and no biases."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.voxtral.modeling_voxtral import VoxtralMultiModalProjector

    ours, h = StackMLP(12, 8, stride=4, hidden_dim=8), torch.randn(2, 20, 12)
    ours.hidden.bias.zero_()
    ours.out.bias.zero_()
    config = transformers.VoxtralConfig(
        audio_config={"hidden_size": 12, "intermediate_size": 48},
        text_config={"hidden_size": 8, "num_attention_heads": 2},
        projector_hidden_act="relu",
    )
    theirs = VoxtralMultiModalProjector(config)
    theirs.linear_1.weight.copy_(ours.hidden.weight)
    theirs.linear_2.weight.copy_(ours.out.weight)
    wanted = theirs(h.reshape(-1, 48)).view(2, 5, 8)
    torch.testing.assert_close(ours(Padded(h, torch.tensor([20, 20]))).values, wanted)


@pytest.mark.parametrize(
    ("encoder_dim", "parameters"),
    [(1024, 18_880_512), (1280, 21_501_952)],
    ids=["WavLM large, 18.88 M", "HuBERT x-large, 21.50 M"],
)
def test_parameters_of_slam_asr(encoder_dim: int, parameters: int):
    """To Vicuna 7B's 4096 with the defaults, k = 5 and 2048 hidden."""
    with torch.device("meta"):
        adapter = StackMLP(encoder_dim, 4096)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == parameters
