"""Shipped recipes pass `stapes check` without network and data; those of papers have as many parameters as there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

from stapes import recipe as recipes
from stapes.adapters import ADAPTERS
from stapes.hub.facts import known_facts
from stapes.recipe import reading

Run = Callable[..., Result]
PAPERS = sorted(name for name in recipes.shipped() if name.startswith("papers/"))
# Derived from the authors' code of arXiv 2409.17044: trained parameters behind Whisper-large-v3 and SeamlessM4T-v2-large.
CONNECT = {
    "base": (32_494_848, 32_298_240),
    "conv": (42_332_928, 38_595_840),
    "cif": (37_415_169, 35_448_065),
    "wlq": (44_107_520, 42_534_144),
}
CONNECT_CTC = {"mistral": (74_470_656, 65_885_440), "llama": (196_790_784, 163_760_640)}
TRAINED: dict[str, dict[str, int]] = {
    "papers/sense_asr_adapter": {"adapter": 1_576_448},
    "papers/sense_asr_lora": {"adapter": 1_576_448, "llm.lora": 6_127_616},
    "papers/slam_asr_wavlm": {"adapter": 5 * 1024 * 2048 + 2048 + 2048 * 4096 + 4096},  # 18.88 M
    "papers/slam_asr_hubert": {"adapter": 5 * 1280 * 2048 + 2048 + 2048 * 4096 + 4096},  # 21.50 M
    "papers/comprehensive_frozen_lora": {"llm.lora": 16_777_216},
    "papers/comprehensive_lora_lora": {"llm.lora": 16_777_216, "encoder.lora": 24 * 2 * 8 * 2 * 1024},
}
for llm in ("mistral", "llama"):
    for name, both in {**CONNECT, "ctc": CONNECT_CTC[llm]}.items():
        for encoder, count in zip(("whisper", "seamless"), both, strict=True):
            TRAINED[f"papers/connect_{name}_{encoder}_{llm}"] = {"adapter": count}


def test_every_paper_is_here():
    assert set(TRAINED) <= set(PAPERS)
    assert len([name for name in PAPERS if "/connect_" in name]) == 20


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
    trained = facts["stages"][0]["trainable"]
    if name in PAPERS:
        assert facts["sizes_from"].keys() == {"encoder", "llm"}
        assert TRAINED.get(name, {}).items() <= trained.items()
        assert set(trained) == set(facts["recipe"]["stages"][0]["trainable"] if facts["recipe"]["stages"] else trained)
    assert facts["stages"][0]["memory_bytes"]["total"] > facts["inference"]["memory_bytes"]["weights"]


@pytest.mark.parametrize(("name", "counts"), [(name, TRAINED[name]) for name in PAPERS if "adapter" in TRAINED.get(name, {})])
def test_its_adapter_has_the_parameters_of_the_paper(name: str, counts: dict[str, int]):
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
    assert sum(parameter.numel() for parameter in adapter.parameters()) == counts["adapter"]
