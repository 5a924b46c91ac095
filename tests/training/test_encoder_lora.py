"""LoRA on the speech encoder: a stage that trains it, and stages after it that cache what it has become."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stapes import checkpoint, lora
from stapes.data.cache import FeatureCache, encode
from stapes.data.manifest import read_manifest
from stapes.encoders.whisper import WhisperEncoder
from stapes.errors import RecipeError

Run = Callable[..., Path]
Log = Callable[[Path], list[dict[str, Any]]]


@pytest.fixture
def changes(tiny_whisper: Path, tones: Path) -> dict[str, Any]:
    """A random Whisper with LoRA, trained in the first stage, at rest in the second."""
    return {
        "encoder": {"name": "whisper", "weights": f"path:{tiny_whisper}"},
        "encoder_lora": {"rank": 2},
        "lora": {"rank": 2},
        "data": {"dev": str(tones / "dev.jsonl")},
        "train": {"steps": None, "accumulation": 2, "evaluate_every": 3, "learning_rate": 1e-2, "warmup_steps": 2},
        "stages": [
            {
                "name": "refine",
                "steps": 4,
                "losses": {"ctc": 1.0},
                "trainable": ["adapter", "ctc", "encoder.lora"],
                "lora_learning_rate": 1e-2,
                "cache": False,
            },
            {"name": "listen", "steps": 2, "trainable": ["ctc", "llm.lora"]},
        ],
    }


def of_encoder(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if name.startswith("encoder.")}


def test_it_is_trained_where_it_is_named_and_nowhere_else(run: Run, changes: dict[str, Any], tiny_whisper: Path):
    folder = run("run", **changes)
    refined, final = of_encoder(folder / "1-refine" / "last"), of_encoder(folder)
    assert len(final) == 2 * 2 * 6, "two layers of six projections, two matrices each"
    assert all(bool(tensor.any()) for tensor in final.values())
    for name, tensor in of_encoder(folder / "1-refine").items():
        assert torch.equal(final[name], tensor)
    assert refined.keys() == final.keys()
    model, _, _ = checkpoint.load(folder)
    assert model.encoder.digest == WhisperEncoder(f"path:{tiny_whisper}").digest, "of the weights that LoRA was put on"


def test_cached_frames_are_those_of_the_trained_encoder(run: Run, changes: dict[str, Any], tones: Path, tiny_whisper: Path):
    model, _, _ = checkpoint.load(run("run", **changes))
    row = read_manifest(tones / "train.jsonl")[0]
    own, base = FeatureCache(model.encoder), FeatureCache(WhisperEncoder(f"path:{tiny_whisper}").requires_grad_(False))
    assert own.folder != base.folder
    assert row in own
    assert row not in base
    torch.testing.assert_close(own.get(row), encode(model.encoder, [row]).values[0], rtol=0, atol=2e-2)
    with lora.disabled(model.encoder):
        assert (own.get(row) - encode(model.encoder, [row]).values[0]).abs().max() > 0.05


def test_layers_that_do_nothing_yet_share_the_cache_of_their_base(tiny_whisper: Path):
    fresh, base = (WhisperEncoder(f"path:{tiny_whisper}").requires_grad_(False) for _ in range(2))
    lora.add(fresh, rank=2, targets=["fc1"])
    fresh.requires_grad_(False)
    assert FeatureCache(fresh).folder == FeatureCache(base).folder


def test_a_merged_encoder_is_the_same_function(run: Run, changes: dict[str, Any], tones: Path):
    model, _, _ = checkpoint.load(run("run", **changes))
    rows = read_manifest(tones / "dev.jsonl")[:3]
    before = encode(model.encoder, rows).values
    lora.merge(model)
    torch.testing.assert_close(encode(model.encoder, rows).values, before, rtol=1e-4, atol=1e-5)


def test_two_processes_give_what_one_does(
    start: Callable[..., subprocess.Popen], run: Run, sections: Callable[..., Any], log: Log, changes: Any, tmp_path: Path
):
    """The encoder runs outside the wrapper that shares gradients; they are shared all the same."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    pair = start(sections(**changes), tmp_path / "pair", launcher)
    one = run("one", **changes)
    output = pair.communicate(timeout=600)[0]
    assert pair.returncode == 0, output
    for expected, found in zip(log(one), log(tmp_path / "pair"), strict=True):
        for name in expected.keys() - {"stage", "evaluation"}:
            assert found[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6)
    together = of_encoder(tmp_path / "pair")
    for name, tensor in of_encoder(one).items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-3, atol=1e-4)


def test_targets_that_the_encoder_does_not_have(run: Run, changes: dict[str, Any]):
    with pytest.raises(RecipeError, match=r"no linear layer is called 'query', expected some of .*fc1"):
        run("run", **changes | {"encoder_lora": {"targets": ["query"]}})
