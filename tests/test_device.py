"""Where a model runs and in which precision, and that a lower precision changes little."""

import contract
import pytest
import torch

from stapes.device import place, resolve_device, resolve_dtype, settle
from stapes.errors import RecipeError
from stapes.model import SpeechLLM
from stapes.types import Audio

CPU = torch.device("cpu")


def test_auto_takes_the_best_that_is_there():
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    assert resolve_device("auto").type == ("cuda" if has_cuda else "mps" if has_mps else "cpu")
    assert resolve_device("cpu") == resolve_device(CPU) == CPU


@pytest.mark.parametrize("kind", ["cuda", "mps", "cuda:7", "meta"])
def test_a_device_that_is_not_there(kind: str):
    if (kind == "cuda" and torch.cuda.is_available()) or (kind == "mps" and torch.backends.mps.is_available()):
        pytest.skip(f"this machine has {kind}")
    with pytest.raises(RecipeError, match=f"device: '{kind}' is not there, expected one that this machine has: .*cpu"):
        resolve_device(kind)


def test_a_device_that_is_none():
    with pytest.raises(RecipeError, match=r"device: unknown device 'cud'; did you mean 'cuda'\?"):
        resolve_device("cud")


def test_precisions():
    assert resolve_dtype(None, CPU) == resolve_dtype("auto", CPU) == torch.float32
    assert resolve_dtype("float16", CPU) == resolve_dtype(torch.float16, CPU) == torch.float16
    with pytest.raises(RecipeError, match=r"dtype: unknown dtype 'bfloat'; did you mean 'bfloat16'\?"):
        resolve_dtype("bfloat", CPU)
    with pytest.raises(RecipeError, match=r"unknown dtype 'torch\.int8'"):
        resolve_dtype(torch.int8, CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no cuda on this machine")
def test_a_gpu_computes_in_half_precision():
    assert resolve_dtype("auto", torch.device("cuda")) in (torch.bfloat16, torch.float16)


@pytest.fixture
def build(tiny_whisper):
    def make() -> SpeechLLM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return SpeechLLM.build(
                encoder={"name": "whisper", "weights": f"path:{tiny_whisper}"},
                adapter={"name": "conv1d_transformer", "dim": 32, "heads": 2, "layers": 1, "ffn_dim": 32},
                llm={"name": "toy"},
                tasks=[{"name": "asr"}],
                ctc={"merges": 6, "compress": False},
                llm_lora={"rank": 4},
            )

    return make


def test_what_is_cast_and_what_is_not(build):
    model = build()
    buffers = {name: buffer.dtype for name, buffer in model.named_buffers()}
    place(model, CPU, torch.bfloat16)
    found: dict[str, set[torch.dtype]] = {}
    for name, parameter in model.named_parameters():
        found.setdefault("lora" if ".lora_" in name else name.split(".")[0], set()).add(parameter.dtype)
    cast, whole = {torch.bfloat16}, {torch.float32}
    assert found == {"encoder": cast, "llm": cast, "adapter": whole, "ctc": whole, "lora": whole}
    assert {name: buffer.dtype for name, buffer in model.named_buffers()} == buffers


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_lower_precision_stays_close(build, dtype: torch.dtype):
    whole, cast = contract.awake(build()), contract.awake(build())
    place(cast, CPU, dtype)
    audio = Audio.from_arrays(contract.sounds([0.7, 2.1]))
    answers = [whole.answer("the cat"), whole.answer("and a hat")]
    found = {}
    for name, model in (("whole", whole), ("cast", cast)):
        with torch.inference_mode():
            frames = model.encode(audio)
            speech = model.speech(frames)
            logits, _ = model.logits(speech.embeddings, answers)
        assert frames.values.dtype == speech.embeddings.values.dtype == speech.log_probs.dtype == torch.float32
        found[name] = frames.values, speech.embeddings.values, logits.float()
    for wanted, close in zip(found["whole"], found["cast"], strict=True):
        error = float((wanted - close).norm() / wanted.norm())
        assert 0 < error < 0.03, f"relative error {error:.4f}"


def test_a_gpu_does_without_cudnns_attention(monkeypatch: pytest.MonkeyPatch):
    said: list[bool] = []
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", said.append)
    settle(torch.device("cpu"))
    assert said == []
    settle(torch.device("cuda"))
    assert said == [False]
