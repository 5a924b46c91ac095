"""The table of sizes: configurations that transformers understands, of the size that their authors say."""

import re

import pytest
import torch

from stapes.hub.facts import known_facts, read_facts
from stapes.hub.table import packs

# In millions, as papers and model cards give them.
MILLIONS = {
    "hf:facebook/hubert-large-ll60k": 317,
    "hf:facebook/hubert-xlarge-ll60k": 964,
    "hf:facebook/hubert-xlarge-ls960-ft": 964,
    "hf:microsoft/wavlm-large": 316,
    "hf:TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1100,
    "hf:mistralai/Mistral-7B-Instruct-v0.3": 7248,
    "hf:meta-llama/Llama-3.1-8B-Instruct": 8030,
    "hf:lmsys/vicuna-7b-v1.5": 6738,
    "hf:Qwen/Qwen2.5-0.5B-Instruct": 494,
    "hf:HuggingFaceTB/SmolLM2-135M-Instruct": 135,
    "hf:openai/whisper-small": 244,
    "hf:openai/whisper-large-v3": 1543,
}


@pytest.mark.parametrize("source", read_facts())
def test_a_configuration_names_only_what_transformers_knows(source: str):
    from transformers import AutoConfig

    facts = read_facts()[source]
    config = dict(facts.config)
    kind = config.pop("model_type")
    assert set(config) <= set(AutoConfig.for_model(kind).to_dict())
    assert all(isinstance(value, (int, str)) for value in config.values())
    assert re.fullmatch(r"https://huggingface\.co/[\w.-]+/[\w.-]+/blob/main/config\.json", facts.source)


@pytest.mark.parametrize(("source", "millions"), MILLIONS.items())
def test_the_size_is_what_its_authors_say(source: str, millions: int):
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    config = dict(read_facts()[source].config)
    settings = AutoConfig.for_model(config.pop("model_type"), **config)
    kind = AutoModelForCausalLM if settings.model_type in ("llama", "mistral", "qwen2") else AutoModel
    with torch.device("meta"):
        model = kind.from_config(settings)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(1e6 * millions, rel=0.01)


def test_every_pack_of_an_encoder_or_llm_is_known():
    assert {f"pack:{name}" for name, pack in packs().items() if pack.model != "spacy"} <= set(read_facts())


def test_a_source_is_known_by_any_of_its_names():
    found = known_facts("openai/whisper-base")
    assert found is not None and found.config["d_model"] == 512
    assert (
        found == known_facts("hf:openai/whisper-base@main") == known_facts("whisper-base") == known_facts("pack:whisper-base")
    )
    assert known_facts("hf:nobody/nothing") is None
    assert known_facts("path:/nowhere") is None
