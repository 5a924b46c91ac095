"""Frozen, LoRA or full, on the encoder and on the LLM (arXiv 2406.17272): what is trained, stored, resumed and loaded."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stapes import checkpoint, lora, recipe
from stapes.data.cache import FeatureCache, encode
from stapes.data.manifest import read_manifest
from stapes.encoders.whisper import WhisperEncoder
from stapes.errors import RecipeError
from stapes.model import SpeechLLM
from stapes.recipe import Recipe
from stapes.training.loop import Loop
from stapes.training.stages import train
from stapes.training.validation import Validation

Run = Callable[..., Path]
Log = Callable[[Path], list[dict[str, Any]]]
SCHEMES = ("frozen", "lora", "full")
RATES = {"learning_rate": 1e-2, "lora_learning_rate": 1e-2, "full_learning_rate": 1e-3, "warmup_steps": 2}


@pytest.fixture
def scheme(tiny_whisper: Path, tones: Path) -> Callable[[str, str], dict[str, Any]]:
    """scheme(encoder, llm): the sections of a recipe that trains them so, for three steps, and evaluates at the end."""

    def make(encoder: str, llm: str) -> dict[str, Any]:
        part = {"frozen": [], "lora": [".lora"], "full": [""]}
        trainable = ["adapter", "ctc", *(f"encoder{ending}" for ending in part[encoder])]
        return {
            "encoder": {"name": "whisper", "weights": f"path:{tiny_whisper}"},
            "data": {"dev": str(tones / "dev.jsonl")},
            "train": RATES
            | {"trainable": [*trainable, *(f"llm{ending}" for ending in part[llm])]}
            | {"save_every": 1, "cache": encoder == "frozen"},
            **({"encoder_lora": {"rank": 2}} if encoder == "lora" else {}),
            **({"lora": {"rank": 2}} if llm == "lora" else {}),
        }

    return make


def beginning(resolved: Recipe) -> SpeechLLM:
    """The model that a run of a recipe begins with."""
    torch.manual_seed(resolved.resolved_stages[0].seed)
    return checkpoint.build(resolved)


def parameters(model: SpeechLLM) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("llm", SCHEMES)
@pytest.mark.parametrize("encoder", SCHEMES)
def test_a_scheme(
    encoder: str,
    llm: str,
    scheme: Callable[[str, str], dict[str, Any]],
    toy_recipe: Callable[..., Recipe],
    run: Run,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    """It changes all of what it names and nothing else, goes on after an interruption as if there had been none, and loads."""
    changes = scheme(encoder, llm)
    resolved = toy_recipe(**changes)
    before = parameters(beginning(resolved))
    folder = run("run", **changes)
    model, decoding, _ = checkpoint.load(folder)
    after = parameters(model)
    assert before.keys() == after.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    named = {name for name in after if lora.part_of(name) in changes["train"]["trainable"]}
    assert changed == named - {"ctc.residual.weight"}, "which only a head that compresses reads"

    saved = load_file(folder / "model.safetensors")
    small = {name for name in after if lora.part_of(name) not in ("encoder", "llm")}
    assert saved.keys() == small | named | ({"ctc.table"} if llm == "full" else set())
    base = beginning(toy_recipe(**changes | {"lora": None, "encoder_lora": None}))
    description = checkpoint.read_description(folder)
    assert [description[part]["digest"] for part in ("encoder", "llm")] == [base.encoder.digest, base.llm.digest]

    validation = Validation.load(resolved.data.dev, 100, model.encoder, model.tasks)
    validation.attach(model.encoder, cache=encoder == "frozen")
    scores = validation.scores(model, resolved.resolved_stages[0], decoding)
    assert scores == pytest.approx(log(folder)[-1]["evaluation"], rel=1e-6), "of the model as it was when it was saved"

    save, saves = Loop._save, []

    def interrupted(loop: Loop, step: int) -> None:
        save(loop, step)
        saves.append(step)
        if len(saves) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "_save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("again", **changes)
    run("again", **changes)
    assert saves == [1, 2, 3]
    assert log(tmp_path / "again") == log(folder)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_two_processes_give_what_one_does(
    start: Callable[..., subprocess.Popen],
    run: Run,
    log: Log,
    sections: Callable[..., Any],
    scheme: Callable[[str, str], dict[str, Any]],
    tmp_path: Path,
):
    changes = scheme("full", "full")
    changes["train"] |= {"accumulation": 2}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    pair = start(sections(**changes), tmp_path / "pair", launcher)
    one = run("one", **changes)
    output = pair.communicate(timeout=600)[0]
    assert pair.returncode == 0, output
    for expected, found in zip(log(one), log(tmp_path / "pair"), strict=True):
        for name in expected.keys() - {"stage", "evaluation"}:
            assert found[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6)
    together = load_file(tmp_path / "pair" / "model.safetensors")
    for name, tensor in load_file(one / "model.safetensors").items():
        if "k_proj.bias" not in name:  # whose gradient is rounding: softmax does not see it
            torch.testing.assert_close(together[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_base_and_lora_of_one_side_can_be_trained_together(
    run: Run, scheme: Callable[[str, str], dict[str, Any]], toy_recipe: Callable[..., Recipe]
):
    changes = scheme("frozen", "full") | {"lora": {"rank": 2}}
    changes["train"]["trainable"] = ["llm", "llm.lora"]
    before = parameters(beginning(toy_recipe(**changes)))
    after = parameters(checkpoint.load(run("run", **changes))[0])
    assert {name for name in after if not torch.equal(after[name], before[name])} == {
        name for name in after if name.startswith("llm.")
    }


# -- what a trained base means for everything else -------------------------------------------------------------------------


def test_tied_embeddings_are_stored_once_and_stay_tied(run: Run, scheme: Callable[[str, str], dict[str, Any]]):
    folder = run("run", **scheme("frozen", "full"))
    names = [name for name in load_file(folder / "model.safetensors") if "embed_tokens" in name or "lm_head" in name]
    assert names == ["llm.model.model.embed_tokens.weight"]
    llm = checkpoint.load(folder)[0].llm.model
    assert llm.lm_head.weight is llm.model.embed_tokens.weight


ATTENDS = {"name": "cross_attention", "dim": 16, "heads": 2, "keys": "llm"}


@pytest.mark.parametrize("adapter", [{"name": "stack_mlp", "hidden_dim": 32}, {"name": "posterior"}, ATTENDS])
def test_tables_stay_what_they_were_when_the_llm_began_to_be_trained(
    adapter: dict[str, Any], run: Run, scheme: Callable[[str, str], dict[str, Any]], toy_recipe: Callable[..., Recipe]
):
    changes = scheme("frozen", "full") | {"adapter": adapter}
    base = beginning(toy_recipe(**changes | {"train": {"trainable": ["adapter"]}}))
    model, _, _ = checkpoint.load(run("run", **changes))
    assert not torch.equal(model.llm.table, base.llm.table)
    assert torch.equal(model.ctc.table, base.llm.table[model.pieces.ids])
    torch.testing.assert_close(model.ctc.centred, base.ctc.centred)
    if adapter["name"] != "stack_mlp":
        assert torch.equal(model.adapter.table, base.llm.table)
        assert set(model.tables()) == {"ctc.table", "adapter.table"}


def test_a_later_stage_caches_what_the_encoder_has_become(
    run: Run, scheme: Callable[[str, str], dict[str, Any]], tones: Path, tiny_whisper: Path
):
    changes = scheme("full", "frozen")
    own = changes["train"] | {"steps": 3}
    changes["train"] = {"steps": None}
    changes["stages"] = [
        {"name": "before", "steps": 1, "trainable": ["adapter"], "learning_rate": 1e-3},
        {"name": "refine", **own},
        {"name": "listen", "steps": 1, "trainable": ["ctc"]},
    ]
    folder = run("run", **changes)
    model, _, _ = checkpoint.load(folder)
    row = read_manifest(tones / "dev.jsonl")[0]
    trained, base = FeatureCache(model.encoder), FeatureCache(WhisperEncoder(f"path:{tiny_whisper}").requires_grad_(False))
    assert trained.folder != base.folder
    assert row in trained
    assert row in base, "from the stage before, whose encoder was still the base"
    found = encode(model.encoder, [row]).values[0]
    torch.testing.assert_close(trained.get(row), found, rtol=0, atol=2e-2)
    assert (base.get(row) - found).abs().max() > 0.05
    refined, final = (load_file(path / "model.safetensors") for path in (folder / "2-refine", folder))
    assert all(torch.equal(tensor, final[name]) for name, tensor in refined.items() if name.startswith("encoder."))


def test_a_run_that_starts_from_a_trained_base_keeps_it(
    run: Run, scheme: Callable[[str, str], dict[str, Any]], tones: Path, tmp_path: Path
):
    parent = run("parent", **scheme("full", "full"))
    still = {"steps": 1, "trainable": ["adapter"], "learning_rate": 1e-12, "average_decay": 0.5}
    child = recipe.parse({"init": str(parent), "data": {"train": str(tones / "train.jsonl")}, "train": still})
    folder = train(child, tmp_path / "child", "cpu")
    started, found = load_file(parent / "model.safetensors"), load_file(folder / "model.safetensors")
    assert started.keys() == found.keys()
    for name, tensor in started.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-9)
    shutil.rmtree(parent)
    assert checkpoint.load(folder)[0].stored == {"encoder", "llm", "tables"}


def test_a_cache_of_an_encoder_that_is_trained_is_refused(run: Run, scheme: Callable[[str, str], dict[str, Any]]):
    changes = scheme("full", "frozen")
    changes["train"]["cache"] = True
    with pytest.raises(RecipeError, match=r"stages\.0\.cache: the encoder is trained, cached features would go stale"):
        run("run", **changes)


def test_gradient_checkpointing_changes_nothing_but_memory(run: Run, log: Log, scheme: Callable[[str, str], dict[str, Any]]):
    changes = scheme("frozen", "lora") | {"lora": {"rank": 2, "dropout": 0.1}}
    plain = run("plain", **changes)
    changes["train"]["gradient_checkpointing"] = True
    for expected, found in zip(log(plain), log(run("checkpointed", **changes)), strict=True):
        assert found["next_token"] == pytest.approx(expected["next_token"], rel=1e-6)
        assert found["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-4)


def test_the_table_at_the_start_says_what_is_trained_and_where_lora_is(
    run: Run, scheme: Callable[[str, str], dict[str, Any]], capsys: pytest.CaptureFixture[str]
):
    run("run", **scheme("full", "lora"))
    shown = capsys.readouterr().err
    assert "llm.lora: q_proj, k_proj, v_proj, o_proj" in " ".join(shown.split())
    rows = [line for line in shown.splitlines() if "encoder" in line]
    assert rows
    assert not any("frozen" in line for line in rows)
