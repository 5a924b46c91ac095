"""LoRA: the identity at first, off again without a trace, and as many parameters as the papers count."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contract
import pytest
import torch
from peft.tuners.lora import LoraLayer

from stapes import checkpoint, lora
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


def test_what_was_merged_comes_off_again_up_to_rounding_and_exactly_by_loading(
    tone_run: Path, toy_model: Callable[..., SpeechLLM]
):
    """Merged, off, on again, loaded anew: the base is the base, and the model is the model."""
    batch = contract.frames([30, 12], dim=16)
    model, again = (checkpoint.load(tone_run)[0] for _ in range(2))
    base = toy_model(llm_lora=None).llm
    answers = [model.answer("a b"), model.answer("c")]
    with torch.no_grad():
        speech = model.speech(batch).embeddings

    def logits() -> torch.Tensor:
        return model.logits(speech, answers)[0]

    changed = logits()
    lora.merge(model.llm)
    torch.testing.assert_close(logits(), changed, rtol=1e-4, atol=1e-4)
    weights = {name: tensor for name, tensor in model.llm.named_parameters() if lora.MARK not in name}
    assert any(
        not torch.equal(weights[name.replace("q_proj.", "q_proj.base_layer.")], own)
        for name, own in base.named_parameters()
        if "q_proj" in name
    )
    with lora.disabled(model.llm):
        without = logits()
        for (name, tensor), own in zip(weights.items(), base.parameters(), strict=True):
            torch.testing.assert_close(tensor, own, rtol=0, atol=1e-6, msg=name)
    assert (without - changed).abs().max() > 0.1
    torch.testing.assert_close(logits(), changed, rtol=1e-4, atol=1e-4)
    with lora.disabled(again.llm):
        for tensor, own in zip(
            (p for n, p in again.llm.named_parameters() if lora.MARK not in n), base.parameters(), strict=True
        ):
            assert torch.equal(tensor, own)
        model.llm = base
        torch.testing.assert_close(again.logits(speech, answers)[0], logits(), rtol=0, atol=0)


def test_layers_that_are_taken_out_leave_the_base_or_what_was_merged(toy_model: Callable[..., SpeechLLM]):
    base = toy_model(llm_lora=None).llm.state_dict()
    for merge in (False, True):
        llm = toy_model().llm
        with torch.no_grad():
            for name, parameter in llm.named_parameters():
                if "lora_B" in name:
                    parameter.fill_(0.1)
        before = llm.embed(torch.arange(5))[None]
        wanted = llm.model(inputs_embeds=before).logits if merge else None
        if merge:
            lora.merge(llm)
        lora.remove(llm)
        found = llm.state_dict()
        assert found.keys() == base.keys()
        moved = {name for name in found if not torch.equal(found[name], base[name])}
        assert moved == ({name for name in found if "self_attn" in name} if merge else set())
        if merge:
            torch.testing.assert_close(llm.model(inputs_embeds=before).logits, wanted, rtol=1e-4, atol=1e-5)


def test_what_is_kept_in_few_bits_is_not_merged(toy_model: Callable[..., SpeechLLM]):
    """Bits stand in for a quantised weight here: what matters is that nobody adds to them."""
    llm = toy_model().llm
    layers = [part for part in llm.modules() if isinstance(part, LoraLayer)]
    packed = layers[0].get_base_layer()
    packed.weight = torch.nn.Parameter(torch.full_like(packed.weight, 7, dtype=torch.uint8), requires_grad=False)
    lora.merge(llm)
    assert [layer.merged for layer in layers] == [False] + [True] * (len(layers) - 1)
    assert bool((packed.weight == 7).all())


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
        pytest.param((4096, 11008, 32, 32, 32), 16, "auto", 16_777_216, id="Vicuna 7B, 2406.17272"),
        pytest.param((2048, 5632, 22, 32, 4), 32, ["q_proj", "k_proj", "v_proj"], 6_127_616, id="TinyLlama, 2509.04473"),
    ],
)
def test_parameters_of_the_papers(size: tuple[int, ...], rank: int, targets: Any, parameters: int):
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


# -- which layers ------------------------------------------------------------------------------------------------------

LLM_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64}
LLM_SIZES |= {"num_key_value_heads": 4}
ENCODER_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES: dict[str, dict[str, Any]] = {
    "gemma": LLM_SIZES | {"head_dim": 8},
    "gemma2": LLM_SIZES | {"head_dim": 8},
    "gemma3_text": LLM_SIZES | {"head_dim": 8},
    "phi3": LLM_SIZES | {"pad_token_id": 0},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64},
    "opt": LLM_SIZES | {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 64},
    "wav2vec2": ENCODER_SIZES,
    "hubert": ENCODER_SIZES,
    "wavlm": ENCODER_SIZES,
    "wav2vec2-bert": ENCODER_SIZES,
    "moonshine": {"hidden_size": 32, "intermediate_size": 48, "encoder_num_hidden_layers": 2, "decoder_num_hidden_layers": 1},
    "whisper": {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48}
    | {"decoder_layers": 1, "decoder_attention_heads": 4},
    "seamless_m4t_v2": {"hidden_size": 32, "speech_encoder_layers": 2, "speech_encoder_attention_heads": 4}
    | {"speech_encoder_intermediate_size": 48, "encoder_layers": 1, "decoder_layers": 1}
    | {"t2u_encoder_layers": 1, "t2u_decoder_layers": 1, "vocab_size": 64, "t2u_vocab_size": 64},
}
PAGE = Path(__file__).parents[1] / "docs/finetuning.md"
ROW = re.compile(r"^\| (encoder|llm) \| (`.*`) \| (`.*`) \|$", flags=re.MULTILINE)
ROWS = [
    (side, kind, layers.strip("`").split("`, `"))
    for side, kinds, layers in ROW.findall(PAGE.read_text())
    for kind in kinds.strip("`").split("`, `")
]


def build(side: str, kind: str) -> Any:
    """A small model of an architecture, as an LLM or as a speech encoder, with random weights."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **SIZES.get(kind, LLM_SIZES))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if side == "llm":
            return AutoModelForCausalLM.from_config(config).eval()
        if kind == "seamless_m4t_v2":
            from transformers.models.seamless_m4t_v2.modeling_seamless_m4t_v2 import SeamlessM4Tv2SpeechEncoder

            return SeamlessM4Tv2SpeechEncoder(config).eval()
        model = AutoModel.from_config(config).eval()
        return model.get_encoder() if config.is_encoder_decoder else model


@pytest.mark.parametrize(("side", "kind", "layers"), ROWS, ids=[f"{side} {kind}" for side, kind, _ in ROWS])
def test_layers_are_found_and_every_one_of_them_is_trained(side: Any, kind: str, layers: list[str]):
    """Those that docs/finetuning.md names. A layer whose weights are used and that is not called would get no gradient."""
    model = build(side, kind)
    found = lora.find_targets(model, side)
    assert sorted(found) == sorted(layers)
    lora.add(model, rank=2, side=side)
    assert sorted(lora.targets(model)) == sorted(layers)
    inputs = {
        "llm": {"input_ids": torch.arange(6)[None]},
        "whisper": {"input_features": torch.randn(1, 80, 3000)},
        "wav2vec2-bert": {"input_features": torch.randn(1, 40, 160)},
        "seamless_m4t_v2": {"input_features": torch.randn(1, 40, 160)},
    }
    output = model(**inputs.get("llm" if side == "llm" else kind, {"input_values": torch.randn(1, 8000)}))
    (output.logits if side == "llm" else output.last_hidden_state).square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if "lora_B" in name}
    assert gradients
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.any()] == []


def test_what_is_found_can_be_said_in_a_recipe_and_gives_the_same(toy_model: Callable[..., SpeechLLM]):
    shapes = [
        {name: p.shape for name, p in toy_model(llm_lora=options).named_parameters()}
        for options in ({"rank": 4}, {"rank": 4, "targets": ["q_proj", "k_proj", "v_proj", "o_proj"]})
    ]
    assert shapes[0] == shapes[1]
    assert lora.targets(toy_model().llm) == ["q_proj", "k_proj", "v_proj", "o_proj"]


def test_an_encoder_without_layers_to_put_it_on():
    from stapes.encoders.toy import ToyEncoder

    with pytest.raises(RecipeError, match=r"encoder_lora\.targets: the encoder has no linear layers in repeated blocks"):
        lora.add(ToyEncoder(), side="encoder")


def test_a_layer_that_must_not_have_it():
    with pytest.raises(RecipeError, match=r"lora\.targets: .*'out_proj' is incompatible with Mamba"):
        lora.add(build("llm", "mamba"), targets=["out_proj"])
