"""Losses in training: each falls, any of them go together, weights weigh, and what they bring along is kept."""

import dataclasses
import itertools
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file, save_file

from stapes import checkpoint, recipe
from stapes.adapters import ADAPTERS
from stapes.data.manifest import read_manifest, write_manifest
from stapes.errors import CheckpointError, DataError, RecipeError
from stapes.losses import READ_BY_LLM
from stapes.model import SpeechLLM
from stapes.recipe.sections import LossName
from stapes.tasks import Example
from stapes.training.stages import validate
from stapes.types import Entity, Padded

Run = Callable[..., Path]
Log = Callable[[Path], list[dict[str, Any]]]

ALL = ["next_token", "ctc", "matching", "classifier", "distillation", "contrastive"]
STACK = {"name": "stack_mlp", "stride": 3, "hidden_dim": 32}
NARROW = {"dim": 16, "layers": 1, "heads": 2, "ffn_dim": 24}
# The losses that adapters bring themselves, each with every adapter that has it.
OWN: list[tuple[str, dict[str, Any]]] = [
    ("quantity", {"name": "cif"} | NARROW),
    ("token_ctc", {"name": "ctc"} | NARROW),
    ("token_ctc", {"name": "posterior", "stride": 2}),
]
EVERY = [(ALL, STACK), *(([*ALL, name], adapter) for name, adapter in OWN)]
PAIRS = [
    *(([*pair], STACK) for pair in itertools.combinations(ALL, 2)),
    *(([name, other], adapter) for name, adapter in OWN for other in ALL),
]
SMALL = {"classifier": {"channels": [4, 4, 4]}}
PARTS = ["adapter", "ctc", "losses", "llm.lora"]


@pytest.fixture
def labelled(tones: Path, tmp_path: Path) -> dict[str, Any]:
    """The ``data`` of a recipe: the tones, each "a" a PERSON and each "b" a PLACE; every fourth utterance without labels."""
    folder = tmp_path / "labelled"
    folder.mkdir()
    for part in ("train", "dev"):
        rows = []
        for number, row in enumerate(read_manifest(tones / f"{part}.jsonl")):
            spans = [(at, {"a": "PERSON", "b": "GPE"}[letter]) for at, letter in enumerate(row.text) if letter in "ab"]
            entities = tuple(Entity(label, at, at + 1, row.text[at]) for at, label in spans)
            feeling = "Positive" if "a" in row.text else "mixed"
            known = number % 4 != 3
            labels = {"entities": entities if known else None, "sentiment": feeling if known else None}
            rows.append(dataclasses.replace(row, **labels))
        write_manifest(folder / f"{part}.jsonl", rows)
    return {"train": str(folder / "train.jsonl")}


LEARN = {
    "steps": 40,
    "batch_seconds": 60,
    "accumulation": 2,
    "trainable": ["adapter", "losses"],
    "learning_rate": 2e-2,
    "warmup_steps": 5,
}


def in_words(part: str | list[str] | dict[str, Any]) -> str:
    """A test's name of a loss, of several, or of an adapter."""
    return part["name"] if isinstance(part, dict) else part if isinstance(part, str) else "+".join(part)


def test_every_loss_is_here():
    """All that a recipe may name, and those of an adapter with each that has them."""
    assert {*ALL, *(name for name, _ in OWN)} == set(get_args(LossName))
    assert [(name, adapter["name"]) for name, adapter in OWN] == [
        (name, adapter) for adapter in ADAPTERS for name in ADAPTERS[adapter].losses
    ]


@pytest.mark.parametrize(("name", "adapter"), [*((name, STACK) for name in ALL[2:]), *OWN], ids=in_words)
def test_each_loss_falls_alone(
    run: Run, log: Log, labelled: dict[str, Any], name: str, adapter: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    """As an alignment: the adapter and what the loss brings along learn; the LLM is run only where the loss needs it."""
    if name not in READ_BY_LLM:
        monkeypatch.setattr(SpeechLLM, "logits", None)
    folder = run("run", adapter=adapter, ctc=None, data=labelled, train=LEARN | {"losses": {name: 1.0}})
    values = [record[name] for record in log(folder)]
    assert max(values[-4:]) < 0.8 * min(values[:2])


def test_the_sentiment_is_learned(run: Run, log: Log, labelled: dict[str, Any]):
    classifier = {"labels": "sentiment", "weighting": "inverse"}
    folder = run("run", losses={"classifier": classifier}, data=labelled, train=LEARN | {"losses": {"classifier": 1.0}})
    values = [record["classifier"] for record in log(folder)]
    assert max(values[-4:]) < 0.5 * min(values[:2])


@pytest.mark.parametrize(("names", "adapter"), [*PAIRS, *EVERY], ids=in_words)
def test_any_losses_go_together(
    toy_model: Callable[..., SpeechLLM], labelled: dict[str, Any], names: list[str], adapter: dict[str, Any]
):
    """Their values are those that they have alone, from one batch."""
    resolved = recipe.Losses.model_validate(SMALL).model_dump()
    model = toy_model(adapter=adapter, loss_modules={name: resolved[name] for name in ALL[2:]})
    rows = read_manifest(labelled["train"])[:5]
    targets = model.targets([Example(row) for row in rows])
    values = torch.randn(5, 30, 16, generator=torch.Generator().manual_seed(0))
    batch = Padded(values, torch.tensor([30, 12, 21, 9, 17])).zero_padding()
    with torch.no_grad():
        together = model(batch, targets, dict.fromkeys(names, 1.0))
        assert set(together) == set(names)
        for name in names:
            torch.testing.assert_close(model(batch, targets, {name: 1.0})[name], together[name])


def test_alpha_is_a_pair_of_weights(run: Run, labelled: dict[str, Any]):
    """(1 - alpha) L_LLM + alpha L_classifier: the gradient of the sum is the sum of those of either, weighed.

    Read off the optimiser's first moment, a tenth of the first gradient; the clip is out of the way.
    """
    options = {"steps": 1, "batch_seconds": 60, "trainable": PARTS, "clip_norm": 1e9}
    state = {}
    for name, weights in {
        "both": {"next_token": 0.8, "classifier": 0.2},
        "llm": {"next_token": 1.0, "classifier": 0.0},
        "classifier": {"next_token": 0.0, "classifier": 1.0},
    }.items():
        folder = run(name, lora={"rank": 2}, losses=SMALL, data=labelled, train=options | {"losses": weights})
        saved = torch.load(folder / "1-train" / "state.pt")["optimizer"]["state"]
        state[name] = {number: moments["exp_avg"] for number, moments in saved.items()}
    assert any(not torch.allclose(state["llm"][number], other) for number, other in state["classifier"].items())
    for number, both in state["both"].items():
        torch.testing.assert_close(both, 0.8 * state["llm"][number] + 0.2 * state["classifier"][number], rtol=1e-3, atol=1e-6)


def test_two_processes_give_what_one_does(
    start: Callable[..., subprocess.Popen],
    run: Run,
    sections: Callable[..., Any],
    log: Log,
    labelled: dict[str, Any],
    tmp_path: Path,
):
    """All losses at once, labels on some utterances only; each micro-batch on a process of its own, or one after the other."""
    names, adapter = EVERY[1]
    changes = {
        "adapter": adapter | {"dropout": 0.0},
        "lora": {"rank": 2},
        "losses": SMALL,
        "data": labelled,
        "train": {"steps": 4, "accumulation": 2, "batch_seconds": 4, "trainable": PARTS, "losses": dict.fromkeys(names, 1.0)},
    }
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    pair = start(sections(**changes), tmp_path / "pair", launcher)
    alone = log(run("one", **changes))
    output = pair.communicate(timeout=600)[0]
    assert pair.returncode == 0, output
    for expected, found in zip(alone, log(tmp_path / "pair"), strict=True):
        for name in expected.keys() - {"stage"}:
            assert found[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize(("names", "adapter"), EVERY, ids=in_words)
def test_a_run_goes_on_bit_for_bit(
    run: Run,
    log: Log,
    labelled: dict[str, Any],
    broken_off: Callable[..., AbstractContextManager[None]],
    names: list[str],
    adapter: dict[str, Any],
):
    """A run that stops after its checkpoint, and one that does not: the same losses and the same weights."""
    options = {"steps": 6, "save_every": 2, "batch_seconds": 6, "trainable": PARTS, "losses": dict.fromkeys(names, 1.0)}
    changes = {"adapter": adapter, "lora": {"rank": 2}, "losses": SMALL, "data": labelled, "train": options}
    whole = run("whole", **changes)
    with broken_off("train", after=3):
        run("broken", **changes)
    broken = run("broken", **changes)
    assert log(broken) == log(whole)
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


# -- what is kept ------------------------------------------------------------------------------------------------------


@pytest.fixture
def classified(run: Run, labelled: dict[str, Any]) -> Path:
    """A run with a classifier and a learned temperature."""
    weights = {"ctc": 1.0, "classifier": 0.2, "contrastive": 0.1}
    return run("run", losses=SMALL, data=labelled, train={"losses": weights, "trainable": ["adapter", "ctc", "losses"]})


def test_modules_of_losses_are_in_the_checkpoint(classified: Path):
    state = load_file(classified / "model.safetensors")
    own = {name for name in state if name.startswith("losses.")}
    assert {name.split(".")[1] for name in own} == {"classifier", "contrastive"}
    model, _, _ = checkpoint.load(classified)
    for name in own:
        assert torch.equal(model.state_dict()[name], state[name])
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_checkpoint_may_come_without_them_but_not_with_a_part(classified: Path):
    file = classified / "model.safetensors"
    state = load_file(file)
    save_file({name: tensor for name, tensor in state.items() if not name.startswith("losses.classifier.")}, file)
    model, _, _ = checkpoint.load(classified)
    assert list(model.losses) == ["contrastive"]
    assert any(name.startswith("losses.classifier.out") for name in state)
    save_file({name: tensor for name, tensor in state.items() if not name.startswith("losses.classifier.out")}, file)
    with pytest.raises(CheckpointError, match=r"missing losses\.classifier\.out\.bias"):
        checkpoint.load(classified)


def test_a_run_that_starts_from_another_takes_over_what_is_set_up_alike(classified: Path, labelled: dict[str, Any]):
    saved = load_file(classified / "model.safetensors")
    said = {"init": str(classified), "data": labelled, "train": {"steps": 1, "losses": {"classifier": 1.0, "matching": 1.0}}}
    model = checkpoint.build(checkpoint.inherit(recipe.parse(said)))
    assert list(model.losses) == ["matching", "classifier"]
    assert torch.equal(model.losses["classifier"].out.weight, saved["losses.classifier.out.weight"])
    other = recipe.parse(said | {"losses": {"classifier": {"channels": [5, 5, 5]}}})
    assert checkpoint.build(checkpoint.inherit(other)).losses["classifier"].out.in_features == 5


def test_without_words_the_best_checkpoint_is_that_of_the_lowest_losses(run: Run, log: Log, labelled: dict[str, Any]):
    data = labelled | {"dev": labelled["train"].replace("train.jsonl", "dev.jsonl")}
    options = {"steps": 12, "evaluate_every": 4, "losses": {"matching": 1.0, "classifier": 0.5}, "learning_rate": 1e-2}
    folder = run("run", ctc=None, losses=SMALL, data=data, train=options | {"trainable": ["adapter", "losses"]})
    found = [record["evaluation"] for record in log(folder) if "evaluation" in record]
    assert [set(scores) for scores in found] == [{"loss"}] * 3
    best = torch.load(folder / "1-train" / "state.pt")["best"]
    assert best["score"] == min(scores["loss"] for scores in found)
    assert found[-1]["loss"] < found[0]["loss"]


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train": {"losses": {"classifier": 1.0}, "trainable": ["adapter"]}},
            r"stages\.0\.trainable: the layers of classifier would stay as random as they begin; add losses to what is trained",
        ),
        (
            {
                "losses": {"matching": {"projection_dim": 4}},
                "train": {"losses": {"matching": 1.0, "next_token": 1.0}, "trainable": ["adapter"]},
            },
            r"stages\.0\.trainable: the layers of matching would stay",
        ),
        (
            {"train": {"losses": {"distillation": 1.0}, "trainable": ["adapter", "llm"]}},
            r"stages\.0\.losses: distillation where the LLM's own weights are trained.*; train llm\.lora instead of llm",
        ),
    ],
)
def test_what_would_teach_nothing(toy_recipe: Callable[..., recipe.Recipe], changes: dict[str, Any], message: str):
    with pytest.raises(RecipeError, match=message):
        validate(toy_recipe(**changes))


def test_layers_that_an_earlier_stage_trained_may_be_frozen(toy_recipe: Callable[..., recipe.Recipe]):
    stage = {"steps": 1, "losses": {"classifier": 1.0}}
    stages = [stage | {"name": "a", "trainable": ["losses"]}, stage | {"name": "b", "trainable": ["adapter"]}]
    validate(toy_recipe(train={"steps": None}, stages=stages))


def test_a_classifier_without_labels(run: Run):
    with pytest.raises(DataError, match=r"data\.train: no utterance has a label under 'entities'"):
        run("run", losses=SMALL, train={"losses": {"classifier": 1.0}, "trainable": ["adapter", "losses"]})
