"""LoRA: the identity at first, off again without a trace, and as many parameters as the papers count."""

from collections.abc import Callable

import contract
import pytest
import torch

from stapes import lora
from stapes.errors import RecipeError
from stapes.model import SpeechLLM


def test_it_starts_as_the_identity_and_goes_off_without_a_trace(toy_model: Callable[..., SpeechLLM]):
    batch = contract.frames([30, 12], dim=16)
    base, model = toy_model(llm_lora=None), toy_model()
    answers = [model.answer("the cat"), model.answer("a")]
    wanted, _ = base.logits(base.speech(batch).embeddings, answers)
    speech = model.speech(batch).embeddings
    torch.testing.assert_close(model.logits(speech, answers)[0], wanted, rtol=0, atol=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if lora.MARK in name:
                parameter += 0.3
    changed, _ = model.logits(speech, answers)
    assert (changed - wanted).abs().max() > 0.1
    with lora.disabled(model.llm):
        torch.testing.assert_close(model.logits(speech, answers)[0], wanted, rtol=0, atol=0)
    torch.testing.assert_close(model.logits(speech, answers)[0], changed, rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_it_comes_back_on_after_an_error(toy_model: Callable[..., SpeechLLM]):
    model = toy_model()
    layers = [part for part in model.llm.modules() if hasattr(part, "lora_A")]
    lora.set_trainable(model, ["llm.lora"])
    with pytest.raises(ZeroDivisionError), lora.disabled(model.llm):
        assert all(layer.disable_adapters for layer in layers)
        raise ZeroDivisionError
    assert layers
    assert not any(layer.disable_adapters for layer in layers)
    trainable, total = lora.parameter_counts(model)["llm.lora"]
    assert trainable == total


PARTS = {"adapter", "ctc", "llm", "llm.lora"}


@pytest.mark.parametrize("names", [(), ("adapter",), ("ctc",), ("llm.lora",), ("adapter", "llm.lora"), ("llm",)])
def test_exactly_what_is_named_becomes_trainable(toy_model: Callable[..., SpeechLLM], names: tuple[str, ...]):
    model = toy_model()
    lora.set_trainable(model, ["adapter", "ctc", "llm.lora"])  # something to be switched off again
    lora.set_trainable(model, names)
    counts = lora.parameter_counts(model)
    assert set(counts) == PARTS
    for part, (trainable, total) in counts.items():
        assert trainable == (total if part in names else 0)
    on = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    prefixes = {"llm.lora": "llm.", "llm": "llm."}
    for name, _ in model.named_parameters():
        named = any(
            name.startswith(prefixes.get(part, f"{part}.")) and (part == "llm.lora") == (lora.MARK in name) for part in names
        )
        assert (name in on) == named


def test_a_target_that_is_not_there(toy_model: Callable[..., SpeechLLM]):
    with pytest.raises(RecipeError, match=r"lora\.targets: no linear layer is called 'query', expected some of .*q_proj"):
        toy_model(llm_lora={"rank": 4, "targets": ["q_proj", "query"]})


def test_scale_and_dropout(toy_model: Callable[..., SpeechLLM]):
    """alpha / r, with alpha = 2 r unless it is given; dropout in training only."""
    for options, scale in (({"rank": 4}, 2.0), ({"rank": 4, "alpha": 4.0}, 1.0)):
        layer = toy_model(llm_lora=options | {"dropout": 0.5}).llm.model.model.layers[0].self_attn.q_proj
        with torch.no_grad():
            layer.lora_B["default"].weight.fill_(0.1)
        x = torch.randn(2, 32)
        low_rank = x @ layer.lora_A["default"].weight.T @ layer.lora_B["default"].weight.T
        torch.testing.assert_close(layer(x), layer.base_layer(x) + scale * low_rank)
        assert not torch.equal(layer.train()(x), layer(x))


@pytest.mark.parametrize(
    ("size", "rank", "targets", "parameters"),
    [
        pytest.param(
            (4096, 11008, 32, 32, 32), 16, ["q_proj", "k_proj", "v_proj", "o_proj"], 16_777_216, id="Vicuna 7B, 2406.17272"
        ),
        pytest.param((2048, 5632, 22, 32, 4), 32, ["q_proj", "k_proj", "v_proj"], 6_127_616, id="TinyLlama, 2509.04473"),
    ],
)
def test_parameters_of_the_papers(size: tuple[int, ...], rank: int, targets: list[str], parameters: int):
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, ffn, layers, heads, kv_heads = size
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
        lora.add(model, rank=rank, targets=targets)
    assert sum(p.numel() for name, p in model.named_parameters() if lora.MARK in name) == parameters
