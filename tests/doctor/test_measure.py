"""The peak that is measured is the peak."""

import torch

from stapes.doctor.measure import peak_bytes

CPU = torch.device("cpu")


def test_the_most_that_is_there_at_once():
    def run() -> torch.Tensor:
        first = torch.empty(1000, 250)  # 1 MB
        second = first.exp()
        del first
        third = second.exp()
        del second
        return third

    assert peak_bytes(run, CPU) == 2_000_000


def test_what_was_there_before_does_not_count():
    large = torch.zeros(1_000_000)
    assert peak_bytes(lambda: large[:250].clone(), CPU) == 1000
