import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stapes.errors import WeightsError
from stapes.hub.layout import load_tensors
from stapes.hub.whisper import read_openai, read_whisper_ctranslate2, write_whisper


@pytest.fixture
def checkpoint(tmp_path: Path, toy_weights: tuple[bytes, str]) -> Path:
    path = tmp_path / "toy.pt"
    path.write_bytes(toy_weights[0])
    return path


def test_openai_checkpoint_becomes_a_folder_that_transformers_opens(checkpoint: Path, tmp_path: Path):
    from transformers import AutoConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    tensors = read_openai(checkpoint)
    write_whisper(tmp_path, tensors, {})
    model, report = WhisperForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in tensors.items())
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.d_model, config.encoder_layers, config.encoder_attention_heads, config.dtype) == (64, 1, 1, torch.float16)
    assert config.decoder_start_token_id == 50_258
    assert WhisperFeatureExtractor.from_pretrained(tmp_path).feature_size == 80


def test_ctranslate2_gives_the_tensors_of_openais_checkpoint(checkpoint: Path, tmp_path: Path, model_bin):
    tensors = read_openai(checkpoint)
    path = tmp_path / "model.bin"
    path.write_bytes(model_bin(ctranslate2_variables(tensors)))
    found = read_whisper_ctranslate2(path)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def ctranslate2_variables(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """What CTranslate2's converter makes of a Whisper of one layer."""
    state = {name.removeprefix("model."): tensor.numpy() for name, tensor in tensors.items()}
    variables = {"encoder/num_heads": np.array(1, dtype=np.int16)}

    def norm(to: str, source: str) -> None:
        variables[f"{to}/gamma"], variables[f"{to}/beta"] = state[f"{source}.weight"], state[f"{source}.bias"]

    def linear(to: str, *sources: str) -> None:
        variables[f"{to}/weight"] = np.concatenate([state[f"{source}.weight"] for source in sources])
        biases = [state.get(f"{source}.bias", np.zeros(64, np.float16)) for source in sources]
        variables[f"{to}/bias"] = np.concatenate(biases)

    for layer in ("conv1", "conv2"):
        linear(f"encoder/{layer}", f"encoder.{layer}")
    variables["decoder/embeddings/weight"] = state["decoder.embed_tokens.weight"]
    for side in ("encoder", "decoder"):
        variables[f"{side}/position_encodings/encodings"] = state[f"{side}.embed_positions.weight"]
        norm(f"{side}/layer_norm", f"{side}.layer_norm")
        to, source = f"{side}/layer_0", f"{side}.layers.0"
        norm(f"{to}/ffn/layer_norm", f"{source}.final_layer_norm")
        linear(f"{to}/ffn/linear_0", f"{source}.fc1")
        linear(f"{to}/ffn/linear_1", f"{source}.fc2")
        norm(f"{to}/self_attention/layer_norm", f"{source}.self_attn_layer_norm")
        linear(f"{to}/self_attention/linear_0", *(f"{source}.self_attn.{part}_proj" for part in "qkv"))
        linear(f"{to}/self_attention/linear_1", f"{source}.self_attn.out_proj")
    norm("decoder/layer_0/attention/layer_norm", f"{source}.encoder_attn_layer_norm")
    linear("decoder/layer_0/attention/linear_0", f"{source}.encoder_attn.q_proj")
    linear("decoder/layer_0/attention/linear_1", f"{source}.encoder_attn.k_proj", f"{source}.encoder_attn.v_proj")
    linear("decoder/layer_0/attention/linear_2", f"{source}.encoder_attn.out_proj")
    return variables


def test_another_model_of_ctranslate2_is_refused(tmp_path: Path, model_bin):
    path = tmp_path / "model.bin"
    path.write_bytes(model_bin({}, "TransformerSpec"))
    with pytest.raises(WeightsError, match="a TransformerSpec, expected a WhisperSpec"):
        read_whisper_ctranslate2(path)


def test_a_lost_or_misshapen_tensor_is_named(checkpoint: Path, tmp_path: Path):
    tensors = read_openai(checkpoint)
    name = "model.encoder.layers.0.fc2.bias"
    with pytest.raises(WeightsError, match=f"1 tensors do not fit, the first {name} is missing"):
        write_whisper(tmp_path, {key: tensor for key, tensor in tensors.items() if key != name}, {})
    with pytest.raises(WeightsError, match=r"\(65,\), expected \(64,\)"):
        write_whisper(tmp_path, {**tensors, name: torch.zeros(65)}, {})
    with pytest.raises(WeightsError, match="all tensors of a Whisper model"):
        write_whisper(tmp_path, {"x": torch.zeros(1)}, {})


def test_english_special_ids_and_generation_settings(checkpoint: Path, tmp_path: Path):
    tensors = read_openai(checkpoint)
    embedding = tensors["model.decoder.embed_tokens.weight"][:-1]
    settings = {"suppress_ids": [1, 2], "suppress_ids_begin": [220], "alignment_heads": [[0, 0]]}
    extras = {"settings": json.dumps(settings).encode()}
    write_whisper(tmp_path, {**tensors, "model.decoder.embed_tokens.weight": embedding}, extras)
    written = json.loads((tmp_path / "generation_config.json").read_text())
    assert written["decoder_start_token_id"] == 50_257
    assert not written["is_multilingual"]
    assert written["suppress_tokens"] == [1, 2]
    assert load_tensors(tmp_path)["model.decoder.embed_tokens.weight"].shape == (51_864, 64)


class Trap:
    """Runs a function when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(form: str, tmp_path: Path):
    path, sprung = tmp_path / "evil.pt", tmp_path / "sprung"
    value = {"model_state_dict": {"weight": torch.zeros(1)}, "dims": Trap(sprung.mkdir)}
    if form == "torch":
        torch.save(value, path)
        torch.load(path, weights_only=False)
        assert sprung.exists(), "the trap must work where it is not guarded against"
        sprung.rmdir()
    else:
        path.write_bytes(pickle.dumps(value["dims"]))
    with pytest.raises(WeightsError, match="not a torch file of tensors alone"):
        read_openai(path)
    assert not sprung.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_damaged_checkpoints_are_one_clear_error(content: bytes, tmp_path: Path):
    path = tmp_path / "damaged.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="expected an OpenAI Whisper checkpoint"):
        read_openai(path)
