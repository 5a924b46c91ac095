"""Shipped recipes pass `stapes check` without network and data; those of papers have as many parameters as there."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

from stapes import recipe as recipes
from stapes.adapters import ADAPTERS
from stapes.hub.facts import known_facts
from stapes.recipe import reading
from stapes.tasks import TASKS

Run = Callable[..., Result]
PAPERS = sorted(name for name in recipes.shipped() if name.startswith("papers/"))
# Derived from the authors' code of arXiv 2409.17044: trained parameters behind Whisper-large-v3 and SeamlessM4T-v2-large.
CONNECT = {
    "base": (32_494_848, 32_298_240),
    "conv": (42_332_928, 38_595_840),
    "conv_inside": (36_038_400, 35_841_792),
    "cif": (37_415_169, 35_448_065),
    "wlq": (44_107_520, 42_534_144),
}
CONNECT_CTC = {"mistral": (74_470_656, 65_885_440), "llama": (196_790_784, 163_760_640)}
# Its languages and directions (setting 1a of that code): the manifest, and the task that is trained on it.
CONNECT_SOURCES = {
    ("must-c-de", "asr"),
    *((f"must-c-{language}", f"translation.{language}") for language in ("de", "fr", "it", "es")),
    *(("covost2", task) for task in ("asr", "translation.de", "translation.en")),
}
HUBERT_LARGE = 315_437_696  # its convolutions, 24 layers and norms, without the vector that only pretraining needs
VICUNA_7B = 6_738_415_616
SLAM = 2048 + 2048 * 4096 + 4096  # behind five stacked frames
# Everything that each recipe trains, in all of its stages: part -> parameters, None where every size is ours.
TRAINED: dict[str, dict[str, int | None]] = {
    "sense_asr_adapter": {"adapter": 1_576_448},
    "sense_asr_lora": {"adapter": 1_576_448, "llm.lora": 6_127_616},
    "sense_asr_classifier": {"adapter": 1_576_448, "llm.lora": 6_127_616, "losses": None},
    "sense_asr_stages": {"adapter": 1_576_448, "llm.lora": 6_127_616, "losses": None},
    "slam_asr_wavlm": {"adapter": 5 * 1024 * 2048 + SLAM},  # 18.88 M
    "slam_asr_hubert": {"adapter": 5 * 1280 * 2048 + SLAM},  # 21.50 M
}
SCHEMES = {
    "encoder": {"frozen": {}, "lora": {"encoder.lora": 24 * 2 * 8 * 2 * 1024}, "full": {"encoder": HUBERT_LARGE}},
    "llm": {"frozen": {}, "lora": {"llm.lora": 16_777_216}, "full": {"llm": VICUNA_7B}},
}
for (encoder, heard), (llm, read) in product(SCHEMES["encoder"].items(), SCHEMES["llm"].items()):
    TRAINED[f"comprehensive_{encoder}_{llm}"] = {"adapter": None, **heard, **read}
for name in ("matching", "no_speech", "dws_mlp", "conv1d_transformer"):
    TRAINED[f"comprehensive_{name}"] = TRAINED["comprehensive_lora_lora"]
for llm in ("mistral", "llama"):
    for name, both in {**CONNECT, "ctc": CONNECT_CTC[llm]}.items():
        for encoder, count in zip(("whisper", "seamless"), both, strict=True):
            TRAINED[f"connect_{name}_{encoder}_{llm}"] = {"adapter": count}
TRAINED = {f"papers/{name}": parts for name, parts in TRAINED.items()}
SIZED = {name: parts["adapter"] for name, parts in TRAINED.items() if parts["adapter"] is not None}


def test_every_paper_is_here():
    assert set(TRAINED) == set(PAPERS)
    assert len([name for name in PAPERS if "/connect_" in name]) == 24
    assert len([name for name in PAPERS if "/comprehensive_" in name]) == 9 + 4


@pytest.mark.parametrize("name", [name for name in PAPERS if "/connect_" in name])
def test_connect_recognises_and_translates_what_the_paper_does(name: str):
    recipe = recipes.load(name)
    sources = [(Path(source.path).parent.name, source.task) for source in recipe.data.train]
    assert sorted(sources) == sorted(CONNECT_SOURCES)
    tasks = {task.key: task for task in map(TASKS.build, recipe.tasks)}
    assert set(tasks) == {task for _, task in CONNECT_SOURCES} == {source.task for source in recipe.data.dev}
    assert all(len(set(task.instructions)) == 9 for task in tasks.values())
    assert recipe.llm is not None
    assert recipe.llm["chat_template"] == f"connect_{name.rpartition('_')[2]}"


def test_non_speech_comes_after_recognition():
    speech, silence = recipes.load("papers/comprehensive_no_speech").resolved_stages
    assert speech.mixture is None
    assert any("musan" in source.path for source in silence.mixture or [])


@pytest.mark.parametrize("name", sorted(recipes.shipped()))
def test_a_recipe_is_checked_without_a_network_or_its_data(
    stapes: Run, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    recipe = recipes.load(name)
    mixtures = [recipe.data.train, recipe.data.dev, *(stage.mixture or [] for stage in recipe.stages)]
    manifests = {source.path for mixture in mixtures for source in mixture}
    manifests |= {recipe.data.noise.path} if recipe.data.noise else set()
    result = stapes("check", name, "--json")
    assert result.exit_code == 0, result.stderr
    facts: dict[str, Any] = json.loads(result.stdout)
    assert facts["missing"] == {}
    assert set(facts["missing_data"]) == manifests
    assert facts["data"] == []
    if name in PAPERS:
        assert facts["sizes_from"].keys() == {"encoder", "llm"}
        for stage in facts["stages"]:
            assert set(stage["trainable"]) == set(TRAINED[name]), stage["name"]
            counts = {part: count for part, count in TRAINED[name].items() if count is not None}
            assert counts.items() <= stage["trainable"].items(), stage["name"]
    assert facts["stages"][0]["memory_bytes"]["total"] > facts["inference"]["memory_bytes"]["weights"]


@pytest.mark.parametrize(("name", "count"), SIZED.items())
def test_its_adapter_has_the_parameters_of_the_paper(name: str, count: int):
    """Without the encoder, from the sizes that are known of it: also where there is none of its name yet."""
    values = reading._read(recipes.shipped()[name])
    encoder, llm = (known_facts(values[part]["weights"]) for part in ("encoder", "llm"))
    assert encoder is not None and llm is not None
    seconds_per_frame = 0.16 if encoder.config["model_type"] == "seamless_m4t_v2" else 0.02
    with torch.device("meta"):
        adapter = ADAPTERS.build(
            values["adapter"],
            encoder_dim=encoder.config.get("d_model") or encoder.config["hidden_size"],
            llm_dim=llm.config["hidden_size"],
            seconds_per_frame=seconds_per_frame,
            vocab_size=llm.config["vocab_size"],
            blank_id=0,
            llm_table=None,
        )
    assert sum(parameter.numel() for parameter in adapter.parameters()) == count
