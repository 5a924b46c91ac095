"""The scripts in examples/ and benchmarks/ run, on a model that needs no pretrained weights, and print what they promise."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stapes import recipe
from stapes.data.manifest import read_manifest

ROOT = Path(__file__).parents[1]
RECIPE = """
encoder: {{name: whisper, weights: "path:{whisper}"}}
adapter: {{name: conv1d_transformer, dim: 16, heads: 2, ffn_dim: 16, layers: 1}}
llm: {{name: toy}}
ctc: {{merges: 6, compress: true}}
lora: {{rank: 2}}
data: {{train: "{examples}", masking: {{from_epoch: 1}}}}
train: {{precision: bf16}}
stages:
  - {{name: align, steps: 1, trainable: [adapter, ctc], losses: {{ctc: 1.0}}}}
  - {{name: listen, steps: 1, losses: {{next_token: 1.0, ctc: 0.3}}}}
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory, tiny_whisper: Path, examples: Path) -> Callable[..., str]:
    """script(path, arguments...): its standard output; "MODEL" among the arguments is a small trained model."""
    from stapes.training.stages import train

    folder = tmp_path_factory.mktemp("scripts")
    (folder / "recipe.yaml").write_text(RECIPE.format(whisper=tiny_whisper, examples=examples))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAPES_CACHE", str(folder / "cache"))
        train(recipe.load(folder / "recipe.yaml"), folder / "run", "cpu")

    def run(path: str, *arguments: object) -> str:
        words = [str(folder / "run") if argument == "MODEL" else str(argument) for argument in arguments]
        settings = os.environ | {"STAPES_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        result = subprocess.run(
            [sys.executable, ROOT / path, *words], capture_output=True, text=True, env=settings, cwd=folder, check=False
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def test_the_example_shows_what_was_said_and_heard(script: Callable[..., str], examples: Path):
    lines = script("examples/transcribe.py", "MODEL").splitlines()
    assert [line.removeprefix("  said   ") for line in lines if line.startswith("  said")] == [
        found.text for found in read_manifest(examples)
    ]
    assert sum(line.startswith("  heard") for line in lines) == 5
    assert lines[-1].startswith("WER ") and lines[-1].endswith(" in 70 words")


def test_speed_of_training_is_a_ratio(script: Callable[..., str], examples: Path):
    found = json.loads(script("benchmarks/train_epoch.py", "--model", "MODEL", "--utterances", 4, "--json"))
    assert list(found)[-2:] == ["ratio_with_cache_fill_over_5_epochs", "ratio"]
    ours, naive, fill = (found[f"{name}_seconds"] for name in ("our_epoch", "naive_epoch", "our_cache_fill"))
    assert found["ratio"] == pytest.approx(naive / ours, rel=0.2)
    assert found["ratio_with_cache_fill_over_5_epochs"] == pytest.approx(5 * naive / (fill + 5 * ours), rel=0.2)
    assert found["precision"] == "bf16"
    told = json.loads(script("benchmarks/train_epoch.py", "--model", "MODEL", "--data", examples, "--compressed", "--json"))
    assert (told["utterances"], told["seconds_of_speech"], told["naive_compressed"]) == (5, 24.7, True)


def test_speed_of_transcription_is_the_slower_of_two(script: Callable[..., str]):
    found = json.loads(script("benchmarks/transcribe.py", "--model", "MODEL", "--utterances", 3, "--json"))
    assert list(found)[-1] == "ratio"
    slower = {
        name: min(found[name][f"{kind}_times_real_time"] for kind in ("single", "batch")) for name in ("float32", "bfloat16")
    }
    assert found["ratio"] == slower[found["ratio_dtype"]] == max(slower.values())
    assert found["float32"]["single_times_real_time"] == pytest.approx(10 / found["float32"]["single_seconds"], rel=0.1)


def test_made_up_utterances_are_as_long_as_real_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import speech

    rows = speech.utterances(24, tmp_path)
    assert [row.duration for row in read_manifest(tmp_path / "utterances.jsonl")] == [row.duration for row in rows]
    assert sum(row.duration for row in rows) / 24 == pytest.approx(10.2, abs=0.5)
    assert 1.0 <= min(row.duration for row in rows) < 3.0 and 25.0 < max(row.duration for row in rows) <= 29.9
    assert sum(len(row.text.split()) / row.duration for row in rows) / 24 == pytest.approx(2.8, abs=0.5)


@pytest.mark.weights
def test_whispers_own_decoder_reads_the_examples(script: Callable[..., str], pack: Callable[[str], Path], examples: Path):
    found = json.loads(
        script("benchmarks/whisper_decoder.py", "--weights", f"path:{pack('whisper-base')}", "--data", examples, "--json")
    )
    assert found["utterances"] == 5 and found["wer"] < 5.0
