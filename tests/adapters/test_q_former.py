"""``q_former`` against its equation in NumPy, and its size against BLIP-2's arithmetic."""

import contract
import numpy as np
import pytest
import torch
from adapters.equations import linear, norm, q_former

from stapes.adapters.q_former import QFormerAdapter
from stapes.types import Padded


@pytest.mark.parametrize("frames", [1, 4, 37])
@torch.no_grad()
def test_equation(frames: int):
    """z = W QFormer(q, LayerNorm(h)) + b."""
    torch.manual_seed(0)
    adapter = contract.awake(QFormerAdapter(12, 8, queries=5, dim=16, layers=2, heads=2, ffn_dim=24))
    h = torch.randn(1, frames, 12)
    z = linear(q_former(norm(h[0].numpy(), adapter.norm), adapter.q_former), adapter.out)
    found = adapter(Padded(h, torch.tensor([frames])))
    assert found.lengths.tolist() == [5]
    np.testing.assert_allclose(found.values[0], z, rtol=1e-4, atol=1e-5)


def test_parameters():
    """From Whisper large to Vicuna 13B; a layer has two attentions, a feed-forward part, and a norm after each of the three."""
    E, C, D = 1280, 768, 5120
    itself, cross, ffn = 4 * (C * C + C), 2 * (C * C + C) + 2 * (E * C + C), 2 * 3072 * C + 3072 + C
    with torch.device("meta"):
        adapter = QFormerAdapter(E, D)
    wanted = 2 * E + 80 * C + 2 * C + 2 * (itself + cross + ffn + 3 * 2 * C) + C * D + D
    assert sum(parameter.numel() for parameter in adapter.parameters()) == wanted


def test_eighty_embeddings_however_long():
    with torch.device("meta"):
        adapter = QFormerAdapter(12, 8)
    assert adapter.output_lengths(torch.tensor([1, 50, 1500])).tolist() == [80, 80, 80]
