"""``transformer`` against its equation in NumPy, and against the parameter counts of arXiv 2409.17044."""

import contract
import numpy as np
import pytest
import torch
from adapters.equations import transformer
from torch import nn

from stapes.adapters.cif import CIF
from stapes.adapters.conv import Conv
from stapes.adapters.ctc import CTC
from stapes.adapters.transformer import Shortened, Transformer
from stapes.errors import RecipeError
from stapes.types import Padded


@pytest.mark.parametrize("frames", [1, 23])
@torch.no_grad()
def test_equation(frames: int):
    """z = LayerNorm(W2 layer_3(... layer_1(LayerNorm(W1 h + b1))) + b2)."""
    adapter, h = contract.awake(Transformer(12, 8, dim=16, layers=3, heads=2, ffn_dim=24)), torch.randn(1, frames, 12)
    found = adapter(Padded(h, torch.tensor([frames])))
    assert len(adapter.steps) == 5
    np.testing.assert_allclose(found.values[0], transformer(h[0].numpy(), adapter.steps), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("encoder_dim", "parameters"), [(1280, 32_494_848), (1024, 32_298_240)], ids=["Whisper large", "SeamlessM4T large"]
)
def test_parameters_of_base(encoder_dim: int, parameters: int):
    """To the 4096 of Mistral 7B and Llama 3.1 8B."""
    with torch.device("meta"):
        adapter = Transformer(encoder_dim, 4096)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == parameters


def test_equal_widths_need_no_projection():
    adapter = Transformer(16, 16, dim=16, layers=1, heads=2, ffn_dim=24)
    assert isinstance(adapter.steps[0].project, nn.Identity)
    assert isinstance(adapter.steps[-1].project, nn.Identity)


@pytest.mark.parametrize("layers_before", [-1, 4])
@pytest.mark.parametrize(("kind", "derived"), [(Conv, {}), (CIF, {}), (CTC, {"vocab_size": 4, "blank_id": 1})])
def test_no_more_layers_before_than_there_are(kind: type[Shortened], derived: dict[str, int], layers_before: int):
    options = {"dim": 16, "layers": 3, "heads": 2, "ffn_dim": 24}
    with pytest.raises(RecipeError, match=rf"adapter\.layers_before: {layers_before} of 3 layers"):
        kind(12, 8, **derived, **options, layers_before=layers_before)
