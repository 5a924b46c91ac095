"""Next-token loss against a plain loop."""

import math

import torch

from stapes.losses.next_token import next_token


def test_against_a_loop():
    torch.manual_seed(0)
    logits, targets = torch.randn(7, 5), torch.tensor([2, 0, 4, 4, 1, 0, 3])
    expected = 0.0
    for row, target in zip(logits, targets, strict=True):
        expected -= math.log(row.exp()[target] / row.exp().sum())
    assert math.isclose(float(next_token(logits, targets)), expected, rel_tol=1e-5)


def test_an_emphasised_token_counts_as_if_it_stood_there_so_many_times():
    torch.manual_seed(0)
    logits, targets = torch.randn(3, 5), torch.tensor([2, 0, 4])
    repeated = next_token(logits[[0, 1, 1, 1, 2]], targets[[0, 1, 1, 1, 2]])
    torch.testing.assert_close(next_token(logits, targets, torch.tensor([1.0, 3.0, 1.0])), repeated)


def test_half_precision_is_summed_in_float32():
    torch.manual_seed(0)
    logits, targets = torch.randn(3000, 5).bfloat16(), torch.zeros(3000, dtype=torch.long)
    found = next_token(logits, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, next_token(logits.float(), targets))
