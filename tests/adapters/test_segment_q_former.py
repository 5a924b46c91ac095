"""``segment_q_former`` against its equation in NumPy."""

import contract
import numpy as np
import pytest
import torch
from adapters.equations import linear, norm, q_former

from stapes.adapters.q_former import QFormerAdapter
from stapes.adapters.segment_q_former import SegmentQFormer, sinusoids
from stapes.types import Padded

OPTIONS = {"dim": 16, "layers": 2, "heads": 2, "ffn_dim": 24}


def p(segment: int, E: int) -> np.ndarray:
    """(E,): sines, then cosines, of the index at wavelengths from 2 pi to 20000 pi."""
    angle = segment * 10_000.0 ** (-2 * np.arange(E // 2) / E)
    return np.concatenate([np.sin(angle), np.cos(angle)])


@pytest.mark.parametrize("frames", [1, 10, 11, 37])
@torch.no_grad()
def test_equation(frames: int):
    """z_s = W QFormer(q, LayerNorm(h_s) + p(s)) + b, segments of 0.2 s one after the other."""
    torch.manual_seed(0)
    adapter = contract.awake(SegmentQFormer(12, 8, 0.02, segment_seconds=0.2, queries=3, **OPTIONS))
    h = torch.randn(1, frames, 12)
    x = norm(h[0].numpy(), adapter.norm)
    segments = [x[i : i + 10] + p(i // 10, 12) for i in range(0, frames, 10)]
    z = np.concatenate([linear(q_former(segment, adapter.q_former), adapter.out) for segment in segments])
    found = adapter(Padded(h, torch.tensor([frames])))
    assert found.lengths.tolist() == [len(z)]
    np.testing.assert_allclose(found.values[0], z, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_same_sound_is_told_apart_by_its_segment():
    adapter = contract.awake(SegmentQFormer(12, 8, 0.02, segment_seconds=0.2, queries=3, **OPTIONS))
    twice = torch.randn(1, 10, 12).repeat(1, 2, 1)
    first, second = adapter(Padded(twice, torch.tensor([20]))).values[0].split(3)
    assert (first - second).abs().max() > 1e-3


def test_as_large_as_a_q_former():
    """Positions have no parameters, and the segments share the rest."""
    with torch.device("meta"):
        counts = {
            sum(parameter.numel() for parameter in adapter.parameters())
            for adapter in (SegmentQFormer(1280, 5120, 0.02), QFormerAdapter(1280, 5120))
        }
    assert len(counts) == 1


def test_ninety_seconds_are_three_segments():
    with torch.device("meta"):
        adapter = SegmentQFormer(12, 8, 0.02)
    assert adapter.output_lengths(torch.tensor([50, 1500, 1501, 4500])).tolist() == [80, 80, 160, 240]


def test_positions_do_not_run_out_of_digits_in_bfloat16():
    values = torch.zeros(1, 13)
    found = sinusoids(700, values.bfloat16())
    assert found.shape == (700, 13)
    torch.testing.assert_close(found.float(), sinusoids(700, values), rtol=0.01, atol=0.01)
