"""``cross_attention`` against its equation in NumPy, and its size."""

import contract
import numpy as np
import pytest
import torch
from adapters.equations import attention, conv, linear, numbers

from stapes.adapters.cross_attention import CrossAttention
from stapes.errors import RecipeError
from stapes.types import Padded

TABLE = torch.randn(9, 8, generator=torch.Generator().manual_seed(1))  # of an LLM with nine tokens


@pytest.mark.parametrize("keys", ["learned", "llm"])
@pytest.mark.parametrize(("stride", "kernel"), [(4, 7), (2, 5)])
@pytest.mark.parametrize("frames", [1, 4, 37])
@torch.no_grad()
def test_equation(frames: int, stride: int, kernel: int, keys: str):
    """z = W2 MultiHead(H, E, E) + b2 with H = W1 Conv1d(h) + b1 and a table E, learned or the LLM's."""
    torch.manual_seed(0)
    adapter = CrossAttention(12, 8, TABLE, dim=16, heads=2, entries=10, stride=stride, kernel=kernel, keys=keys)
    contract.awake(adapter)
    h = torch.randn(1, frames, 12)
    H = linear(conv(h[0].numpy(), adapter.conv.conv), adapter.conv.then)
    head = adapter.attention
    k, v = np.split(linear(numbers(adapter.table if keys == "learned" else TABLE), head.read), 2, axis=1)
    z = linear(linear(attention(linear(H, head.query), k, v, head.heads), head.out), adapter.out)
    found = adapter(Padded(h, torch.tensor([frames])))
    np.testing.assert_allclose(found.values[0], z, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_table_of_one_entry_says_one_thing():
    adapter = contract.awake(CrossAttention(12, 8, TABLE, dim=16, heads=2, entries=1))
    found = adapter(Padded(torch.randn(1, 20, 12), torch.tensor([20]))).values[0]
    torch.testing.assert_close(found, found[:1].expand_as(found))


@torch.no_grad()
def test_a_table_in_the_precision_of_its_llm():
    adapter = contract.awake(CrossAttention(12, 8, TABLE.bfloat16(), dim=16, heads=2, keys="llm"))
    found = adapter(Padded(torch.randn(1, 20, 12), torch.tensor([20]))).values
    assert found.dtype == torch.float32


def test_the_llms_table_is_not_trained_and_not_saved():
    own = CrossAttention(12, 8, TABLE, dim=16, heads=2)
    adapter = CrossAttention(12, 8, TABLE, dim=16, heads=2, keys="llm")
    assert set(own.state_dict()) - set(adapter.state_dict()) == {"table"}
    assert set(dict(own.named_parameters())) - set(dict(adapter.named_parameters())) == {"table"}
    assert adapter.table.data_ptr() == TABLE.data_ptr()


def test_keys_that_there_are_none_of():
    with pytest.raises(RecipeError, match=r"adapter\.keys: .*'tokens'.* 'learned' or 'llm'"):
        CrossAttention(12, 8, TABLE, keys="tokens")


@pytest.mark.parametrize(("keys", "table"), [("learned", 1024 * 5120), ("llm", 0)])
def test_parameters(keys: str, table: int):
    """From Whisper large to Vicuna 13B: convolution, linear layer, table, queries, keys and values, two outputs."""
    E, C, D = 1280, 1024, 5120
    with torch.device("meta"):
        adapter = CrossAttention(E, D, torch.empty(32000, D), keys=keys)
    wanted = 7 * E * C + C + 3 * (C * C + C) + table + 2 * (D * C + C) + C * D + D
    assert sum(parameter.numel() for parameter in adapter.parameters()) == wanted


def test_rate():
    """50 frames a second become 12.5."""
    with torch.device("meta"):
        adapter = CrossAttention(12, 8, TABLE)
    assert adapter.output_lengths(torch.tensor([50, 1500, 5, 4])).tolist() == [13, 375, 2, 1]
