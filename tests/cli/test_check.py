"""`stapes check`: the resolved recipe, exact parameter counts without weights, memory, data, and what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from stapes import recipe as recipes

Run = Callable[..., Result]


def write(path: Path, **sections: Any) -> Path:
    values = {
        "encoder": {"name": "toy"},
        "adapter": {"name": "stack_mlp", "hidden_dim": 8},
        "llm": {"name": "toy"},
        "stages": [
            {"name": "first", "steps": 3, "trainable": ["adapter"]},
            {"name": "second", "epochs": 1.0, "batch_seconds": 20.0, "average_decay": 0.9},
        ],
    }
    path.write_text(yaml.safe_dump(values | sections))
    return path


def test_json_has_everything(stapes: Run, examples: Path, tmp_path: Path):
    path = write(
        tmp_path / "r.yaml", data={"train": [str(examples)], "dev": str(examples), "max_seconds": 5.5}, lora={"rank": 2}
    )
    result = stapes("check", path, "--json", "--set", "train.seed=3")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    facts = json.loads(result.stdout)
    assert facts["recipe"] == recipes.load(path, ["train.seed=3"]).model_dump(mode="json")
    assert (facts["missing"], facts["missing_data"]) == ({}, [])
    assert facts["embeddings_per_second"] == {"read": 10.0, "source": "exact"}
    assert facts["lora"] == {"llm": ["q_proj", "k_proj", "v_proj", "o_proj"]}
    assert facts["parameters"]["adapter"] == 5 * 16 * 8 + 8 + 8 * 32 + 32
    first, second = facts["stages"]
    assert first["trainable"] == {"adapter": facts["parameters"]["adapter"]}
    assert second["trainable"] == {part: facts["parameters"][part] for part in ("adapter", "llm.lora")}
    assert first["memory_bytes"]["total"] == sum(first["memory_bytes"][part] for part in ("weights", "training", "activations"))
    data = {row["use"]: row for row in facts["data"]}
    assert (data["train"]["utterances"], data["train"]["too_long"]) == (5, 2)
    assert data["dev"]["hours"] == pytest.approx(24.7 / 3600, abs=1e-3)


def test_tables_for_people(stapes: Run, examples: Path, tmp_path: Path):
    shown = stapes("check", write(tmp_path / "r.yaml", data={"train": str(examples)})).stdout
    assert yaml.safe_load(shown.partition("\n\n")[0])["adapter"] == {"name": "stack_mlp", "hidden_dim": 8}
    assert "trained in first" in shown
    assert "memory in second: about " in shown
    assert str(examples) in shown


def test_what_is_expected_to_be_read_is_said(stapes: Run, tmp_path: Path):
    adapter = {"name": "ctc", "dim": 16, "heads": 2, "ffn_dim": 16}
    shown = stapes("check", write(tmp_path / "r.yaml", adapter=adapter)).stdout
    expected = "the LLM reads 4 embeddings a second (ours, the tokens of ordinary speech; "
    assert expected + "the number depends on what is heard, 50 a second at most)" in shown
    head = json.loads(
        stapes("check", tmp_path / "r.yaml", "--json", "--set", "adapter={name: linear}", "--set", "ctc={merges: 6}").stdout
    )
    assert head["embeddings_per_second"] == {"read": 6.0, "source": "ours, what the CTC head leaves of ordinary speech"}


def test_a_manifest_that_is_not_there_is_named_and_the_others_are_counted(stapes: Run, examples: Path, tmp_path: Path):
    stages = [{"name": "first", "mixture": "later.jsonl"}, {"name": "second"}]
    path = write(tmp_path / "r.yaml", data={"train": [str(examples), "nope.jsonl"], "dev": "nope.jsonl"}, stages=stages)
    facts = json.loads(stapes("check", path, "--json").stdout)
    assert [(row["use"], row["path"]) for row in facts["data"]] == [("train", str(examples))]
    assert facts["missing_data"] == ["later.jsonl", "nope.jsonl"]
    assert "not there and not counted: later.jsonl, nope.jsonl" in stapes("check", path).stdout


def test_a_base_that_is_trained(stapes: Run, tmp_path: Path):
    stages = [{"name": "full", "trainable": ["llm"]}, {"name": "less", "trainable": ["llm"], "gradient_checkpointing": True}]
    path = write(tmp_path / "r.yaml", lora={"rank": 2}, stages=stages)
    facts = json.loads(stapes("check", path, "--json").stdout)
    llm = facts["parameters"]["llm"]
    full, less = facts["stages"]
    assert full["trainable"] == {"llm": llm}
    assert full["memory_bytes"]["training"] == 12 * llm
    assert less["memory_bytes"]["activations"] < full["memory_bytes"]["activations"]
    assert "llm.lora on q_proj, k_proj, v_proj, o_proj" in stapes("check", path).stdout


def test_a_recipe_that_begins_with_a_model(stapes: Run, toy_run: Path, tmp_path: Path):
    (tmp_path / "r.yaml").write_text(f"init: {toy_run}\ntrain: {{steps: 5}}\n")
    facts = json.loads(stapes("check", tmp_path / "r.yaml", "--json").stdout)
    assert facts["recipe"]["adapter"] == {"name": "stack_mlp", "stride": 3, "hidden_dim": 32}
    assert facts["stages"][0]["trainable"]["adapter"] == facts["parameters"]["adapter"]


def test_weights_that_are_not_fetched_are_named_and_not_fetched(stapes: Run, tmp_path: Path):
    llm = {"name": "causal", "weights": ["path:/somewhere", "path:/else"]}
    encoder = {"name": "whisper", "weights": f"path:{tmp_path}/nowhere"}
    result = stapes("check", write(tmp_path / "r.yaml", encoder=encoder, llm=llm), "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["missing"] == {
        "encoder": f"not fetched; run `stapes fetch path:{tmp_path}/nowhere`",
        "llm": "not fetched; run `stapes fetch path:/somewhere`",
        "adapter": "its size follows from the encoder and the llm",
    }
    assert facts["stages"] == [{"name": "first"}, {"name": "second"}]
    assert facts["inference"] == facts["sizes_from"] == {}
    assert "llm: not fetched; run `stapes fetch" in stapes("check", tmp_path / "r.yaml").stdout


def test_what_is_known_is_counted_without_fetching_it(stapes: Run, tmp_path: Path):
    encoder = {"name": "whisper", "weights": "pack:whisper-base"}
    llm = {"name": "causal", "weights": ["pack:smollm2-135m-instruct"]}
    path = write(tmp_path / "r.yaml", encoder=encoder, llm=llm)
    facts = json.loads(stapes("check", path, "--json", "--device", "cpu").stdout)
    assert facts["parameters"]["llm"] == 134_515_008
    assert facts["missing"] == {}
    assert facts["sizes_from"]["llm"].endswith("config.json); pack:smollm2-135m-instruct is not fetched")
    assert not (tmp_path / "cache/weights").exists()
    shown = stapes("check", path).stdout
    assert "memory in inference: about " in shown
    assert "sizes of the encoder: facts (https://huggingface.co/openai/whisper-base/" in shown


def test_the_device_decides_on_precision_and_attention(stapes: Run, tmp_path: Path):
    path = write(tmp_path / "r.yaml", llm={"name": "causal", "weights": ["pack:smollm2-135m-instruct"]})
    cpu, cuda = (json.loads(stapes("check", path, "--json", "--device", device).stdout) for device in ("cpu", "cuda"))
    assert cuda["inference"]["memory_bytes"]["weights"] * 2 == cpu["inference"]["memory_bytes"]["weights"]
    assert cuda["stages"][0]["memory_bytes"]["activations"] < cpu["stages"][0]["memory_bytes"]["activations"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"adaptr": {}}, "adaptr: unknown key; did you mean 'adapter'?"),
        ({"adapter": {"name": "stack_mpl"}}, "adapter.name: unknown adapter 'stack_mpl'; did you mean 'stack_mlp'?"),
        ({"train": {"steps": "many"}}, "train.steps: 'many'"),
        ({"lora": {"targets": ["query"]}}, "lora.targets: no linear layer is called 'query'"),
        ({"data": {"train": "."}}, ".: a folder"),
        (
            {"stages": [{"name": "a", "precision": "bf16"}, {"name": "b"}]},
            "stages: precisions bf16, fp32, expected one for all",
        ),
        ({"stages": [{"name": "a", "losses": {"ctc": 1.0}}]}, "stages.0.losses: ctc, expected a model with a CTC head"),
        ({"init": "nowhere"}, "nowhere: no such model"),
        ({"llm": {"name": "causal", "weights": "nothing like it"}}, "nothing like it: no such weights"),
    ],
)
def test_what_is_wrong_is_one_line(
    stapes: Run, one_line: Callable[[Result], str], tmp_path: Path, sections: dict[str, Any], message: str
):
    path = write(tmp_path / "r.yaml", **sections)
    if "init" in sections:
        path.write_text("init: nowhere\n")
    assert message in one_line(stapes("check", path, "--json"))
