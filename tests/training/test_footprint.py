"""The memory that is estimated is near what is measured; of the shipped pair, ``tests/doctor`` measures it."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from stapes import checkpoint, lora, recipe
from stapes.doctor.measure import peak_bytes
from stapes.model import SpeechLLM, Targets
from stapes.training import footprint, sizes
from stapes.types import Audio, Padded, Utterance


def of_training(resolved: recipe.Recipe, stage: recipe.Stage, plain_attention: bool = True) -> footprint.Memory:
    return footprint.training(sizes.outline(resolved), resolved, stage, plain_attention)


def test_what_is_exact(resolved: recipe.Recipe):
    found = sizes.outline(resolved)
    align, listen = (of_training(resolved, stage) for stage in resolved.resolved_stages)
    total = sum(count for _, count in sizes.counts(found.model).values())
    adapter, head, *rest = (sizes.counts(found.model)[part][1] for part in ("adapter", "ctc", "losses", "llm.lora"))
    small = adapter + head + sum(rest)
    assert (align.weights, align.training) == (4 * total, 12 * (adapter + head))
    assert (listen.weights, listen.training) == (4 * (total + small), 12 * small)
    assert align.activations < listen.activations
    assert listen.total == listen.weights + listen.training + listen.activations
    half = resolved.resolved_stages[1].model_copy(update={"batch_seconds": 80.0})
    assert of_training(resolved, half).activations == pytest.approx(listen.activations / 2, rel=1e-6)
    using = footprint.inference(found, resolved)
    assert (using.weights, using.training) == (4 * total, 0)
    assert footprint.inference(found, resolved, number_bytes=2).weights == 2 * total
    more = resolved.model_copy(update={"decoding": recipe.Decoding(beams=400)})
    assert footprint.inference(found, more).activations > using.activations


@pytest.mark.parametrize(("quantize", "number_bytes"), [("4bit", 4.127 / 8), ("8bit", 1.0)])
def test_quantised_weights_count_as_they_are_kept(resolved: recipe.Recipe, quantize: str, number_bytes: float):
    rounded = resolved.model_copy(update={"llm": {**(resolved.llm or {}), "quantize": quantize}})
    found = sizes.outline(resolved)
    blocks = [layer.weight for name, layer in found.model["llm"].named_modules() if name.endswith(("_proj", "base_layer"))]
    weights = sum(weight.numel() for weight in {id(weight): weight for weight in blocks}.values())
    assert weights > 0
    for use in (footprint.inference, lambda *what: footprint.training(*what, what[1].resolved_stages[0], True)):
        spared = use(found, resolved).weights - use(found, rounded).weights
        assert spared == pytest.approx(weights * (4 - number_bytes), abs=1)


def kept_by_autograd(model: SpeechLLM, run: Callable[[], object], plain_attention: bool = True) -> int:
    """Bytes that ``run`` leaves behind for the backward pass, the model's own tensors apart."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    attention = sdpa_kernel(SDPBackend.MATH) if plain_attention else contextlib.nullcontext()
    with attention, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
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
    refine, align = resolved.resolved_stages
    lora.set_trainable(model, refine.trainable)
    sounds = Audio.from_arrays([np.random.default_rng(row).standard_normal(160_000).astype(np.float32) for row in range(4)])
    measured = kept_by_autograd(model, lambda: model.encoder(sounds))
    estimated = of_training(resolved, refine).activations - of_training(resolved, align).activations
    assert 0.75 < estimated / measured < 1.25


@pytest.mark.parametrize("trainable", [["adapter"], ["adapter", "llm.lora"], ["adapter", "llm"]])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations_are_near_what_autograd_keeps(trainable: list[str], precision: str):
    """A toy of the LLM's proportions, uncompressed, with the speech rate and lengths that the estimate supposes."""
    resolved = recipe.parse(
        {
            "encoder": {"name": "toy"},
            "adapter": {"name": "stack_mlp", "stride": 4, "hidden_dim": 64},
            "llm": {"name": "toy", "dim": 64},
            "lora": {"rank": 4},
            "train": {"steps": 1, "batch_seconds": 40.0, "trainable": trainable, "precision": precision},
        }
    )
    model = checkpoint.build(resolved).train()
    lora.set_trainable(model, trainable)
    frames = Padded(torch.randn(4, 500, 16), torch.full((4,), 500))
    answers = [[*range(20, 60)]] * 4

    def step() -> object:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return model(frames, Targets(answers), {"next_token": 1.0})

    (stage,) = resolved.resolved_stages
    measured = kept_by_autograd(model, step)
    assert 0.75 < of_training(resolved, stage).activations / measured < 1.25
    assert of_training(resolved, stage, plain_attention=False).activations < 0.8 * of_training(resolved, stage).activations


@pytest.mark.parametrize("names", [("distillation",), ("classifier",), ("next_token", "classifier", "distillation")])
def test_activations_of_other_losses(names: tuple[str, ...]):
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
    rows = [Utterance("x", Path("x.wav"), "x" * 40, 10.0, entities=())] * 4
    measured = kept_by_autograd(
        model, lambda: model(frames, Targets([[*range(20, 60)]] * 4, utterances=rows), dict.fromkeys(names, 1.0))
    )
    (stage,) = resolved.resolved_stages
    assert 0.7 < of_training(resolved, stage).activations / measured < 1.4


def of_content(adapter: str, utterances: int) -> tuple[recipe.Recipe, SpeechLLM, Callable[[], torch.Tensor]]:
    """A step in which as many tokens are heard as the estimate expects: each sound is 12 or 13 equal frames long."""
    layers = {} if adapter == "posterior" else {"dim": 16, "layers": 1, "heads": 2, "ffn_dim": 16}
    losses = {"next_token": 1.0, "quantity" if adapter == "cif" else "token_ctc": 1.0}
    resolved = recipe.parse(
        {
            "encoder": {"name": "toy"},
            "adapter": {"name": adapter, **layers, **({"compress": True, "stride": 1} if adapter == "posterior" else {})},
            "llm": {"name": "toy"},
            "data": {"max_seconds": 10.0},
            "train": {"steps": 1, "batch_seconds": 10.0 * utterances, "trainable": ["adapter"], "losses": losses},
        }
    )
    torch.manual_seed(0)
    model = checkpoint.build(resolved).train()
    lora.set_trainable(model, ["adapter"])
    sounds = 4 * torch.randn(utterances, 40, 16)
    frames = Padded(sounds[:, torch.arange(500) * 40 // 500], torch.full((utterances,), 500))
    targets = Targets([[*range(20, 60)]] * utterances)
    return resolved, model, lambda: torch.stack(list(model(frames, targets, losses).values())).sum()


@pytest.mark.parametrize("adapter", ["ctc", "posterior", "cif"])
def test_activations_where_content_decides_on_the_number_of_embeddings(adapter: str):
    """With as many utterances as it takes for the LLM's activations to be more than the scores of the vocabulary."""
    resolved, model, run = of_content(adapter, utterances=8)
    found = sizes.outline(resolved)
    assert (found.embeddings_per_second, found.most_embeddings_per_second, found.longest_frames) == (4.0, 50.0, 500)
    (stage,) = resolved.resolved_stages
    assert 0.75 < of_training(resolved, stage).activations / kept_by_autograd(model, run) < 1.25


@pytest.mark.parametrize("utterances", [1, 2])
@pytest.mark.parametrize("adapter", ["ctc", "posterior"])
def test_scores_of_the_vocabulary_are_there_for_one_utterance_at_a_time(adapter: str, utterances: int):
    """Of few utterances, they are the peak of a step."""
    resolved, model, run = of_content(adapter, utterances)
    for parameter in model.adapter.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with sdpa_kernel(SDPBackend.MATH):
        measured = peak_bytes(lambda: run().backward(), model.device)
    (stage,) = resolved.resolved_stages
    assert measured is not None
    assert 0.75 < of_training(resolved, stage).activations / measured < 1.25
    using = footprint.inference(sizes.outline(resolved), resolved, batch_seconds=10.0 * utterances)
    assert using.activations == pytest.approx(footprint.SCORES_HEARD * 4 * 500 * len(model.llm.table), rel=0.01)


def test_what_gradient_checkpointing_saves():
    resolved = recipe.parse(
        {
            "encoder": {"name": "toy"},
            "adapter": {"name": "stack_mlp", "stride": 4, "hidden_dim": 64},
            "llm": {"name": "toy", "dim": 64},
            "lora": {"rank": 4},
            "train": {"steps": 1, "batch_seconds": 40.0},
            "stages": [{"name": "plain"}, {"name": "checkpointed", "gradient_checkpointing": True}],
        }
    )
    model = checkpoint.build(resolved).train()
    lora.set_trainable(model, ["adapter", "llm.lora"])
    frames = Padded(torch.randn(4, 500, 16), torch.full((4,), 500))
    measured, estimated = [], []
    for stage in resolved.resolved_stages:
        model.llm.checkpoint_gradients(stage.gradient_checkpointing)
        measured.append(kept_by_autograd(model, lambda: model(frames, Targets([[*range(20, 60)]] * 4), {"next_token": 1.0})))
        estimated.append(of_training(resolved, stage).activations)
    saved = (estimated[0] - estimated[1]) / (measured[0] - measured[1])
    assert 0.3 < saved < 0.8, "of two layers, the estimate has one, which the backward pass computes again"
