"""What several folders of tests share."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

# The contract checks and small models are imported by tests in several folders, which importmode=importlib would not find.
sys.path.append(str(Path(__file__).parent))
pytest.register_assert_rewrite("contract")

settings.register_profile("stapes", deadline=None)  # how long an example takes says more of the machine than of the code
settings.load_profile("stapes")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def pack() -> Callable[[str], Path]:
    """pack(name): the folder of a pack's weights, or a skip where no network gives them."""
    from stapes import hub
    from stapes.errors import WeightsError

    def get(name: str) -> Path:
        try:
            return hub.resolve(f"pack:{name}", library=None).folder
        except WeightsError as error:
            if "does not answer" in str(error) or "no such package" in str(error):
                pytest.skip(f"cannot be fetched: {error}")
            raise

    return get


@pytest.fixture(scope="session")
def examples() -> Path:
    """The manifest of the five example sentences."""
    path = ROOT / "examples" / "references.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


@pytest.fixture(scope="session")
def tiny_whisper(tiny_encoder: Callable[[str], Path]) -> Path:
    """A folder with a random Whisper of two narrow layers."""
    return tiny_encoder("whisper")


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """tiny_encoder(kind): a folder with a random model of ``tiny.KINDS``."""
    import tiny

    folders: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = tiny.save(kind, tmp_path_factory.mktemp(kind))
        return folders[kind]

    return get


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tone language, learnt in seconds: ``train.jsonl`` and ``dev.jsonl``, a letter being a tone of its own."""
    import numpy as np
    import soundfile

    from stapes.data.manifest import write_manifest
    from stapes.types import Utterance

    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    for part, count in (("train", 16), ("dev", 6)):
        rows = []
        for number in range(count):
            letters = rng.integers(4, size=int(rng.integers(2, 7)))
            sound = [np.zeros(640)]
            for letter in letters:
                sound += [0.3 * np.sin(2 * np.pi * (750 + 1500 * letter) * np.arange(2560) / 16_000), np.zeros(1280)]
            samples = np.concatenate(sound) + 0.003 * rng.standard_normal(sum(map(len, sound)))
            path = folder / f"{part}-{number:02}.wav"
            soundfile.write(path, samples.astype(np.float32), 16_000)
            text = " ".join("abcd"[letter] for letter in letters)
            rows.append(Utterance(path.stem, path, text, len(samples) / 16_000))
        write_manifest(folder / f"{part}.jsonl", rows)
    return folder


@pytest.fixture
def toy_model() -> Callable[..., Any]:
    """toy_model(**sections): a ``SpeechLLM`` of toys with a CTC head and LoRA, the same for the same sections."""
    from stapes.model import SpeechLLM

    def build(**changes: Any) -> SpeechLLM:
        sections = {
            "encoder": {"name": "toy"},
            "adapter": {"name": "stack_mlp", "stride": 3, "hidden_dim": 32},
            "llm": {"name": "toy"},
            "tasks": [{"name": "asr"}],
            "ctc": {"merges": 6, "compress": False},
            "llm_lora": {"rank": 4},
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return SpeechLLM.build(**sections | changes)

    return build


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory, examples: Path) -> Path:
    """The run folder of recipes/toy.yaml, trained on the example sentences; tests copy what they change."""
    from stapes import recipe
    from stapes.training.stages import train

    folder = tmp_path_factory.mktemp("toy-run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAPES_CACHE", str(folder / "cache"))
        return train(recipe.load("toy", [f"data.train={examples}"]), folder / "run", "cpu")


@pytest.fixture(scope="session")
def tone_run(tmp_path_factory: pytest.TempPathFactory, tones: Path) -> Path:
    """The run folder of a model of toys, with CTC head and LoRA, that has learnt the tone language well enough to write it."""
    from stapes import recipe
    from stapes.training.stages import train

    folder = tmp_path_factory.mktemp("tone-run")
    layers = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    resolved = recipe.parse(
        {
            "encoder": {"name": "toy"},
            "adapter": {"name": "stack_mlp", "stride": 3, "hidden_dim": 64},
            "llm": {"name": "toy"},
            "ctc": {"merges": 32},
            "lora": {"rank": 16, "targets": layers},
            "data": {"train": str(tones / "train.jsonl")},
            "train": {"batch_seconds": 60, "learning_rate": 1e-2, "lora_learning_rate": 1e-2, "warmup_steps": 10},
            "stages": [
                {"name": "align", "steps": 30, "losses": {"ctc": 1.0}, "trainable": ["adapter", "ctc"]},
                {"name": "listen", "steps": 40, "losses": {"next_token": 1.0, "ctc": 1.0}},
            ],
            "decoding": {"ctc_weight": 0.5},
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAPES_CACHE", str(folder / "cache"))
        return train(resolved, folder / "run", "cpu")


@pytest.fixture(scope="session")
def labelled_tones(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the tone language with labels: ``train.jsonl`` has them all, ``slue-voxpopuli/dev.jsonl`` and
    ``slue-voxceleb/dev.jsonl`` what their corpora have.

    The first letter is an entity, the translation is said backwards, and the sentiment goes round.
    """
    from dataclasses import replace

    from stapes.data.manifest import read_manifest, write_manifest
    from stapes.types import Entity

    folder = tmp_path_factory.mktemp("labelled-tones")
    sentiments = ("Negative", "Neutral", "Positive")
    for part in ("train", "dev"):
        named, felt, every = [], [], []
        for number, row in enumerate(read_manifest(tones / f"{part}.jsonl")):
            named.append(replace(row, entities=(Entity("PERSON", 0, 1, row.text[0]),)))
            felt.append(replace(row, sentiment=sentiments[number % 3]))
            more = {"raw_text": f"{row.text.upper()}.", "translations": {"fr": row.text[::-1]}}
            every.append(replace(named[-1], sentiment=felt[-1].sentiment, **more))
        write_manifest(folder / f"slue-voxpopuli/{part}.jsonl", named)
        write_manifest(folder / f"slue-voxceleb/{part}.jsonl", felt)
        write_manifest(folder / f"{part}.jsonl", every)
    return folder


@pytest.fixture(scope="session")
def task_run(tmp_path_factory: pytest.TempPathFactory, labelled_tones: Path) -> Path:
    """The run folder of a model of toys with several tasks, which has learnt to write what each of them looks like."""
    from stapes import recipe
    from stapes.training.stages import train

    folder, data = tmp_path_factory.mktemp("task-run"), str(labelled_tones / "train.jsonl")
    tasks = [{"name": "asr"}, {"name": "asr", "style": "written"}, {"name": "ner"}, {"name": "sentiment"}]
    resolved = recipe.parse(
        {
            "encoder": {"name": "toy"},
            "adapter": {"name": "stack_mlp", "stride": 3, "hidden_dim": 64},
            "llm": {"name": "toy"},
            "tasks": [*tasks, {"name": "translation", "to": "fr"}],
            "ctc": {"merges": 32},
            "lora": {"rank": 16, "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]},
            "train": {"batch_seconds": 60, "learning_rate": 1e-2, "lora_learning_rate": 1e-2, "warmup_steps": 10},
            "data": {
                "train": [{"path": data, "task": key} for key in ("asr", "asr.written", "ner", "sentiment", "translation.fr")]
            },
            "stages": [
                {"name": "align", "steps": 20, "losses": {"ctc": 1.0}, "trainable": ["adapter", "ctc"], "mixture": [data]},
                {"name": "listen", "steps": 40, "losses": {"next_token": 1.0, "ctc": 1.0}},
            ],
            "decoding": {"ctc_weight": 0.01, "markup_bonus": 3.0},  # so few steps leave all in doubt
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAPES_CACHE", str(folder / "cache"))
        return train(resolved, folder / "run", "cpu")


@pytest.fixture
def evaluated(tmp_path: Path) -> Callable[..., Path]:
    """evaluated(name, lines, normaliser): a folder as `stapes evaluate` writes it, with these lines of predictions.

    It has every score that some line has a reference for; ``changes`` are other signatures, or None for no such score.
    """
    import json

    def write(name: str, lines: list[dict[str, Any]], normaliser: str = "slue", **changes: str | None) -> Path:
        has = {key for line in lines for key, value in line.items() if value}
        known = {
            "reference": dict.fromkeys(("wer", "wer_sentence_mean", "cer"), f"wer|norm:{normaliser}.v1"),
            "reference_entities": dict.fromkeys(
                ("ner_f1", "ner_f1_combined", "ner_label_f1"), "ner_f1|tags:combined|norm:slue.v1"
            ),
            "reference_sentiment": {"sentiment_f1": "sentiment_f1|avg:macro"},
            "reference_translation": {"bleu": "bleu|tok:13a", "chrf": "chrf2|nrefs:1"},
        }
        signatures = {rate: text for key, found in known.items() if key in has for rate, text in found.items()} | changes
        folder = tmp_path / name
        folder.mkdir()
        (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        signatures = {rate: text for rate, text in signatures.items() if text is not None}
        (folder / "scores.json").write_text(json.dumps({"signatures": signatures}))
        return folder

    return write
