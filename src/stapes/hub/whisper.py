"""Whisper as others store it -> transformers' ``WhisperForConditionalGeneration`` folder, float16, tensor for tensor.

Two layouts are read: OpenAI's own checkpoint (``dims`` and ``model_state_dict`` in a torch file) and CTranslate2's
``model.bin``. Both hold float16 values, which are copied and never computed with: the two give identical tensors.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stapes.errors import WeightsError
from stapes.hub.ctranslate2 import read_ctranslate2
from stapes.hub.layout import check_fits, save_json, save_tensors

_OPENAI_NAMES = (
    (r"\.blocks\.", ".layers."),
    (r"\.cross_attn_ln\.", ".encoder_attn_layer_norm."),
    (r"\.cross_attn\.", ".encoder_attn."),
    (r"\.attn_ln\.", ".self_attn_layer_norm."),
    (r"\.attn\.", ".self_attn."),
    (r"\.mlp_ln\.", ".final_layer_norm."),
    (r"\.mlp\.0\.", ".fc1."),
    (r"\.mlp\.2\.", ".fc2."),
    (r"\.query\.", ".q_proj."),
    (r"\.key\.", ".k_proj."),
    (r"\.value\.", ".v_proj."),
    (r"_attn\.out\.", "_attn.out_proj."),
    (r"^(encoder|decoder)\.(ln_post|ln)\.", r"\1.layer_norm."),
    (r"\.positional_embedding$", ".embed_positions.weight"),
    (r"\.token_embedding\.", ".embed_tokens."),
)

# The block of CTranslate2 -> transformers' attention and LayerNorm, and what each of its linear layers stacks by rows.
_CTRANSLATE2_BLOCKS = {
    "self_attention": ("self_attn", "self_attn_layer_norm", (("q_proj", "k_proj", "v_proj"), ("out_proj",))),
    "attention": ("encoder_attn", "encoder_attn_layer_norm", (("q_proj",), ("k_proj", "v_proj"), ("out_proj",))),
    "ffn": ("", "final_layer_norm", (("fc1",), ("fc2",))),
}
_CTRANSLATE2_PLACES = {
    "embeddings/weight": "embed_tokens.weight",
    "position_encodings/encodings": "embed_positions.weight",
    "layer_norm/gamma": "layer_norm.weight",
    "layer_norm/beta": "layer_norm.bias",
}


def read_openai(path: Path) -> dict[str, Tensor]:
    """Read OpenAI's checkpoint under transformers' names; nothing but tensors and plain values is unpickled.

    Raises:
        WeightsError: the file is damaged, holds anything else, or is another model.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(path, "not a torch file of tensors alone", "an OpenAI Whisper checkpoint") from error
    state = stored.get("model_state_dict") if isinstance(stored, dict) else None
    if not isinstance(state, dict):
        raise WeightsError(path, "no model_state_dict", "an OpenAI Whisper checkpoint")
    return {f"model.{_from_openai(name)}": tensor for name, tensor in state.items()}


def _from_openai(name: str) -> str:
    for pattern, replacement in _OPENAI_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def read_whisper_ctranslate2(path: Path) -> dict[str, Tensor]:
    """Read CTranslate2's Whisper under transformers' names, stacked projections split.

    Raises:
        WeightsError: the file is damaged or holds another model.
    """
    specification, variables = read_ctranslate2(path)
    if specification != "WhisperSpec":
        raise WeightsError(path, f"a {specification}", "a WhisperSpec")
    tensors: dict[str, Tensor] = {}
    for name, variable in variables.items():
        side, _, rest = name.partition("/")
        tensors.update({f"model.{side}.{key}": tensor for key, tensor in _from_ctranslate2(rest, variable)})
    return tensors


def _from_ctranslate2(name: str, variable: Tensor) -> Iterable[tuple[str, Tensor]]:
    """The tensors that one variable of the encoder or decoder holds; none where it is an option of the file."""
    if name in _CTRANSLATE2_PLACES:
        return [(_CTRANSLATE2_PLACES[name], variable)]
    if match := re.fullmatch(r"(conv[12])/(weight|bias)", name):
        return [(f"{match[1]}.{match[2]}", variable)]
    match = re.fullmatch(r"layer_(\d+)/(self_attention|attention|ffn)/(layer_norm|linear_(\d))/(\w+)", name)
    if match is None:
        return []
    attention, layer_norm, linears = _CTRANSLATE2_BLOCKS[match[2]]
    layer, kind = f"layers.{match[1]}", {"gamma": "weight", "beta": "bias"}.get(match[5], match[5])
    if match[3] == "layer_norm":
        return [(f"{layer}.{layer_norm}.{kind}", variable)]
    prefix = f"{layer}.{attention}." if attention else f"{layer}."
    stacked = linears[int(match[4])]
    # Whisper's key projection has no bias: the file keeps zeros in its place.
    return [
        (f"{prefix}{part}.{kind}", rows.contiguous())
        for part, rows in zip(stacked, variable.chunk(len(stacked)), strict=True)
        if not (part == "k_proj" and kind == "bias")
    ]


def write_whisper(folder: Path, tensors: Mapping[str, Tensor], extras: Mapping[str, bytes]) -> None:
    """Write a Whisper folder that transformers opens.

    Args:
        folder: where to write.
        tensors: transformers' names -> float16 tensors.
        extras: what the package has beside the weights: "tokenizer" (tokenizer.json), "settings" (CTranslate2's config.json,
            for the tokens that generation suppresses). Without a tokenizer the folder serves as an encoder.

    Raises:
        WeightsError: the tensors are not those of a Whisper model.
    """
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    try:
        sizes = _sizes(tensors)
    except KeyError as error:
        raise WeightsError(folder.name, f"tensor {error} is missing", "all tensors of a Whisper model") from error
    config = WhisperConfig(**sizes, **_special_ids(sizes["vocab_size"]), architectures=["WhisperForConditionalGeneration"])
    config.dtype = torch.float16
    check_fits(folder.name, WhisperForConditionalGeneration, config, tensors)
    save_tensors(folder, tensors)
    config.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=sizes["num_mel_bins"]).save_pretrained(folder)
    vocabulary = _write_tokenizer(folder, extras["tokenizer"]) if "tokenizer" in extras else {}
    settings = json.loads(extras["settings"]) if "settings" in extras else {}
    save_json(folder / "generation_config.json", _generation(sizes["vocab_size"], vocabulary, settings))


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The sizes of ``WhisperConfig``; every Whisper has heads of 64."""
    vocab_size, dim = tensors["model.decoder.embed_tokens.weight"].shape

    def layers(side: str) -> int:
        return len({name.split(".")[3] for name in tensors if name.startswith(f"model.{side}.layers.")})

    return {
        "vocab_size": vocab_size,
        "d_model": dim,
        "num_mel_bins": tensors["model.encoder.conv1.weight"].shape[1],
        "encoder_layers": layers("encoder"),
        "decoder_layers": layers("decoder"),
        "encoder_attention_heads": dim // 64,
        "decoder_attention_heads": dim // 64,
        "encoder_ffn_dim": tensors["model.encoder.layers.0.fc1.weight"].shape[0],
        "decoder_ffn_dim": tensors["model.decoder.layers.0.fc1.weight"].shape[0],
        "max_source_positions": tensors["model.encoder.embed_positions.weight"].shape[0],
        "max_target_positions": tensors["model.decoder.embed_positions.weight"].shape[0],
    }


def _special_ids(vocab_size: int) -> dict[str, int]:
    """The ids of the special tokens, one less where the vocabulary is the English one (51,864)."""
    end = 50_256 if vocab_size == 51_864 else 50_257
    return {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": end + 1}


def _write_tokenizer(folder: Path, tokenizer: bytes) -> dict[str, int]:
    """Write the tokenizer's two files; returns its special tokens with their ids."""
    (folder / "tokenizer.json").write_bytes(tokenizer)
    end = "<|endoftext|>"
    names = {f"{kind}_token": end for kind in ("bos", "eos", "pad", "unk")}
    save_json(folder / "tokenizer_config.json", {"tokenizer_class": "WhisperTokenizer", "model_max_length": 1024, **names})
    return {token["content"]: token["id"] for token in json.loads(tokenizer)["added_tokens"]}


def _generation(vocab_size: int, vocabulary: Mapping[str, int], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What ``generate`` has to know: special ids, languages and tasks, and the tokens that are never said."""
    found: dict[str, Any] = {**_special_ids(vocab_size), "max_length": 448, "is_multilingual": vocab_size != 51_864}
    if "<|notimestamps|>" in vocabulary:
        found["no_timestamps_token_id"] = vocabulary["<|notimestamps|>"]
        found["prev_sot_token_id"] = vocabulary["<|startofprev|>"]
    if vocabulary and found["is_multilingual"]:
        found["task_to_id"] = {task: vocabulary[f"<|{task}|>"] for task in ("transcribe", "translate")}
        languages = range(vocabulary["<|startoftranscript|>"] + 1, min(found["task_to_id"].values()))
        found["lang_to_id"] = {token: number for token, number in vocabulary.items() if number in languages}
    if settings:
        found["suppress_tokens"] = settings["suppress_ids"]
        found["begin_suppress_tokens"] = settings["suppress_ids_begin"]
        found["alignment_heads"] = settings["alignment_heads"]
    return found
