"""One folder that needs nothing else: the same text wherever it lies, and an LLM that other tools open."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, WhisperModel

import stapes
from stapes import checkpoint, lora, recipe
from stapes.data.manifest import read_manifest
from stapes.errors import CheckpointError
from stapes.export import export
from stapes.training.stages import train


def texts(model: str | Path, manifest: Path) -> list[str]:
    sounds: list[Any] = [row.audio for row in read_manifest(manifest)]
    return [found.text for found in stapes.load(model, device="cpu").transcribe(sounds)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tones: Path, tiny_whisper: Path) -> Callable[..., Path]:
    """trained(parts, encoder): a run of these parts of a small encoder (Whisper) and a toy LLM, both of which have LoRA."""

    def make(parts: list[str], encoder: dict[str, str] | None = None, steps: int = 3) -> Path:
        folder = tmp_path_factory.mktemp("trained")
        resolved = recipe.parse(
            {
                "encoder": encoder or {"name": "whisper", "weights": f"path:{tiny_whisper}"},
                "adapter": {"name": "stack_mlp", "stride": 5, "hidden_dim": 32},
                "llm": {"name": "toy"},
                "ctc": {"merges": 32},
                "lora": {"rank": 4},
                "encoder_lora": {"rank": 4},
                "data": {"train": str(tones / "train.jsonl")},
                "train": {"steps": steps, "batch_seconds": 60, "trainable": ["adapter", "ctc", *parts], "cache": False}
                | {"losses": {"next_token": 1.0, "ctc": 1.0}, "warmup_steps": 1}
                | {"learning_rate": 1e-2, "lora_learning_rate": 1e-2, "full_learning_rate": 1e-2},
            }
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STAPES_CACHE", str(folder / "cache"))
            return train(resolved, folder / "run", "cpu")

    return make


def frames_and_logits(folder: Path, manifest: Path) -> tuple[torch.Tensor, torch.Tensor]:
    from stapes.data.cache import encode

    model, _, _ = checkpoint.load(folder)
    row = read_manifest(manifest)[0]
    with torch.no_grad():
        frames = encode(model.encoder, [row])
        speech = model.speech(frames)
        return speech.log_probs, model.logits(speech.embeddings, [model.answer(row.text)])[0]


@pytest.mark.parametrize("merge", [True, False])
def test_a_model_that_writes_what_is_said_still_does(tone_run: Path, tones: Path, tmp_path: Path, merge: bool):
    wanted = texts(tone_run, tones / "dev.jsonl")
    assert len(set(wanted)) > 3
    folder = export(tone_run, tmp_path / "new" / "out", merge=merge)
    moved = shutil.move(folder, tmp_path / "moved")
    assert texts(moved, tones / "dev.jsonl") == wanted
    saved = load_file(Path(moved) / "model.safetensors")
    assert any(lora.MARK in name for name in saved) != merge
    assert [path.name for path in (tmp_path / "new").iterdir()] == []


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("parts", [["llm.lora", "encoder.lora"], ["llm", "encoder", "llm.lora"]], ids=["LoRA", "full"])
def test_it_computes_the_same(trained: Callable[[list[str]], Path], parts: list[str], merge: bool, tones: Path, tmp_path: Path):
    """Tables of an LLM that was trained included: the CTC head still listens for what it was aligned to."""
    run = trained(parts)
    wanted = frames_and_logits(run, tones / "dev.jsonl")
    folder = export(run, tmp_path / "out", merge=merge)
    shutil.rmtree(run)
    found = frames_and_logits(folder, tones / "dev.jsonl")
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if merge else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(found, wanted, **tolerance)
    saved = load_file(folder / "model.safetensors")
    assert ("ctc.table" in saved) == ("llm" in parts)
    assert not any(name.startswith(("llm.", "encoder.")) and lora.MARK not in name for name in saved)


@pytest.mark.parametrize(("kind", "merge"), [("wav2vec2-base", True), ("hubert-large", False)])
def test_a_model_that_hears_with_another_encoder(
    trained: Callable[..., Path], tiny_encoder: Callable[[str], Path], tones: Path, tmp_path: Path, kind: str, merge: bool
):
    """LoRA on one whose layers are mixed: the same text when the folder that it came from is gone."""
    weights = shutil.copytree(tiny_encoder(kind), tmp_path / "weights")
    encoder = {"name": "ssl", "weights": f"path:{weights}", "layer": "weighted"}
    run = trained(["llm", "encoder.lora", "encoder.layers"], encoder, steps=40)
    wanted, computed = texts(run, tones / "dev.jsonl"), frames_and_logits(run, tones / "dev.jsonl")
    assert len(set(wanted)) > 1
    folder = export(run, tmp_path / "out", merge=merge)
    shutil.rmtree(run)
    shutil.rmtree(weights)
    assert texts(folder, tones / "dev.jsonl") == wanted
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if merge else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(frames_and_logits(folder, tones / "dev.jsonl"), computed, **tolerance)


def test_other_tools_open_what_is_in_it(trained: Callable[[list[str]], Path], tones: Path, tmp_path: Path):
    run = trained(["llm.lora", "encoder.lora"])
    model, _, _ = checkpoint.load(run)
    lora.merge(model)
    folder = export(run, tmp_path / "out")
    llm, tokenizer = (kind.from_pretrained(folder / "llm") for kind in (AutoModelForCausalLM, AutoTokenizer))
    ids = tokenizer("the cat", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(llm(ids).logits, model.llm.model(ids).logits, rtol=1e-5, atol=1e-5)
    assert tokenizer.chat_template == model.llm.tokenizer.chat_template
    assert GenerationConfig.from_pretrained(folder / "llm").eos_token_id == model.llm.end_ids
    whisper = WhisperModel.from_pretrained(folder / "encoder").get_encoder().state_dict()
    lora.remove(model.encoder)
    for name, tensor in model.encoder.encoder.state_dict().items():
        assert torch.equal(whisper[name], tensor), name
    assert json.loads((folder / "llm/config.json").read_text())["dtype"] == "float32"


def test_in_half_precision(tone_run: Path, tmp_path: Path):
    folder = export(tone_run, tmp_path / "out", dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in load_file(folder / "llm/model.safetensors").values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float32}
    model, _, _ = checkpoint.load(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_one_can_go_on_from_it(tone_run: Path, tones: Path, tmp_path: Path):
    folder = export(tone_run, tmp_path / "out")
    child = recipe.parse({"init": str(folder), "data": {"train": str(tones / "train.jsonl")}, "train": {"steps": 1}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAPES_CACHE", str(tmp_path / "cache"))
        run = train(child, tmp_path / "run", "cpu")
    assert checkpoint.load(run)[0].llm.source == f"path:{folder.resolve()}/llm"


def test_a_folder_that_is_there_is_left_alone(tone_run: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="out: is there already, expected a new folder; choose another, or remove it"):
        export(tone_run, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_llm_in_few_bits_is_refused(tone_run: Path, tmp_path: Path):
    run = shutil.copytree(tone_run, tmp_path / "run")
    description = json.loads((run / "stapes.json").read_text())
    description["recipe"]["llm"] = {"name": "causal", "weights": ["path:nowhere"], "quantize": "4bit"}
    (run / "stapes.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=r"llm.quantize: 4bit, expected an LLM in full precision"):
        export(run, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_cannot_be_finished_leaves_nothing(tone_run: Path, tmp_path: Path):
    """A disk without room, which a limit on the size of a file stands for."""
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"out: cannot be written .*, expected a disk with room for it") as caught:
            export(tone_run, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.weights
@pytest.mark.parametrize("merge", [True, False])
def test_the_shipped_model(pack: Callable[[str], Path], examples: Path, tmp_path: Path, merge: bool):
    for name in ("whisper-base", "smollm2-135m-instruct"):
        pack(name)
    folder = export("stapes-base", tmp_path / "out", merge=merge)
    assert texts(folder, examples) == texts("stapes-base", examples)
