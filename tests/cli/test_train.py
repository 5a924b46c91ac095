"""`stapes train`: a recipe by file or name, settings, where the run goes, and how an interrupted one goes on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import Result

Run = Callable[..., Result]


@pytest.fixture
def recipe(examples: Path, tmp_path: Path) -> Path:
    values = {
        "encoder": {"name": "toy"},
        "adapter": {"name": "stack_mlp", "hidden_dim": 8},
        "llm": {"name": "toy"},
        "data": {"train": str(examples)},
        "train": {"steps": 3, "batch_seconds": 10, "trainable": ["adapter"]},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "mine.yaml"


def test_a_run_that_the_other_commands_take(stapes: Run, recipe: Path, examples: Path, tmp_path: Path):
    run = tmp_path / "deep/run"
    result = stapes("train", recipe, "--run", run, "--set", "train.steps=2", "-s", "train.seed=7", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{run}\n"
    assert f"stapes evaluate {run} --data " in result.stderr
    written = yaml.safe_load((run / "recipe.yaml").read_text())
    assert (written["train"]["steps"], written["train"]["seed"]) == (2, 7)
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert json.loads(stapes("evaluate", run, "--data", examples, "--json").stdout)["utterances"] == 5


def test_a_recipe_of_the_package_and_the_default_folder(
    stapes: Run, examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert stapes("train", "toy", "--set", f"data.train={examples}", "--set", "train.steps=1").stdout == "runs/toy\n"
    assert (tmp_path / "runs/toy/model.safetensors").is_file()


def test_from_a_trained_model(stapes: Run, toy_run: Path, examples: Path, tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(f"init: {toy_run}\ndata: {{train: {examples}}}\ntrain: {{steps: 1}}\n")
    result = stapes("train", tmp_path / "mine.yaml", "--run", tmp_path / "run", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())["adapter"]["hidden_dim"] == 32


def test_an_interruption_says_how_to_go_on(stapes: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from stapes.training.loop import Loop

    whole = Loop._step
    steps: list[int] = []

    def interrupted(*arguments: object) -> object:
        steps.append(1)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return whole(*arguments)  # type: ignore[arg-type]

    command = ("train", recipe, "--run", tmp_path / "run", "--set", "train.save_every=1", "--device", "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", interrupted)
        stopped = stapes(*command)
    assert stopped.exit_code == 130
    assert stopped.stderr.rstrip().endswith(f"stopped; the same command goes on from the last checkpoint in {tmp_path / 'run'}")
    assert stapes(*command).exit_code == 0
    found = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    shutil.rmtree(tmp_path / "run")
    assert stapes(*command).exit_code == 0
    assert found == [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tyo"], "tyo: no such recipe, expected a YAML file or a recipe of the package; did you mean 'toy'?"),
        (["toy", "--set", "train.stps=1"], "train.stps: unknown key; did you mean 'steps'?"),
        (["toy", "--set", "train.steps"], "--set train.steps: no '='"),
        (["toy", "--set", "adapter.strid=1"], "adapter.strid: 'stack_mlp' has no such option; did you mean 'stride'?"),
        (["toy", "--set", "ctc=null"], "stages.0.losses: ctc, expected a model with a CTC head"),
        (["toy", "--set", "data.train=nope.jsonl"], "nope.jsonl: no such file"),
        (["toy", "--device", "gpu"], "device: unknown device 'gpu'"),
    ],
)
def test_what_is_wrong_is_one_line(
    stapes: Run,
    one_line: Callable[[Result], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    assert message in one_line(stapes("train", *arguments))
