"""The blocks that adapters share, each against NumPy."""

import math

import contract
import numpy as np
import pytest
import torch
from adapters.equations import stacked, strided_conv, transformer_layer

from stapes.adapters import ADAPTERS
from stapes.adapters.layers import StridedConv, TransformerLayer, key_mask, rotate, runs, stack, windows
from stapes.errors import RecipeError
from stapes.types import Padded


@pytest.mark.parametrize("size", [1, 3, 5])
def test_stack(size: int):
    torch.manual_seed(0)
    rows = [torch.randn(length, 4) for length in (1, 5, 9)]
    padded = Padded.from_rows(rows)
    found = stack(Padded(padded.values.masked_fill(~padded.mask[:, :, None], torch.nan), padded.lengths), size)
    for row, wanted in zip(found.rows(), rows, strict=True):
        np.testing.assert_array_equal(row, stacked(wanted.numpy(), size))


def test_windows():
    """Five frames three at a time beside two frames: whole, rest, shorter, none."""
    rows = [torch.randn(5, 4), torch.randn(2, 4)]
    found = windows(Padded.from_rows(rows), 3)
    assert found.lengths.tolist() == [3, 2, 2, 0]
    for row, wanted in zip(found.rows(), (rows[0][:3], rows[0][3:], rows[1], rows[1][:0]), strict=True):
        assert torch.equal(row, wanted)


def test_a_window_is_no_wider_than_the_batch():
    frames = Padded.from_rows([torch.randn(5, 4), torch.randn(2, 4)])
    found = windows(frames, 1500)
    assert torch.equal(found.values, frames.values)
    assert torch.equal(found.lengths, frames.lengths)


def test_attention_reads_what_is_real_and_where_nothing_is_everything():
    values = torch.zeros(2, 3, 4)
    assert key_mask(Padded(values, torch.tensor([3, 3]))) is None
    assert key_mask(Padded(values, torch.tensor([2, 0]))).tolist() == [[[[True, True, False]]], [[[True, True, True]]]]


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 2), (5, 2), (7, 3)])
@pytest.mark.parametrize("steps", [1, 2, 9, 10])
@torch.no_grad()
def test_strided_conv(kernel: int, stride: int, steps: int):
    torch.manual_seed(0)
    layer, x = StridedConv(6, 4, kernel, stride), torch.randn(1, steps, 6)
    found = layer(Padded(x, torch.tensor([steps])))
    assert found.lengths.tolist() == [math.ceil(steps / stride)]
    np.testing.assert_allclose(found.values[0], strided_conv(x[0].numpy(), layer), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_transformer_layer():
    torch.manual_seed(0)
    layer, x = contract.awake(TransformerLayer(16, 2, 24, 0.1)), torch.randn(1, 11, 16)
    found = layer(Padded(x, torch.tensor([11])))
    np.testing.assert_allclose(found.values[0], transformer_layer(x[0].numpy(), layer), rtol=1e-4, atol=1e-5)


def test_a_layer_that_starts_at_zero_is_the_identity():
    x = torch.randn(1, 11, 16)
    frames = Padded(x, torch.tensor([11]))
    assert torch.equal(TransformerLayer(16, 2, 24, 0.0)(frames).values, x)
    assert not torch.equal(TransformerLayer(16, 2, 24, 0.0, start_at_zero=False)(frames).values, x)


@pytest.mark.parametrize("name", ["conv", "conv1d_mlp", "conv1d_transformer", "cross_attention", "dws_mlp"])
def test_an_even_kernel_is_an_error(name: str):
    with pytest.raises(RecipeError, match=r"adapter\.kernel: 4, expected an odd number"):
        ADAPTERS.build(
            {"name": name, "kernel": 4}, encoder_dim=8, llm_dim=8, seconds_per_frame=0.02, llm_table=torch.zeros(9, 8)
        )


@pytest.mark.parametrize(("stride", "kernel"), [(2, 1), (4, 5)])
def test_a_kernel_that_would_not_hear_the_last_frame_is_an_error(stride: int, kernel: int):
    with pytest.raises(RecipeError, match=rf"adapter\.kernel: {kernel} for a stride of {stride}, expected {2 * stride - 1} or"):
        StridedConv(6, 4, kernel, stride)


def test_heads_that_do_not_fit_are_an_error():
    for heads in (3, 16):
        with pytest.raises(
            RecipeError, match=rf"adapter\.heads: {heads} heads for a dim of 16, expected a dim that is a multiple"
        ):
            TransformerLayer(16, heads, 24, 0.0)


def test_rotary_attention_depends_on_distance_alone():
    torch.manual_seed(0)
    query, key = rotate(torch.randn(1, 1, 1, 8).expand(1, 1, 900, 8)), rotate(torch.randn(1, 1, 1, 8).expand(1, 1, 900, 8))
    scores = (query @ key.mT)[0, 0]
    torch.testing.assert_close(scores[0, 5], scores[800, 805], rtol=1e-3, atol=1e-4)
    assert abs(scores[0, 5] - scores[0, 6]) > 1e-3


def test_rotary_positions_do_not_run_out_of_digits_in_bfloat16():
    x = torch.ones(1, 1, 700, 8)
    torch.testing.assert_close(rotate(x.bfloat16()).float(), rotate(x), rtol=0.01, atol=0.01)


def test_runs_are_neighbours_with_one_label():
    labels = torch.tensor([[4, 4, 2, 2, 2, 4], [1, 1, 1, 0, 0, 1]])
    kept = torch.tensor([[True, True, True, False, True, True], [False, True, True, True, False, False]])
    weight, lengths = runs(labels, kept)
    assert lengths.tolist() == [4, 2]  # what is left out ends a run: 44 | 2 | 2 | 4
    wanted = torch.zeros(2, 6, 4)
    wanted[0, [0, 1], 0] = 1 / 2
    wanted[0, 2, 1] = wanted[0, 4, 2] = wanted[0, 5, 3] = 1.0
    wanted[1, [1, 2], 0] = 1 / 2
    wanted[1, 3, 1] = 1.0
    assert torch.equal(weight, wanted)
