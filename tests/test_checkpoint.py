"""Run folders: what was saved comes back, and nothing else is taken for it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contract
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from stapes import checkpoint, recipe
from stapes.adapters import ADAPTERS
from stapes.decoding.generate import generate
from stapes.errors import CheckpointError, RecipeError
from stapes.model import SpeechLLM
from stapes.types import Padded

RECIPE = recipe.parse(
    {
        "encoder": {"name": "toy"},
        "adapter": {"name": "conv1d_transformer", "dim": 16, "heads": 2, "layers": 1, "ffn_dim": 16},
        "llm": {"name": "toy"},
        "ctc": {"merges": 6},
        "lora": {"rank": 4},
        "decoding": {"no_repeat_ngram": 3, "ctc_weight": 0.2},
    }
)


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, SpeechLLM]:
    """A saved model with LoRA, every trained tensor moved, and the model."""
    model = checkpoint.build(RECIPE)
    for name, tensor in checkpoint.trained_state(model).items():
        tensor += 0.2 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name)))
    folder = tmp_path / "run"
    checkpoint.save(model, folder, RECIPE, checkpoint.trained_state(model))
    return folder, model


def frames() -> Padded:
    return contract.frames([60, 25], dim=16)


def outputs(model: SpeechLLM, decoding: recipe.Decoding) -> tuple[Tensor, list[Any]]:
    with torch.no_grad():
        speech = model.speech(frames()).embeddings
        logits, _ = model.logits(speech, [model.answer("the cat"), model.answer("a")])
    return logits, generate(model, frames(), [1.2, 0.5], decoding)


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the description."""
    file = folder / checkpoint.DESCRIPTION
    description = json.loads(file.read_text())
    change(description)
    file.write_text(json.dumps(description))


def edit_tensors(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    file = folder / checkpoint.TENSORS
    state = load_file(file)
    change(state)
    save_file(state, file)


# -- what comes back ---------------------------------------------------------------------------------------------------


def test_reloading_gives_identical_logits_and_text(run: tuple[Path, SpeechLLM]):
    folder, model = run
    loaded, decoding, found = checkpoint.load(folder)
    assert found == folder
    assert decoding == RECIPE.decoding
    logits, hypotheses = outputs(model, RECIPE.decoding)
    again, texts = outputs(loaded, decoding)
    assert torch.equal(again, logits)
    assert texts == hypotheses
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_only_trained_tensors_are_saved_and_all_of_them(run: tuple[Path, SpeechLLM]):
    folder, model = run
    saved = load_file(folder / checkpoint.TENSORS)
    assert {name.split(".")[0] for name in saved} == {"adapter", "ctc", "llm"}
    assert all("lora" in name for name in saved if name.startswith("llm"))
    assert {name for name in saved if name.startswith("adapter")} == {f"adapter.{name}" for name in model.adapter.state_dict()}
    assert {name for name in saved if name.startswith("ctc")} == {f"ctc.{name}" for name in model.ctc.state_dict()}
    assert sum("lora" in name for name in saved) == 2 * 4 * 2  # A and B of q, k, v and o in two layers


def test_half_precision_halves_the_file_and_comes_back_as_float32(run: tuple[Path, SpeechLLM], tmp_path: Path):
    folder, model = run
    state = checkpoint.trained_state(model)
    checkpoint.save(model, tmp_path / "half", RECIPE, state, torch.float16)
    full, half = ((path / checkpoint.TENSORS).stat().st_size for path in (folder, tmp_path / "half"))
    assert half < 0.6 * full
    loaded, _, _ = checkpoint.load(tmp_path / "half")
    for name, tensor in checkpoint.trained_state(loaded).items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, state[name].half().float())


def test_a_run_folder_says_what_it_is(toy_run: Path):
    description = checkpoint.read_description(toy_run)
    assert description["llm"]["source"] == "toy-32-0"
    assert len(description["llm"]["digest"]) == 64
    assert recipe.parse(yaml.safe_load((toy_run / checkpoint.RECIPE).read_text())) == recipe.parse(description["recipe"])
    assert len((toy_run / "metrics.jsonl").read_text().splitlines()) == 20


def test_a_trained_run_loads(toy_run: Path):
    model, _, _ = checkpoint.load(toy_run)
    fresh = checkpoint.trained_state(checkpoint.build(recipe.load("toy")))
    assert all(not torch.equal(tensor, fresh[name]) for name, tensor in checkpoint.trained_state(model).items() if tensor.any())


def test_decoding_options_of_the_caller_come_before_the_checkpoints(run: tuple[Path, SpeechLLM]):
    _, decoding, _ = checkpoint.load(run[0], {"beams": 3})
    assert (decoding.beams, decoding.no_repeat_ngram) == (3, 3)


# -- what is refused ---------------------------------------------------------------------------------------------------

NAME = "adapter.out.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.update({"adapter.renamed": state.pop(NAME)}), f"missing {NAME}; unknown adapter.renamed"),
        (lambda state: state.pop(NAME), f"missing {NAME}, expected exactly the tensors of this adapter and LoRA"),
        (lambda state: state.update({"adapter.more": torch.zeros(1)}), "unknown adapter.more"),
        (lambda state: state.update({NAME: torch.zeros(16, 32)}), f"{NAME} is (16, 32) instead of (32, 16)"),
        (lambda state: [state.pop(name) for name in list(state) if "lora" in name], "and 13 more"),
    ],
    ids=["renamed", "missing", "extra", "misshapen", "without LoRA"],
)
def test_tensors_that_do_not_fit(run: tuple[Path, SpeechLLM], change: Callable[[dict[str, Tensor]], Any], message: str):
    edit_tensors(run[0], change)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(run[0])
    text = str(caught.value)
    assert message in text
    assert text.startswith(str(run[0] / checkpoint.TENSORS))
    assert "\n" not in text


def test_how_many_tensors_fit_is_said(run: tuple[Path, SpeechLLM]):
    total = len(load_file(run[0] / checkpoint.TENSORS))
    edit_tensors(run[0], lambda state: (state.pop(NAME), state.update({"x": torch.zeros(1)})))
    with pytest.raises(CheckpointError, match=f"{total - 1} of {total} tensors fit"):
        checkpoint.load(run[0])


@pytest.mark.parametrize("part", ["encoder", "llm"])
def test_other_base_weights(run: tuple[Path, SpeechLLM], part: str):
    edit(run[0], lambda description: description[part].update(digest="f" * 64))
    with pytest.raises(CheckpointError, match=rf"the {part} loaded from .* has digest .*, expected ffffffffffff"):
        checkpoint.load(run[0])


def test_another_llm_of_the_same_shape(run: tuple[Path, SpeechLLM]):
    edit(run[0], lambda description: description["recipe"]["llm"].update(seed=1))
    with pytest.raises(CheckpointError, match="the llm loaded from toy-32-1 has digest"):
        checkpoint.load(run[0])


def test_another_prompt(run: tuple[Path, SpeechLLM]):
    edit(run[0], lambda description: description["recipe"].update(tasks=[{"name": "asr", "instruction": "Write it down."}]))
    with pytest.raises(CheckpointError, match="renders other prompts, expected those of training"):
        checkpoint.load(run[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda description: description.update(format=1), "format 1, expected format 2"),
        (lambda description: description.pop("llm"), "without llm"),
        (lambda description: description.clear(), "format None"),
    ],
)
def test_a_description_of_another_kind(run: tuple[Path, SpeechLLM], change: Callable[[dict[str, Any]], Any], message: str):
    edit(run[0], change)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(run[0])


@pytest.mark.parametrize("text", ["[]", "3", '"stapes"'])
def test_a_description_that_is_no_object(run: tuple[Path, SpeechLLM], text: str):
    (run[0] / checkpoint.DESCRIPTION).write_text(text)
    with pytest.raises(CheckpointError, match=r"a JSON \w+, expected an object written by stapes"):
        checkpoint.load(run[0])


def test_a_recipe_of_another_version(run: tuple[Path, SpeechLLM]):
    edit(run[0], lambda description: description["recipe"]["decoding"].update(temperature=0.5))
    with pytest.raises(RecipeError, match=r"stapes\.json: decoding\.temperature: unknown key"):
        checkpoint.load(run[0])


@pytest.mark.parametrize("file", [checkpoint.TENSORS, checkpoint.DESCRIPTION])
def test_a_file_cut_short(run: tuple[Path, SpeechLLM], file: str):
    whole = (run[0] / file).read_bytes()
    (run[0] / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="unreadable") as caught:
        checkpoint.load(run[0])
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing(run: tuple[Path, SpeechLLM]):
    (run[0] / checkpoint.TENSORS).unlink()
    with pytest.raises(CheckpointError, match="unreadable"):
        checkpoint.load(run[0])
    (run[0] / checkpoint.DESCRIPTION).unlink()
    with pytest.raises(CheckpointError, match=r"no stapes\.json in this folder"):
        checkpoint.load(run[0])


def test_an_adapter_with_state_that_would_not_be_saved(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(ADAPTERS.members, "keeps_a_buffer", "mutants:KeepsABuffer")
    described = recipe.parse({"encoder": {"name": "toy"}, "adapter": {"name": "keeps_a_buffer"}, "llm": {"name": "toy"}})
    with pytest.raises(RecipeError, match="adapter 'keeps_a_buffer': buffers that a checkpoint would not have: gain, expected"):
        checkpoint.build(described)


def test_no_such_model():
    with pytest.raises(CheckpointError, match="nothing-of-the-kind: no such model, expected a run folder"):
        checkpoint.find("nothing-of-the-kind")


# -- starting from another model ---------------------------------------------------------------------------------------


def test_a_recipe_inherits_from_the_model_that_it_starts_from(run: tuple[Path, SpeechLLM]):
    child = checkpoint.inherit(recipe.parse({"init": str(run[0]), "decoding": {"beams": 2}, "train": {"steps": 3}}))
    assert (child.encoder, child.adapter) == (RECIPE.encoder, RECIPE.adapter)
    assert child.lora == RECIPE.lora.model_copy(update={"targets": ["q_proj", "k_proj", "v_proj", "o_proj"]}), "as found"
    assert (child.decoding.beams, child.decoding.no_repeat_ngram) == (2, 3)
    assert child.train.steps == 3


def test_its_stages_inherit_as_well(run: tuple[Path, SpeechLLM]):
    """The recipe's own ``train`` goes before what suits a trained model, and a stage before both."""
    stages = [{"name": "first", "warmup_steps": 7}, {"name": "second", "mixture": [{"path": "a.jsonl"}]}]
    given = {"init": str(run[0]), "train": {"steps": 3, "learning_rate": 0.5}, "stages": stages}
    first, second = checkpoint.inherit(recipe.parse(given)).stages
    assert (first.warmup_steps, second.warmup_steps) == (7, checkpoint.ADAPTING["warmup_steps"])
    for stage in (first, second):
        assert (stage.steps, stage.learning_rate) == (3, 0.5)
        assert stage.lora_learning_rate == checkpoint.ADAPTING["lora_learning_rate"]
        assert stage.average_decay == checkpoint.ADAPTING["average_decay"]
    assert [source.path for source in second.mixture or []] == ["a.jsonl"]


def test_a_recipe_may_not_change_what_it_inherits(run: tuple[Path, SpeechLLM]):
    with pytest.raises(RecipeError, match="adapter: given together with init"):
        checkpoint.inherit(recipe.parse({"init": str(run[0]), "adapter": {"name": "stack_mlp"}}))


def test_options_that_leave_the_adapters_tensors_alone_may_change(tmp_path: Path):
    """Such as the rate of one that pools; what needs other tensors is refused."""
    pooled = RECIPE.model_copy(update={"adapter": {"name": "pool_linear", "embeddings_per_second": 10}})
    model = checkpoint.assemble(pooled)
    checkpoint.save(model, tmp_path / "run", pooled, checkpoint.trained_state(model))
    child = recipe.parse({"init": str(tmp_path / "run"), "adapter": {"name": "pool_linear", "embeddings_per_second": 5}})
    slower = checkpoint.build(checkpoint.inherit(child))
    assert torch.equal(slower.adapter.linear.weight, model.adapter.linear.weight)
    lengths = torch.tensor([100])
    assert int(slower.adapter.output_lengths(lengths)) * 2 == int(model.adapter.output_lengths(lengths)) > 1
    checkpoint.save(slower, tmp_path / "slower", checkpoint.inherit(child), checkpoint.trained_state(slower))
    assert int(checkpoint.load(tmp_path / "slower")[0].adapter.output_lengths(lengths)) == int(
        slower.adapter.output_lengths(lengths)
    )


def test_options_that_need_other_tensors_may_not(run: tuple[Path, SpeechLLM]):
    adapter = RECIPE.adapter | {"ffn_dim": 17}
    child = checkpoint.inherit(recipe.parse({"init": str(run[0]), "adapter": adapter}))
    with pytest.raises(CheckpointError, match="tensors fit"):
        checkpoint.build(child)


def test_building_from_init_gives_the_trained_tensors(run: tuple[Path, SpeechLLM], tmp_path: Path):
    shutil.copytree(run[0], tmp_path / "moved")
    built = checkpoint.build(recipe.parse({"init": str(tmp_path / "moved")}))
    for name, tensor in checkpoint.trained_state(run[1]).items():
        assert torch.equal(tensor, checkpoint.trained_state(built)[name])
