"""``cif`` against a loop that integrates and fires frame by frame, its quantity loss, and the paper's sizes."""

import contract
import numpy as np
import pytest
import torch
from adapters.equations import conv, linear, norm

from stapes.adapters.cif import CIF
from stapes.adapters.transformer import Transformer
from stapes.types import Padded

OPTIONS = {"dim": 16, "layers": 2, "heads": 2, "ffn_dim": 24}


def fire(h: np.ndarray, weights: np.ndarray, beta: float, tail: float | None) -> np.ndarray:
    """Integrate and fire (arXiv 1905.11235), one frame after the other; ``tail`` None leaves out what is left at the end."""
    state, weight, fired = np.zeros(h.shape[1]), 0.0, []
    for frame, share in zip(h, weights, strict=True):
        while weight + share >= beta - 1e-9:
            fired.append((state + (beta - weight) * frame) / beta)
            share -= beta - weight
            state, weight = np.zeros(h.shape[1]), 0.0
        state, weight = state + share * frame, weight + share
    if tail is not None and (weight / beta >= tail or not fired):
        fired.append(state / weight)
    return np.stack(fired)


def built(threshold: float = 1.0, seed: int = 0) -> tuple[CIF, Padded]:
    torch.manual_seed(seed)
    return contract.awake(CIF(12, 8, threshold=threshold, **OPTIONS)), contract.frames([40, 23, 1, 7], seed=seed)


@pytest.mark.parametrize("threshold", [1.0, 0.6, 2.5])
@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_what_fires_is_what_a_loop_fires(threshold: float, seed: int):
    adapter, frames = built(threshold, seed)
    found = adapter(frames)
    weights = adapter.weights(frames)
    for row, share, embeddings in zip(frames.rows(), weights, found.rows(), strict=True):
        wanted = fire(row.numpy().astype(float), share[: len(row)].numpy().astype(float), threshold, tail=0.5)
        base = Transformer.forward(adapter, Padded.from_rows([torch.from_numpy(wanted).float()]))
        torch.testing.assert_close(embeddings, base.rows()[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_in_training_as_many_fire_as_there_are_tokens(seed: int):
    adapter, frames = built(seed=seed)
    targets = [[3] * 9, [3] * 30, [3] * 2, [3]]
    found, losses = adapter.with_losses(frames, targets)
    assert found.lengths.tolist() == [9, 30, 2, 1]
    weights = adapter.weights(frames)
    for row, share, target, embeddings in zip(frames.rows(), weights, targets, found.rows(), strict=True):
        scaled = share[: len(row)].numpy().astype(float)
        scaled *= (len(target) + 1e-4) / scaled.sum()
        wanted = fire(row.numpy().astype(float), scaled, 1.0, tail=None)
        base = Transformer.forward(adapter, Padded.from_rows([torch.from_numpy(wanted).float()]))
        torch.testing.assert_close(embeddings, base.rows()[0], rtol=1e-4, atol=1e-4)
    wanted = sum(abs(float(share.sum()) - len(target)) for share, target in zip(weights, targets, strict=True))
    assert float(losses["quantity"]) == pytest.approx(wanted, rel=1e-5)


@torch.no_grad()
def test_weights_are_the_equation():
    adapter, frames = built()
    row = frames.rows()[1]
    h = norm(conv(row.numpy(), adapter.conv.conv), adapter.conv.then[0])
    logits = linear(np.maximum(h, 0), adapter.weight)[:, 0]
    np.testing.assert_allclose(adapter.weights(frames)[1, : len(row)], 1 / (1 + np.exp(-logits)), rtol=1e-4)


@torch.no_grad()
def test_nearly_silent_frames_still_give_one_embedding():
    adapter, frames = built()
    adapter.weight.weight.zero_()
    adapter.weight.bias.fill_(-12.0)
    found = adapter(frames)
    assert found.lengths.tolist() == [1, 1, 1, 1]
    assert found.values.isfinite().all()


@torch.no_grad()
def test_a_long_recording_is_integrated_as_exactly_as_a_short_one():
    """30 s: in float32, running sums would put the last frames' shares elsewhere."""
    adapter, _ = built()
    frames = contract.frames([1500])
    weights = torch.rand(1, 1500, generator=torch.Generator().manual_seed(0))
    wanted = fire(frames.values[0].numpy().astype(float), weights[0].numpy().astype(float), 1.0, tail=None)
    found = adapter.integrate(frames, weights, torch.tensor([len(wanted)])).values[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("encoder_dim", "parameters"), [(1280, 37_415_169), (1024, 35_448_065)], ids=["Whisper large", "SeamlessM4T large"]
)
def test_parameters_are_the_papers(encoder_dim: int, parameters: int):
    with torch.device("meta"):
        adapter = CIF(encoder_dim, 4096)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == parameters
