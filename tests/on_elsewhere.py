"""Adapters, encoders, losses, training and decoding on another device than the CPU, against the CPU.

The device is a GPU where there is one (``gpu.py``), else one that is not there (``elsewhere.py``).

Not collected with the others: ``test_elsewhere.py`` runs it in a process of its own.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contract
import pytest
import torch

if torch.cuda.is_available():
    import gpu as elsewhere
else:
    import elsewhere  # before stapes: it changes torch
from accelerate import Accelerator
from torch import Tensor, nn

import stapes
from stapes import recipe
from stapes.adapters import Adapter
from stapes.adapters.stack_mlp import StackMLP
from stapes.device import place
from stapes.doctor.examine import admit, describe, examine
from stapes.encoders import ENCODERS
from stapes.losses import SpeechAndText
from stapes.training import stages
from stapes.training.display import Display
from stapes.types import Audio, Padded

CPU = torch.device("cpu")
SAID = [[3, 4, 0], [5, 0], [0], [3, 5, 4, 3, 0], [2, 3, 0], [4, 5, 2, 0], [5, 2, 0], [4, 3, 0]]
ENCODERS_OF = {
    "whisper": "whisper",
    "wav2vec2-base": "ssl",
    "wavlm-large": "ssl",
    "seamless": "seamless",
    "moonshine": "moonshine",
    "w2v-bert": "auto",
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def compare(results: Callable[[torch.device], list[Tensor]]) -> None:
    """What comes out on the device is there, and is what comes out on the CPU."""
    expected = results(CPU)
    torch.manual_seed(0)
    with elsewhere.there() as device:
        found = results(device)
    assert expected
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(elsewhere.held(value), wanted, rtol=1e-3, atol=1e-4)


def gradients(module: nn.Module, loss: Tensor) -> list[Tensor]:
    loss.backward()
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def of_adapter(adapter: Adapter, device: torch.device) -> list[Tensor]:
    """What an adapter gives, in training too, and its gradients."""
    adapter = contract.awake(adapter).to(device)
    frames = contract.frames(contract.LENGTHS).to(device)
    found = adapter(frames)
    embeddings, losses = adapter.with_losses(frames, SAID, ["quantity", "token_ctc"])
    loss = embeddings.values.sum() + sum(losses.values(), torch.zeros((), device=device))
    return [found.values, found.lengths, adapter.output_lengths(frames.lengths), *gradients(adapter, loss)]


@pytest.mark.parametrize("config", contract.adapter_configs(), ids=contract.label)
def test_adapter(config: dict[str, Any]):
    compare(lambda device: of_adapter(contract.build_adapter(config), device))


class MarksTheCPU(StackMLP):
    """It makes what it adds where it need not be."""

    def forward(self, frames: Padded) -> Padded:
        found = super().forward(frames)
        return Padded(found.values + torch.linspace(0, 1, found.values.shape[2]), found.lengths)


class LeavesLengths(StackMLP):
    """Its lengths are of the CPU."""

    def forward(self, frames: Padded) -> Padded:
        found = super().forward(frames)
        return Padded(found.values, torch.tensor(found.lengths.tolist()))


@pytest.mark.parametrize(
    ("mutant", "error"), [(MarksTheCPU, (RuntimeError, elsewhere.MIXED)), (LeavesLengths, (AssertionError, "on the CPU"))]
)
def test_mutant_is_caught(mutant: type[Adapter], error: tuple[type[Exception], str]):
    with pytest.raises(error[0], match=error[1]):
        compare(lambda device: of_adapter(mutant(contract.ENCODER_DIM, contract.LLM_DIM, hidden_dim=24), device))


@pytest.mark.parametrize(("kind", "name"), ENCODERS_OF.items())
@pytest.mark.parametrize("layer", [None, "weighted"])
def test_encoder(tiny_encoder: Callable[[str], Path], kind: str, name: str, layer: str | None):
    def results(device: torch.device) -> list[Tensor]:
        options = {} if layer is None else {"layer": layer}
        encoder = ENCODERS.build({"name": name, "weights": f"path:{tiny_encoder(kind)}"} | options).eval().to(device)
        encoder.requires_grad_(True)
        found = encoder(Audio.from_arrays(contract.sounds((0.5, 1.23, 2.0))).to(device))
        return [found.values, found.lengths, *gradients(encoder, found.values.pow(2).mean())]

    compare(results)


@pytest.mark.parametrize("config", contract.loss_configs(), ids=contract.label)
def test_loss(config: dict[str, Any]):
    def results(device: torch.device) -> list[Tensor]:
        torch.manual_seed(0)
        loss = contract.awake(contract.build_loss(config)).to(device)
        both = contract.pair()
        speech = Padded(both.speech.values.to(device).requires_grad_(), both.speech.lengths.to(device))
        value = loss(SpeechAndText(speech, both.text.to(device), both.utterances))
        return [value, *gradients(loss, value)]

    compare(results)


@pytest.fixture
def trained(labelled_tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """trained(device, precision, cache): the log of a few steps on two tasks with all losses, on that device."""
    monkeypatch.setenv("STAPES_CACHE", str(tmp_path / "cache"))
    data = str(labelled_tones / "train.jsonl")

    def run(device: torch.device, precision: str, cache: bool) -> list[dict[str, Any]]:
        class On(Accelerator):
            device = property(lambda _: device)

            def prepare_model(self, model: nn.Module, *_: Any, **__: Any) -> nn.Module:
                return model

        monkeypatch.setattr(stages, "Accelerator", On)
        losses = ("next_token", "ctc", "matching", "distillation", "contrastive", "classifier")
        sections = {
            "encoder": {"name": "toy"},
            "adapter": {"name": "stack_mlp", "stride": 3, "hidden_dim": 32},
            "llm": {"name": "toy"},
            "ctc": {"merges": 32},
            "lora": {"rank": 4},
            "tasks": [{"name": "asr"}, {"name": "ner"}],
            "data": {
                "train": [data, {"path": data, "task": "ner", "emphasis": 2.0}],
                "dev": str(labelled_tones / "slue-voxpopuli/dev.jsonl"),
            },
            "losses": {"classifier": {"channels": [4, 4, 4]}},
            "train": {"steps": 3, "batch_seconds": 8, "accumulation": 2, "losses": dict.fromkeys(losses, 1.0)}
            | {"average_decay": 0.9, "evaluate_every": 3, "evaluate_utterances": 4, "save_every": 1}
            | {"cache": cache, "precision": precision},
        }
        folder = stages.train(recipe.parse(sections), tmp_path / device.type)
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    return run


@pytest.mark.parametrize(("precision", "cache"), [("fp32", True), ("fp32", False), ("bf16", True)])
def test_training(trained: Callable[..., list[dict[str, Any]]], precision: str, cache: bool):
    expected = trained(CPU, precision, cache)
    with elsewhere.there() as device:
        found = trained(device, precision, cache)
    assert len(found) == 3
    for step, wanted in zip(found, expected, strict=True):
        assert step.keys() == wanted.keys()
        numbers = {key: value for key, value in wanted.items() if isinstance(value, float)}
        assert {key: step[key] for key in numbers} == pytest.approx(numbers, rel=1e-3 if precision == "fp32" else 0.1)


def test_a_run_that_was_stopped_goes_on(trained: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch):
    expected = trained(CPU, "fp32", True)

    def stop(display: Display, step: int, *_: object) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with elsewhere.there() as device:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Display, "step", stop)
            trained(device, "fp32", True)
        found = trained(device, "fp32", True)
    assert [step["next_token"] for step in found] == pytest.approx([step["next_token"] for step in expected], rel=1e-3)


def test_the_doctor_finds_nothing_wrong(tiny_whisper: Path):
    encoder = {"name": "whisper", "weights": f"path:{tiny_whisper}"}
    described = describe(encoder, {"name": "toy"}, {"name": "conv1d_transformer", "dim": 16, "heads": 2})
    with elsewhere.there() as device:
        pair = admit(described)
        pair.model.to(device)
        assert [finding for finding in examine(pair) if finding.verdict == "wrong"] == []


ASKED = [{"task": "asr"}, {"style": "written"}, {"task": "ner"}, {"task": "sentiment"}, {"to": "fr"}]


@pytest.mark.parametrize("asked", ASKED, ids=str)
@pytest.mark.parametrize("options", [{}, {"beams": 3}, {"ctc_weight": 0.0}], ids=str)
def test_decoding(task_run: Path, tones: Path, asked: dict[str, str], options: dict[str, Any]):
    model, sounds = stapes.load(task_run, device="cpu"), sorted(tones.glob("dev-*.wav"))
    expected = model.transcribe(sounds, **asked, **options)
    with elsewhere.there() as device:
        place(model.module, device, torch.float32)
        assert {parameter.device for parameter in model.module.parameters()} == {device}
        assert model.transcribe(sounds, **asked, **options) == expected


def test_decoding_in_half_precision(task_run: Path, tones: Path):
    model, sounds = stapes.load(task_run, device="cpu"), sorted(tones.glob("dev-*.wav"))
    with elsewhere.there() as device:
        place(model.module, device, torch.bfloat16)
        assert all(transcript.text for transcript in model.transcribe(sounds))
