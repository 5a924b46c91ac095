"""One stage: what a step computes, what is kept, and that a killed run goes on as if nothing had happened."""

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stapes import checkpoint, lora
from stapes.data.cache import FeatureCache, encode
from stapes.data.loader import TrainingData
from stapes.data.manifest import read_manifest
from stapes.data.reading import Planned
from stapes.encoders.toy import ToyEncoder
from stapes.errors import TrainingError
from stapes.model import Targets
from stapes.recipe import Recipe
from stapes.tasks.asr import ASR
from stapes.training.validation import Validation

Run = Callable[..., Path]
Log = Callable[[Path], list[dict[str, Any]]]

# (next_token, ctc) of each step of recipes/toy.yaml. A change here is a change of what training computes: say why.
TASKS = {"asr": ASR()}
GOLDEN = [
    (5.65598, 10.5412),
    (5.6696, 9.79091),
    (5.66317, 9.81983),
    (5.65432, 10.726),
    (5.66005, 10.181),
    (5.65689, 9.5963),
    (5.66463, 9.66085),
    (5.63486, 9.78744),
    (5.66144, 9.45093),
    (5.6556, 8.93465),
    (5.66281, 8.54619),
    (5.65342, 8.84922),
    (5.6565, 8.1786),
    (5.66791, 8.41523),
    (5.66154, 7.93516),
    (5.65586, 7.67099),
    (5.66433, 7.53393),
    (5.65507, 7.71593),
    (5.65551, 7.6012),
    (5.66707, 7.42161),
]


def test_the_toy_recipe_has_the_loss_curve_that_was_committed(toy_run: Path, log: Log):
    found = log(toy_run)
    assert [record["step"] for record in found] == list(range(1, 21))
    for record, (next_token, ctc) in zip(found, GOLDEN, strict=True):
        assert record["next_token"] == pytest.approx(next_token, rel=1e-4)
        assert record["ctc"] == pytest.approx(ctc, rel=1e-4)


def test_only_what_the_steps_read_is_encoded(run: Run, tones: Path, toy_recipe: Callable[..., Recipe]):
    run("run", train={"steps": 2, "batch_seconds": 4})
    data = TrainingData(toy_recipe().data, ToyEncoder(), TASKS, progress=False)
    data.attach(cache=True)
    drawn = {example.utterance.id for examples in data.epoch(0, 0, 4)[:2] for example in examples}
    rows = read_manifest(tones / "train.jsonl")
    assert {row.id for row in rows if row in FeatureCache(ToyEncoder())} == drawn != {row.id for row in rows}


# -- a step ------------------------------------------------------------------------------------------------------------


def fresh(recipe: Recipe) -> Any:
    """The model that a run of ``recipe`` begins with."""
    torch.manual_seed(recipe.resolved_stages[0].seed)
    return checkpoint.build(recipe)


def test_losses_and_gradient_are_per_target_of_all_micro_batches(run: Run, log: Log, toy_recipe: Callable[..., Recipe]):
    """Three micro-batches of unequal size, by hand, as one sum over all their targets."""
    options = {"steps": 1, "accumulation": 3, "batch_seconds": 4}
    (record,) = log(run("run", train=options))
    recipe = toy_recipe(train=options)
    model, data = fresh(recipe), TrainingData(recipe.data, ToyEncoder(), TASKS, progress=False)
    data.attach(cache=True)
    lora.set_trainable(model, ["adapter", "ctc"])
    micro = data.epoch(0, 0, 4)[:3]
    answers = [[model.answer(row.utterance.text) for row in rows] for rows in micro]
    tokens = sum(len(answer) for rows in answers for answer in rows)
    pieces = sum(len(model.pieces.of_tokens(answer)) for rows in answers for answer in rows)
    assert len({sum(map(len, rows)) for rows in answers}) > 1
    sums = {"next_token": torch.zeros(()), "ctc": torch.zeros(())}
    for batch, targets in zip(data.batches([Planned(0, rows) for rows in micro], 0), answers, strict=True):
        for name, value in model(data.frames(batch), Targets(targets), sums).items():
            sums[name] = sums[name] + value
    losses = {"next_token": sums["next_token"] / tokens, "ctc": sums["ctc"] / pieces}
    (losses["next_token"] + 0.3 * losses["ctc"]).backward()
    norm = torch.stack([parameter.grad.norm() for parameter in model.parameters() if parameter.grad is not None]).norm()
    for name, value in losses.items():
        assert record[name] == pytest.approx(value.item(), rel=1e-5)
    assert record["gradient_norm"] == pytest.approx(norm.item(), rel=1e-4)


def test_only_what_is_trainable_moves(run: Run, toy_recipe: Callable[..., Recipe]):
    changes = {"lora": {"rank": 4}, "train": {"trainable": ["llm.lora"], "losses": {"next_token": 1.0}, "steps": 2}}
    before = checkpoint.trained_state(fresh(toy_recipe(**changes)))
    after = load_file(run("run", **changes) / "model.safetensors")
    assert before.keys() == after.keys()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved == {name for name in after if lora.MARK in name}


def test_epochs_are_passes_over_the_data(run: Run, log: Log, toy_recipe: Callable[..., Recipe]):
    data = TrainingData(toy_recipe().data, ToyEncoder(), TASKS, progress=False)
    data.attach(cache=True)
    plans = [len(data.epoch(0, epoch, 8)) for epoch in range(3)]
    assert len(log(run("whole", train={"steps": None, "epochs": 2}))) == plans[0] + plans[1]
    assert len(log(run("part", train={"steps": None, "epochs": 1.5}))) == plans[0] + round(plans[1] / 2)


def test_a_loss_that_is_not_a_number_stops_training_and_names_the_utterances(
    run: Run, log: Log, tones: Path, tmp_path: Path, toy_recipe: Callable[..., Recipe]
):
    """One utterance's cached frames are broken: its batch is the one that is named, after the steps before it."""
    rows = read_manifest(tones / "train.jsonl")
    cache, bad = FeatureCache(ToyEncoder()), rows[7]
    frames = encode(ToyEncoder(), [bad]).rows()[0].clone()
    frames[3, 5] = torch.nan
    cache.put(bad, frames)
    cache.close()
    with pytest.raises(TrainingError, match="stage train: the loss is nan in the batch") as caught:
        run("run", train={"steps": 30, "batch_seconds": 3})
    data = TrainingData(toy_recipe().data, ToyEncoder(), TASKS, progress=False)
    data.attach(cache=True)
    (batch,) = [rows for rows in data.epoch(0, 0, 3) if bad in [row.utterance for row in rows]]
    assert f"in the batch of {', '.join(row.utterance.id for row in batch)}, expected" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(record["next_token"] < 10 for record in log(tmp_path / "run" / "1-train"))


# -- what is kept ------------------------------------------------------------------------------------------------------


def scores(folder: Path, recipe: Recipe) -> dict[str, float]:
    """The validation scores of a saved model."""
    model, decoding, _ = checkpoint.load(folder)
    validation = Validation.load(recipe.data.dev, 100, model.encoder, model.tasks)
    validation.attach(model.encoder, cache=True)
    return validation.scores(model, recipe.resolved_stages[0], decoding)


def test_the_best_checkpoint_is_kept_and_the_last_beside_it(run: Run, log: Log, tones: Path, toy_recipe: Callable[..., Recipe]):
    """A learning rate that overshoots, so that the last is not the best; the next stage starts from the best."""
    changes: dict[str, Any] = {
        "data": {"dev": str(tones / "dev.jsonl")},
        "train": {"batch_seconds": 30, "losses": {"ctc": 1.0}, "warmup_steps": 5, "final_ratio": 1.0, "evaluate_every": 5},
        "stages": [{"name": "align", "steps": 25, "learning_rate": 0.1}, {"name": "still", "steps": 1, "learning_rate": 1e-12}],
    }
    changes["train"]["steps"] = None
    folder, recipe = run("run", **changes), toy_recipe(**changes)
    evaluations = [record for record in log(folder / "1-align") if "evaluation" in record]
    evaluated = {record["step"]: record["evaluation"]["ctc_wer"] for record in evaluations}
    assert list(evaluated) == [5, 10, 15, 20, 25]
    assert min(evaluated.values()) < evaluated[25] < 100
    assert scores(folder / "1-align", recipe) == {"ctc_wer": min(evaluated.values())}
    assert scores(folder / "1-align" / "last", recipe) == {"ctc_wer": evaluated[25]}
    (still,) = log(folder / "2-still")
    assert still["evaluation"]["ctc_wer"] == min(evaluated.values())
    handed, result = load_file(folder / "1-align" / "model.safetensors"), load_file(folder / "model.safetensors")
    for name, tensor in handed.items():
        torch.testing.assert_close(result[name], tensor, rtol=0, atol=1e-9)
    assert [(record["stage"], record["step"]) for record in log(folder)][-2:] == [("align", 25), ("still", 1)]


def test_without_a_held_out_set_the_average_of_the_last_weights_is_kept(run: Run):
    folder = run("run", train={"steps": 4, "average_decay": 0.9})
    state = torch.load(folder / "1-train" / "state.pt")
    saved = load_file(folder / "model.safetensors")
    last = load_file(folder / "1-train" / "last" / "model.safetensors")
    for name, tensor in state["average"]["state"].items():
        assert torch.equal(saved[name], tensor)
        assert torch.equal(last[name], tensor)
        if tensor.dim() > 1 and "residual" not in name:
            assert not torch.equal(tensor, state["weights"][name])


def test_a_stage_may_end_between_its_weights_and_those_it_began_with(run: Run):
    folder = run("run", stages=[{"name": "a", "steps": 2}, {"name": "b", "steps": 3, "interpolate": 0.25}])
    first, second, result = (load_file(folder / part / "model.safetensors") for part in ("1-a", "2-b", "."))
    for name, tensor in result.items():
        torch.testing.assert_close(tensor, 0.75 * first[name] + 0.25 * second[name])
    assert any(not torch.equal(tensor, second[name]) for name, tensor in result.items())


# -- exact resume ------------------------------------------------------------------------------------------------------


def steps_logged(folder: Path) -> int:
    return sum(file.read_text().count("\n") for file in folder.glob("*/metrics.jsonl"))


def kill_after(process: subprocess.Popen, folder: Path, steps: int) -> None:
    """Kill a run, as a power cut would, once it has logged ``steps`` steps."""
    give_up = time.monotonic() + 600
    while steps_logged(folder) < steps:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < give_up
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"


def test_a_killed_run_goes_on_as_if_it_had_not_been_killed(
    start: Callable[..., subprocess.Popen], sections: Callable[..., dict[str, Any]], tones: Path, tmp_path: Path
):
    """Everything random is on, and the step is any; losses, scores and weights are the same, bit for bit."""
    values = sections(
        adapter={"name": "conv1d_transformer", "dim": 16, "heads": 2, "layers": 1, "ffn_dim": 16, "dropout": 0.1},
        ctc={"merges": 1000, "compress": True},
        lora={"rank": 4, "dropout": 0.1},
        data={
            "dev": str(tones / "dev.jsonl"),
            "speed": [0.9, 1.0, 1.1],
            "noise": {"path": str(tones / "dev.jsonl"), "snr_db": [5, 20]},
            "masking": {"max_time_ratio": 0.2, "max_feature_width": 4},
        },
        train={"steps": None, "warmup_steps": 3, "learning_rate": 1e-2, "save_every": 4, "evaluate_every": 9, "cache": False},
        stages=[
            {"name": "align", "steps": 22, "losses": {"ctc": 1.0}, "average_decay": 0.9},
            {"name": "listen", "steps": 22, "trainable": ["adapter", "ctc", "llm.lora"], "accumulation": 2, "interpolate": 0.4},
        ],
    )
    alone = start(values, tmp_path / "alone")
    seed = random.SystemRandom().randrange(1000)
    first, second = random.Random(seed).randint(1, 20), random.Random(seed).randint(23, 40)
    kill_after(start(values, tmp_path / "killed"), tmp_path / "killed", first)
    kill_after(start(values, tmp_path / "killed"), tmp_path / "killed", second)
    again = start(values, tmp_path / "killed")
    for process in (alone, again):
        output = process.communicate(timeout=600)[0]
        assert process.returncode == 0, output
    assert "going on from step" in output or second - 22 < 5, "what is saved every four steps is taken up"
    wanted, found = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("alone", "killed"))
    assert len(wanted.splitlines()) == 44
    assert found == wanted, f"killed after steps {first} and {second}"
    assert (tmp_path / "killed" / "model.safetensors").read_bytes() == (tmp_path / "alone" / "model.safetensors").read_bytes()
