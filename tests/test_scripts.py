"""The scripts in examples/ and benchmarks/ run, on a model that needs no pretrained weights, and print what they promise.

Of ``benchmarks/zoo.py``, which trains for hours, what it makes of its results is held against numbers found by hand.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

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


def test_resampling_is_timed_beside_scipy(script: Callable[..., str]):
    found = json.loads(script("benchmarks/resample.py", "--seconds", 1, "--sounds", 2, "--json"))
    assert found["ratio"] > 0 and set(found["rates"]) >= {"48 kHz", "speed 0.9"}
    assert all(rate["apart"] < 1e-4 for rate in found["rates"].values())


def test_made_up_utterances_are_as_long_as_real_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import speech

    rows = speech.utterances(24, tmp_path)
    assert [row.duration for row in read_manifest(tmp_path / "utterances.jsonl")] == [row.duration for row in rows]
    assert sum(row.duration for row in rows) / 24 == pytest.approx(10.2, abs=0.5)
    assert 1.0 <= min(row.duration for row in rows) < 3.0 and 25.0 < max(row.duration for row in rows) <= 29.9
    assert sum(len(row.text.split()) / row.duration for row in rows) / 24 == pytest.approx(2.8, abs=0.5)


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("zoo")


def test_a_line_of_the_zoo_has_losses_a_token_and_their_intervals(zoo: ModuleType):
    """Of two utterances, (1, 2), (1, 1) and (2, 2) are drawn with probabilities 1/2, 1/4 and 1/4: the ends are either's own."""
    found = {"encoder": "small", "adapter": "linear", "seed": 3, "parameters": 1234, "embeddings_per_second": 12.5}
    found |= {"tokens": [2, 3], "right": [2.0, 9.0], "other": [3.0, 10.5], "silence": [5.0, 10.0]}
    found |= {"aligned_right": 0.125, "aligned_other": 0.5, "seconds": 7}
    head, rule, line = zoo.table([found])
    assert head.count("|") == rule.count("|") == line.count("|")
    sizes, losses = "small | linear | 3 | 1,234 | 12.5", "2.20 (1.00 to 3.00) | 0.500 (0.500 to 0.500) | 0.800 (0.333 to 1.500)"
    assert line == f"| {sizes} | {losses} | 0.125, 0.500 | 7 |"


def test_effects_in_the_zoo_are_distances_from_the_mean_of_all(zoo: ModuleType):
    """Two encoders 1 apart, three adapters whose distances depend on the seed: over seeds, the ends are either seed's own."""
    adapters = {"conv": (-0.4, -0.2), "linear": (0.1, 0.1), "transformer": (0.3, 0.1)}
    tokens = [2, 6]
    runs = [
        {
            "encoder": encoder,
            "adapter": adapter,
            "seed": seed,
            "tokens": tokens,
            "right": [(3.0 + far + distances[seed] + 0.7 * seed) * count for count in tokens],
        }
        for encoder, far in (("base", -0.5), ("tiny", 0.5))
        for adapter, distances in adapters.items()
        for seed in (0, 1)
    ]
    wanted = [
        "| encoder | base | -0.500 (-0.500 to -0.500) |",
        "| encoder | tiny | +0.500 (+0.500 to +0.500) |",
        "| adapter | conv | -0.300 (-0.400 to -0.200) |",
        "| adapter | linear | +0.100 (+0.100 to +0.100) |",
        "| adapter | transformer | +0.200 (+0.100 to +0.300) |",
    ]
    assert zoo.effects(runs)[2:] == wanted
    assert zoo.effects(runs[::-1])[2:] == wanted
    assert zoo.effects(runs[1:]) == [], "not every pair"
    assert zoo.effects(runs[:6]) == [], "one encoder"


def test_effects_in_the_zoo_weigh_tokens_and_draw_utterances(zoo: ModuleType):
    """The second encoder is worse in the second utterance only, by 4 nats in 6 tokens: half of 4/8, from 0 to half of 4/6."""
    runs = [
        {"encoder": encoder, "adapter": "linear", "seed": 0, "tokens": [2, 6], "right": right}
        for encoder, right in (("base", [2.0, 6.0]), ("tiny", [2.0, 10.0]))
    ]
    assert zoo.effects(runs)[2:4] == [
        "| encoder | base | -0.250 (-0.333 to +0.000) |",
        "| encoder | tiny | +0.250 (+0.000 to +0.333) |",
    ]


def test_the_page_has_the_numbers_of_the_zoo(zoo: ModuleType):
    """Every run of ``zoo.jsonl``: its row, where it is one of the first table; else its loss; and the effects, to the digit."""
    page = (ROOT / "docs/results.md").read_text()
    found = [json.loads(line) for line in (ROOT / "benchmarks/zoo.jsonl").read_text().splitlines()]
    first = [each for each in found if (each["encoder"], each["seed"]) == ("pack:whisper-base", 0)]
    for line in zoo.table(first)[2:]:
        _, adapter, _, *numbers = line.strip("| ").split(" | ")
        assert f"\n| {' | '.join([adapter, *numbers])} |\n" in page
    crossed = ("stack_mlp", "conv1d_mlp", "pool_linear")
    for encoder, named in (("pack:whisper-base", "Whisper base"), ("pack:whisper-tiny.en", "Whisper tiny.en")):
        runs = {(each["adapter"], each["seed"]): zoo.per_token(each, "right") for each in found if each["encoder"] == encoder}
        cells = [", ".join(f"{runs[adapter, seed]:.2f}" for seed in (0, 1)) for adapter in crossed]
        assert f"\n| {named} | {' | '.join(cells)} |\n" in page
    for line in zoo.effects([each for each in found if each["adapter"] in crossed])[2:]:
        assert f" | {line.rpartition(' | ')[2]}\n" in page


@pytest.mark.weights
def test_whispers_own_decoder_reads_the_examples(script: Callable[..., str], pack: Callable[[str], Path], examples: Path):
    found = json.loads(
        script("benchmarks/whisper_decoder.py", "--weights", f"path:{pack('whisper-base')}", "--data", examples, "--json")
    )
    assert found["utterances"] == 5 and found["wer"] < 5.0
