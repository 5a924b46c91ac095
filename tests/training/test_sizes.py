"""Sizes found without weights are those of the model with its weights."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stapes import checkpoint, lora, recipe
from stapes.model import SpeechLLM
from stapes.training import sizes
from stapes.types import Audio, Padded, Utterance


@pytest.fixture(scope="module")
def resolved(tiny_whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> recipe.Recipe:
    """A small Whisper and a small Llama on disk, an adapter, a CTC head and LoRA."""
    from stapes.llms.toy import ToyLLM

    folder, toy = tmp_path_factory.mktemp("llm"), ToyLLM(dim=16)
    toy.model.save_pretrained(folder)
    toy.tokenizer.save_pretrained(folder)
    return recipe.parse(
        {
            "encoder": {"name": "whisper", "weights": ["path:/nowhere", f"path:{tiny_whisper}"]},
            "adapter": {"name": "conv1d_transformer", "dim": 32, "heads": 2, "layers": 1, "ffn_dim": 32},
            "llm": {"name": "causal", "weights": f"path:{folder}"},
            "ctc": {"merges": 6},
            "lora": {"rank": 2},
            "losses": {"classifier": {"channels": [2, 3, 4]}},
            "stages": [
                {"name": "align", "trainable": ["adapter", "ctc"], "losses": {"ctc": 1.0}},
                {"name": "listen", "average_decay": 0.9, "losses": {"next_token": 0.8, "classifier": 0.2}},
            ],
        }
    )


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


def test_memory(resolved: recipe.Recipe):
    found = sizes.outline(resolved)
    align, listen = (sizes.memory(found, resolved, stage) for stage in resolved.resolved_stages)
    total = sum(count for _, count in sizes.counts(found.model).values())
    adapter, head, *rest = (sizes.counts(found.model)[part][1] for part in ("adapter", "ctc", "losses", "llm.lora"))
    assert (align.weights, align.training) == (4 * total, 12 * (adapter + head))
    assert (listen.weights, listen.training) == (
        4 * (total + adapter + head + sum(rest)),
        12 * (adapter + head + sum(rest)),
    )
    assert align.activations < listen.activations
    assert listen.total == listen.weights + listen.training + listen.activations
    half = resolved.resolved_stages[1].model_copy(update={"batch_seconds": 80.0})
    assert sizes.memory(found, resolved, half).activations == pytest.approx(listen.activations / 2, rel=1e-6)


def kept_by_autograd(model: SpeechLLM, run: Callable[[], object]) -> int:
    """Bytes that ``run`` leaves behind for the backward pass, the model's own tensors apart."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("part", ["encoder", "encoder.lora"])
def test_activations_of_a_trained_encoder(tiny_whisper: Path, part: str):
    resolved = recipe.parse(
        {
            "encoder": {"name": "whisper", "weights": f"path:{tiny_whisper}"},
            "adapter": {"name": "stack_mlp", "stride": 4, "hidden_dim": 64},
            "llm": {"name": "toy"},
            "ctc": {"merges": 6},
            "encoder_lora": {"rank": 2},
            "train": {"steps": 1, "batch_seconds": 40.0, "losses": {"ctc": 1.0}, "cache": False},
            "stages": [{"name": "refine", "trainable": ["adapter", "ctc", part]}, {"name": "align"}],
        }
    )
    model = checkpoint.build(resolved).train()
    found, (refine, align) = sizes.outline(resolved), resolved.resolved_stages
    lora.set_trainable(model, refine.trainable)
    sounds = Audio.from_arrays([np.random.default_rng(row).standard_normal(160_000).astype(np.float32) for row in range(4)])
    measured = kept_by_autograd(model, lambda: model.encoder(sounds))
    estimated = sizes.memory(found, resolved, refine).activations - sizes.memory(found, resolved, align).activations
    assert 0.6 < estimated / measured < 1.6


@pytest.mark.parametrize(
    "names", [("next_token",), ("distillation",), ("classifier",), ("next_token", "classifier", "distillation")]
)
def test_activations_of_losses_are_near_what_autograd_keeps(names: tuple[str, ...]):
    resolved = recipe.parse(
        {
            "encoder": {"name": "toy"},
            "adapter": {"name": "stack_mlp", "stride": 4, "hidden_dim": 64},
            "llm": {"name": "toy", "dim": 64},
            "lora": {"rank": 4},
            "train": {"steps": 1, "batch_seconds": 40.0, "losses": dict.fromkeys(names, 1.0)},
        }
    )
    model = checkpoint.build(resolved).train()
    lora.set_trainable(model, ["adapter", "losses", "llm.lora"])
    frames = Padded(torch.randn(4, 500, 16), torch.full((4,), 500))
    answers = [[*range(20, 60)]] * 4
    rows = [Utterance("x", Path("x.wav"), "x" * 40, 10.0, entities=())] * 4
    measured = kept_by_autograd(model, lambda: model(frames, answers, dict.fromkeys(names, 1.0), rows))
    (stage,) = resolved.resolved_stages
    assert 0.6 < sizes.memory(sizes.outline(resolved), resolved, stage).activations / measured < 1.6


@pytest.mark.parametrize("part", ["llm", "llm.lora"])
def test_activations_are_near_what_autograd_keeps(part: str):
    """A toy of the LLM's proportions, uncompressed, with the speech rate and lengths that the estimate supposes."""
    resolved = recipe.parse(
        {
            "encoder": {"name": "toy"},
            "adapter": {"name": "stack_mlp", "stride": 4, "hidden_dim": 64},
            "llm": {"name": "toy", "dim": 64},
            "lora": {"rank": 4},
            "train": {"steps": 1, "batch_seconds": 40.0},
            "stages": [
                {"name": "plain", "trainable": ["adapter", part]},
                {"name": "checkpointed", "trainable": ["adapter", part], "gradient_checkpointing": True},
            ],
        }
    )
    model, found = checkpoint.build(resolved).train(), sizes.outline(resolved)
    lora.set_trainable(model, ["adapter", part])
    frames = Padded(torch.randn(4, 500, 16), torch.full((4,), 500))
    answers = [[*range(20, 60)]] * 4
    measured, estimated = [], []
    for stage in resolved.resolved_stages:
        model.llm.checkpoint_gradients(stage.gradient_checkpointing)
        measured.append(kept_by_autograd(model, lambda: model(frames, answers, {"next_token": 1.0})))
        estimated.append(sizes.memory(found, resolved, stage).activations)
    assert 0.6 < estimated[0] / measured[0] < 1.6
    saved = (estimated[0] - estimated[1]) / (measured[0] - measured[1])
    assert 0.3 < saved < 0.8, "of two layers, the estimate has one, which the backward pass computes again"
