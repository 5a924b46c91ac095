"""The CTC head: loss, scores and compression, each against a plain loop."""

import math

import contract
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stapes.losses.ctc import BLANK, CTCHead
from stapes.types import Padded

D, P = 6, 4


@pytest.fixture
def head() -> CTCHead:
    """With a residual map and a blank that do something, as after training."""
    torch.manual_seed(0)
    head = CTCHead(torch.randn(P, D))
    with torch.no_grad():
        head.residual.weight.normal_(std=0.3)
        head.blank.weight.normal_()
    return head


def log_probs_of(*rows: list[list[float]]) -> tuple[Tensor, Tensor]:
    """(B, K, 1 + P) log-probabilities from probabilities of the first classes, the rest shared, and the lengths."""
    probabilities = [[[*step, *[(1 - sum(step)) / (1 + P - len(step))] * (1 + P - len(step))] for step in row] for row in rows]
    padded = Padded.from_rows([torch.tensor(row).log() for row in probabilities])
    return padded.values, padded.lengths


def slowly(head: CTCHead, embeddings: Tensor, log_probs: Tensor) -> Tensor:
    """(K, D), (K, 1 + P) of one utterance -> (R, D): the module docstring's last two lines, step by step."""
    labels = [int(step.argmax()) for step in log_probs]
    kept = [label != BLANK or float(step[BLANK].exp()) < head.keep_below for label, step in zip(labels, log_probs, strict=True)]
    if not any(kept):
        kept = [True] * len(labels)
    runs: list[list[int]] = []
    for t, label in enumerate(labels):
        if not kept[t]:
            continue
        if runs and runs[-1][-1] == t - 1 and labels[t - 1] == label:
            runs[-1].append(t)
        else:
            runs.append([t])
    rows = []
    for run in runs:
        q = torch.stack([log_probs[t, 1:].exp() / log_probs[t, 1:].exp().sum() for t in run]).mean(0)
        z = torch.stack([embeddings[t] for t in run]).mean(0)
        rows.append(sum(q[p] * head.table[p] for p in range(P)) + head.residual.weight @ z)
    return torch.stack(rows)


def test_log_probs_are_scaled_cosines_with_a_blank(head: CTCHead):
    z = Padded(torch.randn(2, 5, D), torch.tensor([5, 3]))
    found = head.log_probs(z)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(2, 5))
    s, mean = head.log_scale.exp(), head.table.mean(0)
    for b, t in z.mask.nonzero().tolist():
        logits = [head.blank(F.normalize(z.values[b, t], dim=0))[0] * s]
        logits += [s * F.cosine_similarity(z.values[b, t], head.table[p] - mean, dim=0) for p in range(P)]
        torch.testing.assert_close(found[b, t], torch.stack(logits).log_softmax(0), rtol=1e-4, atol=1e-4)


def test_loss_is_pytorchs_summed_over_the_batch(head: CTCHead):
    log_probs = torch.randn(3, 9, 1 + P).log_softmax(-1)
    lengths, targets = torch.tensor([9, 6, 4]), [[0, 1, 1, 3], [2], []]
    expected = sum(
        F.ctc_loss(
            log_probs[i : i + 1, : lengths[i]].transpose(0, 1),
            torch.tensor([[piece + 1 for piece in targets[i]]]),
            lengths[i : i + 1],
            torch.tensor([len(targets[i])]),
            reduction="sum",
        )
        for i in range(3)
    )
    torch.testing.assert_close(head.loss(log_probs, lengths, targets), expected)


def test_a_target_that_does_not_fit_counts_as_zero_and_has_no_gradient(head: CTCHead):
    log_probs = torch.randn(2, 3, 1 + P).log_softmax(-1).requires_grad_()
    fits = head.loss(log_probs[:1], torch.tensor([3]), [[0]])
    both = head.loss(log_probs, torch.tensor([3, 3]), [[0], [0, 0, 1, 2]])
    torch.testing.assert_close(both, fits)
    both.backward()
    assert log_probs.grad is not None
    assert log_probs.grad.isfinite().all()
    assert not log_probs.grad[1].any()


def test_greedy_merges_repeats_and_drops_blanks(head: CTCHead):
    path = [0, 2, 2, 0, 2, 1, 1, 0, 3]
    log_probs = torch.full((2, len(path), 1 + P), -9.0)
    log_probs[:, range(len(path)), path] = 0.0
    assert head.best_pieces(log_probs, torch.tensor([9, 4])) == [[1, 1, 0, 2], [1]]


def test_compression_by_hand(head: CTCHead):
    """Two runs of one label with a blank between, and a blank that is not sure: runs of 2, 1 and 1 steps, then one more."""
    log_probs, lengths = log_probs_of(
        [[0.1, 0.8], [0.2, 0.7], [0.95, 0.01], [0.3, 0.6], [0.8, 0.1], [0.95, 0.01], [0.1, 0.1, 0.7]],
    )
    embeddings = Padded(torch.randn(1, 7, D), lengths)
    found = head.compress(embeddings, log_probs)
    assert found.lengths.tolist() == [4]
    torch.testing.assert_close(found.values[0], slowly(head, embeddings.values[0], log_probs[0]))


def test_compression_against_a_loop(head: CTCHead):
    """Blanks of every certainty, runs of all lengths, batches of unequal lengths."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(40):
        lengths = torch.randint(1, 14, (4,), generator=generator)
        logits = 3 * torch.randn(4, int(lengths.max()), 1 + P, generator=generator)
        logits[:, :, BLANK] += 2
        logits[:, 1::2] = logits[:, : logits.shape[1] // 2 * 2 : 2]  # neighbours alike, so that there are runs
        log_probs = logits.log_softmax(-1)
        embeddings = Padded(torch.randn(*logits.shape[:2], D, generator=generator), lengths)
        found = head.compress(embeddings, log_probs)
        assert not found.values[~found.mask].any()
        for b, row in enumerate(found.rows()):
            length = int(lengths[b])
            torch.testing.assert_close(row, slowly(head, embeddings.values[b, :length], log_probs[b, :length]))


def test_an_utterance_of_certain_blanks_becomes_one_average(head: CTCHead):
    log_probs, lengths = log_probs_of([[0.96, 0.01]] * 3, [[0.1, 0.8]] * 2)
    embeddings = Padded(torch.randn(2, 3, D), lengths)
    found = head.compress(embeddings, log_probs)
    assert found.lengths.tolist() == [1, 1]
    torch.testing.assert_close(found.rows()[0], slowly(head, embeddings.values[0], log_probs[0]))


def test_what_stands_in_the_padding_does_not_matter(head: CTCHead):
    embeddings = Padded(torch.randn(2, 8, D), torch.tensor([8, 5]))
    wanted = head.compress(embeddings.zero_padding(), head.log_probs(embeddings.zero_padding()))
    found = head.compress(embeddings, head.log_probs(embeddings))
    assert torch.equal(found.lengths, wanted.lengths)
    torch.testing.assert_close(found.values, wanted.values)
    alone = Padded(embeddings.values[1:, :5], torch.tensor([5]))
    torch.testing.assert_close(head.compress(alone, head.log_probs(alone)).rows()[0], wanted.rows()[1])


def test_gradients_reach_the_adapter_through_compression(head: CTCHead):
    values = torch.randn(1, 6, D, requires_grad=True)
    embeddings = Padded(values, torch.tensor([5]))
    head.compress(embeddings, head.log_probs(embeddings)).values.square().sum().backward()
    assert values.grad is not None
    assert values.grad[0, :5].any()
    assert not values.grad[0, 5].any()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in (head.residual.weight, head.log_scale))


def test_a_fresh_head(head: CTCHead):
    """It neither favours nor rules out blank, adds no residual, and leaves the LLM's table out of the checkpoint."""
    fresh = CTCHead(head.table)
    z = Padded(F.normalize(torch.randn(1, 3, D), dim=-1), torch.tensor([3]))
    assert not fresh.blank(z.values).any()
    assert fresh.log_scale.item() == pytest.approx(math.log(16))
    assert not fresh.residual.weight.any()
    assert set(fresh.state_dict()) == {"log_scale", "blank.weight", "blank.bias", "residual.weight"}
    assert math.isclose(fresh.keep_below, 0.9)


@torch.no_grad()
def test_what_stands_in_the_padding_is_not_compressed(head: CTCHead):
    clean = contract.frames([7, 3, 1], D)
    wanted = head.compress(clean, head.log_probs(clean)).rows()
    for dirty in contract.soiled(clean):
        found = head.compress(dirty, head.log_probs(dirty)).rows()
        torch.testing.assert_close(found, wanted)
