"""The blocks of BERT and BLIP-2: against NumPy, and against the modules of transformers with the same weights."""

import contract
import numpy as np
import pytest
import torch
from adapters.equations import lend_attention, lend_q_former, post_norm_layer, q_former
from torch import nn

from stapes.adapters.attention import Attention, PostNormLayer, QFormer
from stapes.errors import RecipeError
from stapes.types import Padded

LENGTHS = [9, 4, 1]


def masked(lengths: list[int], dim: int, size: int) -> tuple[Padded, torch.Tensor]:
    frames = Padded.from_rows([torch.randn(length, dim) for length in lengths])
    values = nn.functional.pad(frames.values, (0, 0, 0, size - frames.values.shape[1]), value=7.0)
    frames = Padded(values, frames.lengths)
    return frames, frames.mask


@pytest.mark.parametrize("source", [False, True])
@torch.no_grad()
def test_post_norm_layer(source: bool):
    torch.manual_seed(0)
    layer = contract.awake(PostNormLayer(16, 2, 24, 0.1, source_dim=6 if source else None))
    x, h = torch.randn(1, 7, 16), torch.randn(1, 11, 6)
    frames = Padded(h, torch.tensor([11])) if source else None
    found = layer(Padded(x, torch.tensor([7])), frames).values[0]
    wanted = post_norm_layer(x[0].numpy(), layer, h[0].numpy() if source else None)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_q_former():
    torch.manual_seed(0)
    module = contract.awake(QFormer(6, queries=3, dim=16, layers=2, heads=4, ffn_dim=24, dropout=0.1))
    frames, _ = masked(LENGTHS, 6, 12)
    for row, found in zip(frames.rows(), module(frames), strict=True):
        np.testing.assert_allclose(found, q_former(row.numpy(), module), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_bert_says_the_same():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
    theirs = transformers.BertModel(config, add_pooling_layer=False).eval()
    ours = contract.awake(PostNormLayer(16, 2, 24, 0.1))
    block = theirs.encoder.layer[0]
    lend_attention(block.attention.self, ours.attention)
    block.attention.output.dense.load_state_dict(ours.attention.out.state_dict())
    block.attention.output.LayerNorm.load_state_dict(ours.attention_norm.state_dict())
    block.intermediate.dense.load_state_dict(ours.ffn_in.state_dict())
    block.output.dense.load_state_dict(ours.ffn_out.state_dict())
    block.output.LayerNorm.load_state_dict(ours.ffn_norm.state_dict())
    frames, mask = masked(LENGTHS, 16, 12)
    wanted = theirs.encoder(frames.values, attention_mask=mask[:, None, None, :]).last_hidden_state
    torch.testing.assert_close(ours(frames).values[mask], wanted[mask], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_q_former_of_blip_2_says_the_same():
    transformers = pytest.importorskip("transformers")
    config = transformers.Blip2QFormerConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=24,
        cross_attention_frequency=1,
        encoder_hidden_size=6,
    )
    theirs = transformers.Blip2QFormerModel(config).eval()
    ours = contract.awake(QFormer(6, queries=3, dim=16, layers=2, heads=4, ffn_dim=24, dropout=0.1))
    lend_q_former(theirs, ours)
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters()) - ours.queries.numel()
    frames, mask = masked(LENGTHS, 6, 12)
    wanted = theirs(
        query_embeds=ours.queries[None].expand(3, -1, -1),
        encoder_hidden_states=frames.values,
        encoder_attention_mask=mask.long(),
    ).last_hidden_state
    torch.testing.assert_close(ours(frames), wanted, rtol=1e-4, atol=1e-5)


def test_a_row_of_padding_gives_numbers_and_gradients():
    module = QFormer(6, queries=2, dim=16, layers=2, heads=4, ffn_dim=24, dropout=0.1)
    found = module(Padded(torch.zeros(2, 5, 6), torch.tensor([5, 0])))
    found.square().sum().backward()
    assert found.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


def test_layers_start_as_the_papers_have_it():
    torch.manual_seed(0)
    layer = PostNormLayer(64, 2, 256, 0.1, source_dim=32)
    for linear in (module for module in layer.modules() if isinstance(module, nn.Linear)):
        assert float(linear.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert not linear.bias.any()


@pytest.mark.parametrize("module", [Attention(16, 2, 0.5), PostNormLayer(16, 2, 24, 0.5)], ids=["attention", "layer"])
def test_dropout_works_in_training_only(module: nn.Module):
    x = torch.randn(1, 20, 16)
    arguments = (x, x) if isinstance(module, Attention) else (Padded(x, torch.tensor([20])),)

    def run() -> torch.Tensor:
        found = module(*arguments)
        return found.values if isinstance(found, Padded) else found

    module.train()
    assert not torch.equal(run(), run())
    module.eval()
    assert torch.equal(run(), run())


def test_heads_that_do_not_fit_are_an_error():
    with pytest.raises(RecipeError, match=r"adapter\.heads: 3 heads for a dim of 16, expected a dim that is a multiple"):
        Attention(16, 3)
