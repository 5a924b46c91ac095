"""Sizes found without weights are those of the model with its weights."""

import pytest

from stapes import checkpoint, lora, recipe
from stapes.training import sizes


def test_counts_are_those_of_the_model(resolved: recipe.Recipe):
    found = sizes.outline(resolved)
    assert found.missing == {}
    assert all(parameter.is_meta for parameter in found.model.parameters())
    fetched = resolved.model_copy(update={"encoder": resolved.encoder | {"weights": resolved.encoder["weights"][1]}})
    built = checkpoint.build(fetched)
    assert sizes.counts(found.model) == lora.parameter_counts(built)
    for stage in resolved.resolved_stages:
        lora.set_trainable(built, stage.trainable)
        assert sizes.counts(found.model, stage) == lora.parameter_counts(built)
    assert found.embeddings_per_second == pytest.approx(12.5)


def test_toys_are_made_for_real(toy_model):
    found = sizes.outline(recipe.load("toy"))
    assert sizes.counts(found.model) == lora.parameter_counts(toy_model(llm_lora=None))


def test_sizes_of_what_is_not_fetched_are_those_that_are_known():
    """Of the sources of a part, the first that is on this machine, else the first that is known, whatever stands before it."""
    config = {"name": "causal", "weights": ["path:/nowhere", "hf:TinyLlama/TinyLlama-1.1B-Chat-v1.0@main"]}
    found = sizes.outline(recipe.parse({"encoder": {"name": "toy"}, "adapter": {"name": "pool_linear"}, "llm": config}))
    assert sizes.counts(found.model)["llm"] == (0, 1_100_048_384)
    assert found.origins == {
        "llm": "facts (https://huggingface.co/TinyLlama/TinyLlama-1.1B-Chat-v1.0/blob/main/config.json); "
        "hf:TinyLlama/TinyLlama-1.1B-Chat-v1.0@main is not fetched"
    }


def test_a_configuration_on_this_machine_goes_before_what_is_known(resolved: recipe.Recipe):
    llm = {"name": "causal", "weights": ["hf:TinyLlama/TinyLlama-1.1B-Chat-v1.0", resolved.llm["weights"]]}
    found = sizes.outline(resolved.model_copy(update={"llm": llm}))
    assert sizes.counts(found.model)["llm"] == sizes.counts(sizes.outline(resolved).model)["llm"]
    assert found.origins["llm"] == f"the config of {resolved.llm['weights']}"


@pytest.mark.parametrize("name", ["ctc", "cif"])
def test_compression_by_content_is_that_of_speech_and_not_its_bound(name: str):
    """30 s of frames with 10 s of speech in them: arXiv 2409.17044 has 2 and 3.8 embeddings a second of speech."""
    found = sizes.outline(recipe.load(f"papers/connect_{name}_whisper_llama"))
    assert (found.frames_per_second, found.embeddings_per_second, found.most_embeddings_per_second) == (150.0, 4.0, 150.0)
    assert found.longest_frames == 1500
    slow = sizes.outline(recipe.load(f"papers/connect_{name}_seamless_llama"))
    assert slow.embeddings_per_second == 4.0
    assert slow.most_embeddings_per_second == pytest.approx(6.25, rel=0.02)


def test_a_window_of_30_seconds_gives_all_its_frames(resolved: recipe.Recipe):
    windowed = resolved.model_copy(update={"encoder": resolved.encoder | {"window": "30s"}})
    assert sizes.outline(windowed).embeddings_per_second == pytest.approx(37.5)
