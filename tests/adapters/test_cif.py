"""``cif`` against a loop that integrates and fires frame by frame, its quantity loss, and the paper's sizes."""

from collections.abc import Iterator

import contract
import numpy as np
import pytest
import torch
from adapters.equations import conv, linear, norm, transformer

from stapes.adapters.cif import CIF
from stapes.types import Padded

OPTIONS = {"dim": 16, "layers": 2, "heads": 2, "ffn_dim": 24}
PLACES = [(0, 0), (1, 2), (2, 3)]  # layers before, and with them the steps before: the first projection is one


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


def built(threshold: float = 1.0, seed: int = 0, layers_before: int = 0) -> tuple[CIF, Padded]:
    torch.manual_seed(seed)
    adapter = CIF(12, 8, threshold=threshold, layers_before=layers_before, **OPTIONS)
    return contract.awake(adapter), contract.frames([40, 23, 1, 7], seed=seed)


def read(adapter: CIF, frames: Padded, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each utterance: what is spread over the embeddings (T, C) and the weights of that (T,)."""
    for row in frames.rows():
        h = transformer(row.numpy(), adapter.steps[:steps])
        weights = adapter.weights(Padded.from_rows([torch.from_numpy(h).float()]))[0]
        yield h.astype(float), weights.numpy().astype(float)


@pytest.mark.parametrize(("layers_before", "steps"), PLACES)
@pytest.mark.parametrize("threshold", [1.0, 0.6, 2.5])
@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_what_fires_is_what_a_loop_fires(threshold: float, seed: int, layers_before: int, steps: int):
    adapter, frames = built(threshold, seed, layers_before)
    for (h, weights), embeddings in zip(read(adapter, frames, steps), adapter(frames).rows(), strict=True):
        z = transformer(fire(h, weights, threshold, tail=0.5), adapter.steps[steps:])
        np.testing.assert_allclose(embeddings, z, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("layers_before", "steps"), PLACES)
@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_in_training_as_many_fire_as_there_are_tokens(seed: int, layers_before: int, steps: int):
    """Also where there are fewer frames than tokens."""
    adapter, frames = built(seed=seed, layers_before=layers_before)
    targets = [[3] * 9, [3] * 30, [3] * 2, [3]]
    found, losses = adapter.with_losses(frames, targets, ["quantity"])
    assert found.lengths.tolist() == [9, 30, 2, 1]
    wanted = 0.0
    for (h, weights), target, embeddings in zip(read(adapter, frames, steps), targets, found.rows(), strict=True):
        scaled = weights * (len(target) + 1e-4) / weights.sum()
        z = transformer(fire(h, scaled, 1.0, tail=None), adapter.steps[steps:])
        np.testing.assert_allclose(embeddings, z, rtol=1e-4, atol=1e-4)
        wanted += abs(weights.sum() - len(target))
    assert float(losses["quantity"]) == pytest.approx(wanted, rel=1e-5)


def test_layers_before_the_weights_learn_from_their_number():
    adapter, frames = built(layers_before=1)
    _, losses = adapter.with_losses(frames, [[3] * 9, [3] * 30, [3] * 2, [3]], ["quantity"])
    losses["quantity"].backward()
    moved = [any(parameter.grad is not None for parameter in step.parameters()) for step in adapter.steps]
    assert moved == [True, True, False, False]


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
    ("encoder_dim", "options", "parameters"),
    [
        (1280, {}, 37_415_169),
        (1024, {}, 35_448_065),
        (1280, {"layers_before": 2}, 32_494_848 + 768 * (3 * 768 + 3) + 769),
        (1024, {"layers_before": 4}, 32_298_240 + 768 * (3 * 768 + 3) + 769),
    ],
    ids=["Whisper large", "SeamlessM4T large", "Whisper large, weights inside", "SeamlessM4T large, weights at the end"],
)
def test_parameters_are_the_papers(encoder_dim: int, options: dict[str, int], parameters: int):
    """Inside, those of Base, of a convolution and its norm, and of the line to a weight, at the layers' width."""
    with torch.device("meta"):
        adapter = CIF(encoder_dim, 4096, **options)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == parameters
