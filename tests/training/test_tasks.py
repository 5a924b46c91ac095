"""Several tasks in one model: prompts, mixtures, what is scored, and what belongs to the checkpoint."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import stapes
from stapes import checkpoint
from stapes.data.loader import TrainingData
from stapes.data.manifest import read_manifest, write_manifest
from stapes.encoders.toy import ToyEncoder
from stapes.errors import CheckpointError, DataError, RecipeError
from stapes.model import SpeechLLM, Targets
from stapes.recipe import HeldOut, Recipe
from stapes.tasks import TASKS, Example
from stapes.training.validation import Validation
from stapes.types import Entity, Padded, Utterance

Run = Callable[..., Path]
Log = Callable[[Path], list[dict[str, Any]]]
THREE = [{"name": "asr"}, {"name": "ner", "templates": 3}, {"name": "sentiment"}]


def marked(row: Utterance, number: int) -> Utterance:
    """The first letter is an entity, and how it feels depends on it."""
    return replace(
        row,
        entities=(Entity("PERSON", 0, 1, row.text[0]),),
        sentiment=("Negative", "Neutral", "Positive")[number % 3],
    )


@pytest.fixture
def labelled(tones: Path, tmp_path: Path) -> dict[str, str]:
    """Manifests with labels, and "bare" ones without."""
    for part in ("train", "dev"):
        rows = read_manifest(tones / f"{part}.jsonl")
        write_manifest(tmp_path / f"{part}.jsonl", [marked(row, number) for number, row in enumerate(rows)])
    return {part: str(tmp_path / f"{part}.jsonl") for part in ("train", "dev")} | {"bare": str(tones / "train.jsonl")}


def frames(*lengths: int) -> Padded:
    generator = torch.Generator().manual_seed(0)
    return Padded.from_rows([torch.randn(length, 16, generator=generator) for length in lengths])


@torch.no_grad()
def test_each_row_is_asked_its_own(toy_model: Callable[..., SpeechLLM]):
    """Rows of different tasks in one batch have the losses that they have alone, and what CTC is to hear are the words."""
    model = toy_model(tasks=THREE)
    rows = [marked(Utterance(str(n), Path("x.wav"), text, 1.0), n) for n, text in enumerate(("a b", "c d a", "b"))]
    examples = [Example(row, key, template) for row, key, template in zip(rows, model.tasks, (0, 2, 0), strict=True)]
    batch, weights = frames(60, 24, 45), {"next_token": 1.0, "ctc": 1.0}
    targets = model.targets(examples)
    assert [model.llm.decode(answer) for answer in targets.answers] == ["a b", "[PERSON c] d a", "Positive"]
    assert [model.llm.decode(said) for said in targets.said] == ["a b", "c d a", "b"]
    assert len({tuple(prompt.before) for prompt in targets.prompts or ()}) == 3
    together = model(batch, targets, weights)
    alone = [
        model(Padded.from_rows([row]), model.targets([example]), weights)
        for row, example in zip(batch.rows(), examples, strict=True)
    ]
    for name, value in together.items():
        torch.testing.assert_close(value, torch.stack([found[name] for found in alone]).sum(), rtol=1e-4, atol=1e-3)
    unasked = model(batch, Targets(targets.answers, transcripts=targets.transcripts), weights)
    assert not torch.isclose(unasked["next_token"], together["next_token"], rtol=1e-5)
    torch.testing.assert_close(unasked["ctc"], together["ctc"])


def test_a_mixture_has_a_task_for_each_source(labelled: dict[str, str], toy_recipe: Callable[..., Recipe]):
    sources = [{"path": labelled["bare"], "weight": 0.5}, {"path": labelled["train"], "task": "ner", "weight": 2}]
    recipe = toy_recipe(tasks=THREE, data={"train": sources})
    data = TrainingData(recipe.data, ToyEncoder(), {task["name"]: TASKS.build(task) for task in THREE}, progress=False)
    drawn = [example for batch in data.epoch(0, 0, 20.0) for example in batch]
    assert Counter(example.task for example in drawn) == {"asr": 8, "ner": 32}
    assert {example.template for example in drawn if example.task == "ner"} == {0, 1, 2}
    assert {example.template for example in drawn if example.task == "asr"} == {0}
    assert data.asked == ["asr", "ner"]


def test_rows_without_labels_are_left_out_and_told(labelled: dict[str, str], tmp_path: Path, toy_recipe: Callable[..., Recipe]):
    rows = read_manifest(labelled["train"])
    rows[3] = replace(rows[3], sentiment=None)
    write_manifest(tmp_path / "some.jsonl", rows)
    tasks = {"sentiment": TASKS.build({"name": "sentiment"})}
    recipe = toy_recipe(tasks=THREE, data={"train": {"path": str(tmp_path / "some.jsonl"), "task": "sentiment"}})
    data = TrainingData(recipe.data, ToyEncoder(), tasks, progress=False)
    assert [row.id for row in data.unlabelled] == [rows[3].id]
    assert len(data.utterances) == len(rows) - 1
    recipe = toy_recipe(tasks=THREE, data={"train": {"path": labelled["bare"], "task": "sentiment"}})
    with pytest.raises(DataError, match="no utterance has labels, expected what the task 'sentiment' is trained on"):
        TrainingData(recipe.data, ToyEncoder(), tasks, progress=False)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": {"train": {"path": "x", "task": "nre"}}}, "data.train.0.task: 'nre'; did you mean 'ner'"),
        ({"data": {"dev": [{"path": "x", "task": "asr.written"}]}}, "data.dev.0.task: 'asr.written'"),
        ({"stages": [{"name": "s", "mixture": {"path": "x", "task": "sent"}}]}, "stages.0.mixture.0.task: 'sent'"),
        ({"tasks": [{"name": "asr"}, {"name": "asr"}]}, "tasks: 'asr' twice"),
        ({"tasks": []}, "tasks: "),
        ({"tasks": [{"name": "nre"}]}, "unknown task 'nre'; did you mean 'ner'"),
    ],
)
def test_tasks_that_are_not_there(toy_recipe: Callable[..., Recipe], changes: dict[str, Any], told: str):
    with pytest.raises(RecipeError) as caught:
        toy_recipe(**{"tasks": THREE} | changes)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_stages_with_mixtures_of_their_own(run: Run, log: Log, labelled: dict[str, str], capsys: pytest.CaptureFixture[str]):
    """ASR, then entities with some ASR beside them: every evaluation scores all tasks, the best is chosen on those trained."""
    dev = [{"path": labelled["dev"], "task": task["name"]} for task in THREE]
    stages = [
        {"name": "hear", "steps": 2, "evaluate_every": 1},
        {
            "name": "name",
            "steps": 3,
            "evaluate_every": 3,
            "mixture": [{"path": labelled["train"], "task": "ner"}, {"path": labelled["bare"], "weight": 0.5}],
        },
    ]
    folder = run("run", tasks=THREE, data={"dev": dev}, stages=stages, decoding={"tokens_per_second": 4})
    records = log(folder)
    assert [record["stage"] for record in records] == ["hear"] * 2 + ["name"] * 3
    for record in (records[0], records[1], records[4]):
        scores = record["evaluation"]
        assert {"asr.wer", "ner.ner_f1", "ner.ner_label_f1", "ner.wer", "sentiment.sentiment_f1", "error"} <= set(scores)
    first, last = records[1]["evaluation"], records[4]["evaluation"]
    assert first["error"] == pytest.approx(first["asr.wer"])
    assert last["error"] == pytest.approx((last["asr.wer"] + 100 - last["ner.ner_f1"]) / 2)
    shown = capsys.readouterr().err.partition("held-out scores after each stage")[2]
    (line,) = (line for line in shown.splitlines() if "ner.ner_label_f1" in line)
    best = min(reversed(records[:2]), key=lambda record: record["evaluation"]["error"])["evaluation"]
    assert [cell.strip() for cell in line.strip("│").split("│")][1:] == [
        f"{scores['ner.ner_label_f1']:.4g}" for scores in (best, last)
    ]
    model = stapes.load(folder, device="cpu")
    assert model.tasks == ["asr", "ner", "sentiment"]
    row = read_manifest(labelled["dev"])[0]
    assert model.run(row.audio, task="sentiment", tokens_per_second=4).sentiment in ("Negative", "Neutral", "Positive")
    named = model.run(row.audio, task="ner", tokens_per_second=4)
    assert named.entities is not None
    assert all(named.text[entity.start : entity.end] == entity.phrase for entity in named.entities)
    assert model.transcribe(row.audio).entities is None
    with pytest.raises(RecipeError, match=r"task: 'asr\.written', expected what run was trained for: asr, ner, sentiment"):
        model.transcribe(row.audio, style="written")
    with pytest.raises(RecipeError, match=r"task: 'translation\.fr', expected what run was trained for"):
        model.transcribe(row.audio, to="fr")


def test_the_prompts_belong_to_the_checkpoint(run: Run, labelled: dict[str, str]):
    folder = run("run", tasks=THREE, train={"steps": 1})
    description = checkpoint.read_description(folder)
    assert {key: len(prompts) for key, prompts in description["prompts"].items()} == {"asr": 1, "ner": 3, "sentiment": 1}
    text = (folder / "stapes.json").read_text().replace('"templates": 3', '"templates": 2')
    (folder / "stapes.json").write_text(text)
    with pytest.raises(CheckpointError, match="renders other prompts, expected those of training"):
        checkpoint.load(folder)


def test_a_task_is_added_to_a_model_that_is_there(run: Run, tones: Path, labelled: dict[str, str], tmp_path: Path):
    """Started from a model that only hears: it brings everything but the tasks."""
    from stapes import recipe
    from stapes.training.stages import train

    first = run("first", train={"steps": 1})
    data = {"train": [{"path": labelled["train"], "task": "ner"}]}
    values = {"init": str(first), "tasks": THREE, "data": data, "train": {"steps": 1, "batch_seconds": 8}}
    second = train(recipe.parse(values), tmp_path / "second", "cpu")
    assert stapes.load(second, device="cpu").tasks == ["asr", "ner", "sentiment"]
    values.pop("tasks")
    with pytest.raises(RecipeError, match="task: 'ner', expected one that this model does"):
        train(recipe.parse(values), tmp_path / "third", "cpu")


def test_parts_are_scored_as_evaluation_scores_them(labelled: dict[str, str], run: Run):
    folder = run("run", tasks=THREE, data={"dev": labelled["dev"]}, train={"steps": 2}, decoding={"tokens_per_second": 4})
    model, decoding, _ = checkpoint.load(folder)
    sources = [HeldOut(path=labelled["dev"], task="ner"), HeldOut(path=labelled["dev"], task="sentiment")]
    validation = Validation.load(sources, 100, model.encoder, model.tasks)
    validation.attach(model.encoder, cache=False)
    found = validation.scores(model, recipe_stage(model, folder), decoding)
    whole = stapes.load(folder, device="cpu")
    for task, rate in (("ner", "ner_f1"), ("ner", "wer"), ("sentiment", "sentiment_f1")):
        scores = whole.evaluate(labelled["dev"], task=task).scores
        assert scores[rate] == pytest.approx(found[f"{task}.{rate}"], abs=2e-3)
        assert f"task:{task}" in scores["provenance"]


def recipe_stage(model: SpeechLLM, folder: Path) -> Any:
    """The stage that a run was trained by."""
    return Recipe.model_validate(checkpoint.read_description(folder)["recipe"]).resolved_stages[0]
