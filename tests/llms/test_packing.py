"""Utterances in a row without padding: the same logits and gradients as padded, and nothing computed in vain."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from stapes.llms import packing
from stapes.llms.base import LLM, positions
from stapes.llms.toy import ToyLLM

LENGTHS = (5, 9, 1, 17)
WANTED = (2, 3, 1, 4)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings (B, L, D), padded on the left with what must not be read, their mask, and the positions wanted (B, U)."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(len(LENGTHS), max(LENGTHS), 32, generator=generator)
    mask = torch.arange(max(LENGTHS)) >= max(LENGTHS) - torch.tensor(LENGTHS)[:, None]
    wanted = torch.arange(max(WANTED)) >= max(WANTED) - torch.tensor(WANTED)[:, None]
    return embeddings, mask, wanted


def another(**changes: Any) -> LLM:
    """A small model of another family with the toy's tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    toy = ToyLLM()
    torch.manual_seed(0)
    config = AutoConfig.for_model(**sizes | {"vocab_size": len(toy.table), "num_key_value_heads": 2} | changes)
    return LLM(AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval(), toy.tokenizer)


def read(llm: LLM) -> list[int]:
    """How many positions enter each forward pass from now on."""
    counts: list[int] = []
    first = llm.model.get_submodule("model.layers.0")
    first.register_forward_pre_hook(lambda _, arguments: counts.append(arguments[0].shape[:2].numel()))
    return counts


FAMILIES = {
    "llama": {"model_type": "llama"},
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "qwen3": {"model_type": "qwen3", "head_dim": 8},
    "wide window": {"model_type": "mistral", "sliding_window": 17},
}


@pytest.mark.parametrize("apart", [packing._one_by_one, packing._side_by_side], ids=["as on a CPU", "as on a GPU"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_logits_and_gradients_without_padding(
    family: str, apart: Callable[..., Tensor], batch: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(packing, "_one_by_one", apart)
    llm, (embeddings, mask, wanted) = another(**FAMILIES[family]), batch
    counts = read(llm)
    gradients, logits = [], []
    assert llm._packs
    for llm._packs in (False, True):
        given = embeddings.clone().requires_grad_()
        logits.append(llm(given, mask, wanted))
        logits[-1].square().sum().backward()
        gradients.append(given.grad)
    assert counts == [mask.numel(), sum(LENGTHS)]
    torch.testing.assert_close(logits[1], logits[0], **CLOSE)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-4)
    assert not gradients[1][~mask].any()


def test_what_stands_in_the_padding_is_not_read(batch: tuple[Tensor, Tensor, Tensor]):
    llm, (embeddings, mask, wanted) = ToyLLM(), batch
    clean = llm(embeddings, mask, wanted)
    dirty = llm(embeddings.masked_fill(~mask[:, :, None], torch.nan), mask, wanted)
    assert torch.equal(clean, dirty)


def test_a_row_is_what_transformers_takes_it_for(batch: tuple[Tensor, Tensor, Tensor]):
    """Without the lengths, it finds the borders by the position ids."""
    llm, (embeddings, mask, wanted) = ToyLLM(), batch
    row, places = embeddings[mask][None], positions(mask)[mask][None]
    logits = llm.model(inputs_embeds=row, position_ids=places, use_cache=False).logits[0]
    ends = [sum(LENGTHS[: number + 1]) for number in range(len(LENGTHS))]
    last = torch.cat([logits[end - count : end] for end, count in zip(ends, WANTED, strict=True)])
    torch.testing.assert_close(llm(embeddings, mask, wanted), last, **CLOSE)


@pytest.mark.parametrize("why", ["narrow window", "eager"])
def test_where_a_row_will_not_do_it_is_padded(why: str, batch: tuple[Tensor, Tensor, Tensor]):
    llm = another(model_type="mistral", sliding_window=4 if why == "narrow window" else None)
    if why == "eager":
        llm.model.set_attn_implementation("eager")
        llm = LLM(llm.model, llm.tokenizer)
    counts = read(llm)
    embeddings, mask, wanted = batch
    together = llm(embeddings, mask, wanted)
    assert counts == [mask.numel()]
    for number, (length, count) in enumerate(zip(LENGTHS, WANTED, strict=True)):
        row = slice(number, number + 1)
        alone = llm(embeddings[row, -length:], mask[row, -length:], wanted[row, -count:])
        first = sum(WANTED[:number])
        torch.testing.assert_close(together[first : first + count], alone, **CLOSE)
