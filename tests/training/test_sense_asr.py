"""The schedule of SENSE-ASR (arXiv 2509.04473) as its recipe has it, trained between a small Whisper and a small Llama."""

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stapes import checkpoint, lora, recipe
from stapes.data.loader import Batch
from stapes.data.manifest import read_manifest, write_manifest
from stapes.recipe import Recipe
from stapes.training.loop import Group, Loop
from stapes.training.stages import train
from stapes.types import Entity, Utterance

Log = Callable[[Path], list[dict[str, Any]]]
Step = tuple[str, set[tuple[str, str]], set[str]]

LIBRISPEECH = [f"librispeech/train-{part}" for part in ("clean-100", "clean-360", "other-500")]
NAMED, FELT = "slue-voxpopuli/train", "slue-voxceleb/train"
MIXTURES = {
    "asr": {(name, "asr") for name in LIBRISPEECH},
    "entities": {("librispeech-ner/train", "ner"), (LIBRISPEECH[0], "asr")},
    "slue": {(NAMED, "ner"), (NAMED, "asr"), (FELT, "sentiment"), (FELT, "asr")},
}


def named(row: Utterance) -> Utterance:
    """Every "a" is a person, every "b" a place."""
    spans = [(at, {"a": "PERSON", "b": "GPE"}[letter]) for at, letter in enumerate(row.text) if letter in "ab"]
    return replace(row, entities=tuple(Entity(label, at, at + 1, row.text[at]) for at, label in spans))


def felt(row: Utterance) -> Utterance:
    return replace(row, sentiment="Positive" if "a" in row.text else "Negative")


@pytest.fixture
def schedule(tiny_whisper: Path, saved_llm: Path, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The recipe, two steps a stage, and its manifests where it looks for them: no utterance is in two of them."""
    rows, held_out = read_manifest(tones / "train.jsonl"), read_manifest(tones / "dev.jsonl")
    manifests = {
        LIBRISPEECH[0]: rows[:4],
        LIBRISPEECH[1]: rows[4:6],
        LIBRISPEECH[2]: rows[6:8],
        "librispeech-ner/train": map(named, rows[8:12]),
        NAMED: map(named, rows[12:14]),
        FELT: map(felt, rows[14:]),
        "slue-voxpopuli/dev": map(named, held_out[:3]),
        "slue-voxceleb/dev": map(felt, held_out[3:]),
    }
    for name, written in manifests.items():
        write_manifest(tmp_path / "prepared" / f"{name}.jsonl", written)
    monkeypatch.chdir(tmp_path)
    return recipe.load(
        "papers/sense_asr_stages",
        [
            f"encoder.weights=path:{tiny_whisper}",
            f"llm.weights=path:{saved_llm}",
            "train.save_every=1",
            *(f"stages.{number}.{length}" for number in range(3) for length in ("epochs=null", "steps=2")),
        ],
    )


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """What is done from here on, step by step: its stage, its manifests and what is asked of each, and the parts that learn."""
    done: list[Step] = []
    step = Loop._step

    def noted(self: Loop, model: torch.nn.Module, group: Group, batches: list[Batch]) -> dict[str, float]:
        losses = step(self, model, group, batches)
        examples = [example for micro in group for example in micro]
        asked = {(manifest_of(example.utterance), example.task) for example in examples}
        learning = {lora.part_of(name) for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        done.append((self.stage.name, asked, learning))
        return losses

    monkeypatch.setattr(Loop, "_step", noted)
    return done


def manifest_of(row: Utterance) -> str:
    return row.source.rpartition(":")[0].removeprefix("prepared/").removesuffix(".jsonl")


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The parts of a model of which some tensor has changed."""
    assert before.keys() == after.keys()
    return {lora.part_of(name) for name, tensor in after.items() if not torch.equal(tensor, before[name])}


def test_all_stages_run_in_order_and_go_on_where_they_were_broken_off(
    schedule: Recipe, steps: list[Step], log: Log, broken_off: Callable[..., AbstractContextManager[None]], tmp_path: Path
):
    torch.manual_seed(schedule.resolved_stages[0].seed)
    fresh = checkpoint.trained_state(checkpoint.build(schedule))
    whole = train(schedule, tmp_path / "whole", "cpu")

    assert [stage for stage, _, _ in steps] == ["asr", "asr", "entities", "entities", "slue", "slue"]
    for name, mixture in MIXTURES.items():
        assert set().union(*(asked for stage, asked, _ in steps if stage == name)) == mixture
    assert all(learning == {"adapter", "losses", "llm.lora"} for _, _, learning in steps)

    records = log(whole)
    assert [record["learning_rate"] for record in records[::2]] == pytest.approx([1e-3, 1e-3, 3e-4])
    for record in records:
        assert record["next_token"] > 0
        assert record["stage"] == "asr" or record["classifier"] > 0
        assert record["stage"] != "asr" or "classifier" not in record
    scores = {"asr.wer", "ner.ner_f1", "ner.ner_label_f1", "ner.wer", "sentiment.sentiment_f1", "error"}
    assert all("evaluation" not in record for record in records[::2])
    assert all(scores <= record["evaluation"].keys() for record in records[1::2])

    folders = [whole / f"{number}-{name}" for number, name in enumerate(MIXTURES, 1)]
    states = [fresh, *(load_file(folder / "model.safetensors") for folder in folders)]
    changes = [moved(before, after) for before, after in itertools.pairwise(states)]
    assert changes == [{"adapter", "llm.lora"}, {"adapter", "losses", "llm.lora"}, {"adapter", "losses", "llm.lora"}]
    assert not moved(states[-1], load_file(whole / "model.safetensors"))

    once = list(steps)
    steps.clear()
    with broken_off("entities", after=1):
        train(schedule, tmp_path / "broken", "cpu")
    assert steps == once[:3]
    broken = train(schedule, tmp_path / "broken", "cpu")
    assert steps == once, "no step is done twice"
    assert log(broken) == records
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
