"""A whole run: where it starts from, in which folder, and on how many processes."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stapes import checkpoint, recipe
from stapes.data.manifest import read_manifest, write_manifest
from stapes.errors import CheckpointError, DataError, RecipeError
from stapes.training.stages import train

Run = Callable[..., Path]
Log = Callable[[Path], list[dict[str, Any]]]


def test_two_processes_give_what_one_does(
    start: Callable[..., subprocess.Popen],
    run: Run,
    sections: Callable[..., dict[str, Any]],
    log: Log,
    tones: Path,
    tmp_path: Path,
):
    """Two stages with evaluation, two micro-batches a step: each on a process of its own, or one after the other."""
    changes = {
        "ctc": {"merges": 1000, "compress": True},
        "lora": {"rank": 4},
        "data": {"dev": str(tones / "dev.jsonl")},
        "train": {"steps": None, "accumulation": 2, "evaluate_every": 4, "learning_rate": 1e-2, "warmup_steps": 2},
        "stages": [
            {"name": "align", "steps": 6, "losses": {"ctc": 1.0}},
            {"name": "listen", "steps": 5, "trainable": ["adapter", "ctc", "llm.lora"]},
        ],
    }
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    pair = start(sections(**changes), tmp_path / "pair", launcher)
    one = run("one", **changes)
    output = pair.communicate(timeout=600)[0]
    assert pair.returncode == 0, output
    assert len(torch.load(tmp_path / "pair" / "1-align" / "state.pt")["random"]) == 2, "there was only one process"
    alone, together = log(one), log(tmp_path / "pair")
    assert len(alone) == len(together) == 11
    for expected, found in zip(alone, together, strict=True):
        assert expected.keys() == found.keys()
        for name in expected.keys() - {"stage", "evaluation"}:
            assert found[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-7)
        if "evaluation" in expected:
            assert found["evaluation"] == pytest.approx(expected["evaluation"], rel=1e-4)
    weights = load_file(tmp_path / "pair" / "model.safetensors")
    for name, tensor in load_file(one / "model.safetensors").items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_run_can_start_from_another(run: Run, log: Log, tones: Path, tmp_path: Path):
    """With its components, its decoding and its trained weights; a step that moves nothing gives them back."""
    everything = {"trainable": ["adapter", "ctc", "llm.lora"]}
    parent = run("parent", lora={"rank": 4}, train=everything, decoding={"no_repeat_ngram": 4})
    still = {"steps": 1, "learning_rate": 1e-12, "lora_learning_rate": 1e-12}
    child = recipe.parse({"init": str(parent), "data": {"train": str(tones / "train.jsonl")}, "train": still})
    folder = train(child, tmp_path / "child", "cpu")
    started, found = load_file(parent / "model.safetensors"), load_file(folder / "model.safetensors")
    assert started.keys() == found.keys()
    for name, tensor in started.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-9)
    resolved = recipe.load(folder / "recipe.yaml")
    assert resolved.init is None
    assert resolved.decoding.no_repeat_ngram == 4
    assert resolved.adapter == {"name": "stack_mlp", "stride": 3, "hidden_dim": 32}
    shutil.rmtree(parent)
    checkpoint.load(folder)  # which needs its parent no longer


def test_a_finished_run_is_left_as_it_is(run: Run):
    folder = run("run")
    kinds = (".safetensors", ".jsonl", ".json", ".yaml")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.suffix in kinds}
    assert run("run") == folder
    assert {path: path.read_bytes() for path in before} == before


def test_another_recipe_may_not_go_on_in_a_run_folder(run: Run):
    run("run")
    with pytest.raises(CheckpointError, match=r"a run of another recipe \(train.steps\), expected a new folder"):
        run("run", train={"steps": 4})


def test_a_run_that_cannot_begin_leaves_no_folder(run: Run, tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        run("run", data={"train": str(tmp_path / "nothing.jsonl")})
    assert not (tmp_path / "run").exists()


def test_what_may_be_forgotten_is_said(run: Run, tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    parent = run("parent", tasks=[{"name": "asr"}, {"name": "asr", "style": "written"}, {"name": "ner"}])
    capsys.readouterr()
    child = {"init": str(parent), "data": {"train": str(tones / "train.jsonl")}, "train": {"steps": 1}}
    train(recipe.parse(child), tmp_path / "child", "cpu")
    assert "nothing is trained for asr.written, ner: what the model knew of it may be lost" in capsys.readouterr().err
    train(recipe.parse(child | {"tasks": [{"name": "asr"}]}), tmp_path / "alone", "cpu")
    assert "nothing is trained" not in capsys.readouterr().err


def test_a_folder_of_other_things_is_not_written_to(run: Run, tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    with pytest.raises(CheckpointError, match="not empty and not a run of `stapes train`"):
        run("run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_data_that_have_changed_since_are_not_resumed_on(run: Run, tones: Path, tmp_path: Path):
    rows = read_manifest(tones / "train.jsonl")
    write_manifest(tmp_path / "data.jsonl", rows[:6])
    changes = {"data": {"train": str(tmp_path / "data.jsonl")}, "train": {"steps": None, "epochs": 1, "batch_seconds": 3}}
    run("run", **changes)
    write_manifest(tmp_path / "data.jsonl", rows)
    with pytest.raises(CheckpointError, match=r"state\.pt: a stage of \d steps on 1 processes, expected \d+ steps on 1"):
        run("run", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stages": [{"name": "a", "steps": 1, "losses": {"next_token": 1.0, "quantity": 1.0}}]},
            r"stages\.0\.losses: quantity with the adapter 'stack_mlp', expected of the adapter's own losses: none",
        ),
        ({"ctc": None}, r"stages\.0\.losses: ctc, expected a model with a CTC head; add `ctc: {merges: 1000}`"),
        (
            {"stages": [{"name": "a", "steps": 1}, {"name": "b", "steps": 1, "precision": "bf16"}]},
            "stages: precisions bf16, fp32, expected one for all stages",
        ),
        (
            {"stages": [{"name": "a", "steps": 1, "trainable": ["encoder.lora"], "cache": False}]},
            r"stages\.0\.trainable: encoder\.lora, expected a model with encoder_lora; add `encoder_lora: {rank: 8}`",
        ),
        (
            {"encoder_lora": {}, "stages": [{"name": "a", "steps": 1, "trainable": ["encoder.lora"]}]},
            r"stages\.0\.cache: the encoder is trained, cached features would go stale; set cache: false in this stage",
        ),
        (
            {"data": {"train": "a", "speed": [0.9]}},
            r"train\.cache: cached features and waveform augmentation.*expected one of them; set cache: false in the stages",
        ),
    ],
)
def test_recipes_that_cannot_be_trained(
    sections: Callable[..., dict[str, Any]], changes: dict[str, Any], message: str, tmp_path: Path
):
    with pytest.raises(RecipeError, match=message):
        train(recipe.parse(sections() | changes), tmp_path / "run", "cpu")


def test_bfloat16_is_close_and_may_follow_float32_in_one_process(run: Run, log: Log):
    full, half = log(run("full")), log(run("half", train={"precision": "bf16"}))
    for expected, found in zip(full, half, strict=True):
        assert found["ctc"] == pytest.approx(expected["ctc"], rel=0.02)
        assert found["next_token"] == pytest.approx(expected["next_token"], rel=0.02)
    assert full != half


def test_what_is_too_long_is_reported(run: Run, capsys: pytest.CaptureFixture[str]):
    run("run", data={"max_seconds": 1.0})
    shown = capsys.readouterr().err
    assert "left out" in shown
    assert "train-" in shown
    assert "stage train: what is trained" in shown
