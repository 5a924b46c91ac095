"""``posterior`` against its equation in NumPy, and a loop that compresses."""

import itertools

import contract
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adapters.equations import linear, softmax

from stapes.adapters.posterior import Posterior

LENGTHS = [40, 23, 1, 7]
TABLE = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))


def side_by_side(row: np.ndarray, stride: int) -> np.ndarray:
    """(T, E) -> (N, k E), by a loop."""
    whole = np.concatenate([row, np.zeros((-len(row) % stride, row.shape[1]), row.dtype)])
    return np.stack([whole[first : first + stride].ravel() for first in range(0, len(whole), stride)])


def built(**options: float) -> Posterior:
    torch.manual_seed(0)
    adapter = contract.awake(Posterior(12, TABLE, **options))
    adapter.logits.weight.data *= 3
    return adapter


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("temperature", [1.0, 0.3, 4.0])
@torch.no_grad()
def test_equation(temperature: float, stride: int):
    """z_i = sum_v softmax((W x_i + b) / tau)(v) e_v, the blank being the class that has no embedding."""
    adapter, frames = built(temperature=temperature, stride=stride), contract.frames(LENGTHS)
    for row, embeddings in zip(frames.rows(), adapter(frames).rows(), strict=True):
        p = softmax(linear(side_by_side(row.numpy(), stride), adapter.logits) / temperature)
        np.testing.assert_allclose(embeddings, p[:, :5] @ TABLE.numpy(), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_compressed_it_is_what_a_loop_makes_of_it():
    adapter, frames = built(compress=True, blank=0.3, stride=2), contract.frames(LENGTHS)
    found = adapter(frames)
    for row, embeddings in zip(frames.rows(), found.rows(), strict=True):
        p = softmax(linear(side_by_side(row.numpy(), 2), adapter.logits))
        marks = [None if step[5] >= 0.3 else int(step.argmax()) for step in p]
        places = iter(range(len(row)))
        groups = [(mark, [next(places) for _ in run]) for mark, run in itertools.groupby(marks)]
        kept = [group for mark, group in groups if mark is not None] or [list(range(len(p)))]
        wanted = np.stack([(p[group, :5] @ TABLE.numpy()).mean(0) for group in kept])
        np.testing.assert_allclose(embeddings, wanted, rtol=1e-4, atol=1e-5)
    assert found.lengths[0] < LENGTHS[0] / 2


@torch.no_grad()
def test_an_utterance_of_blanks_is_one_embedding():
    adapter, frames = built(compress=True), contract.frames(LENGTHS)
    adapter.logits.bias[-1] = 1e3
    assert adapter(frames).lengths.tolist() == [1, 1, 1, 1]


def test_the_loss_is_torchs_with_a_blank_of_its_own():
    adapter, frames = built(stride=2), contract.frames(LENGTHS)
    targets = [[2, 0, 3, 3, 1], [0, 2, 1], [1], [3, 1]]
    embeddings, losses = adapter.with_losses(frames, targets, ["token_ctc"])
    torch.testing.assert_close(embeddings.values, adapter(frames).values)
    wanted = 0.0
    for row, target in zip(frames.rows(), targets, strict=True):
        steps = torch.from_numpy(side_by_side(row.numpy(), 2))
        log_probs = adapter.logits(steps).log_softmax(-1)[:, None]
        wanted += F.ctc_loss(log_probs, torch.tensor([target[:-1]]), (len(steps),), (len(target) - 1,), 5, reduction="sum")
    torch.testing.assert_close(losses["token_ctc"], wanted)


def test_the_table_is_the_llms_and_not_saved():
    adapter = built()
    assert set(adapter.state_dict()) == {"logits.weight", "logits.bias"}
    assert set(dict(adapter.named_parameters())) == {"logits.weight", "logits.bias"}
