"""A Llama in llama.cpp's GGUF, quantised -> transformers' ``LlamaForCausalLM`` folder with the dequantised float32 values.

The values are those that llama.cpp's own formulas give (``gguf.dequantize``): a block's scale times an integer, plus its
minimum. They need more than float16's 11 bits, so they are stored as float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stapes.errors import WeightsError
from stapes.hub.layout import check_fits, save_json, save_tensors

_PLACES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def write_llama(folder: Path, path: Path) -> None:
    """Write a Llama folder, tokenizer and chat template included, that transformers opens.

    Args:
        folder: where to write.
        path: the GGUF file.

    Raises:
        WeightsError: the file is damaged or holds another model.
    """
    from gguf import GGUFReader
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    try:
        reader = GGUFReader(path)
        facts = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("tokenizer.ggml.t")}
        architecture = facts["general.architecture"]
    except (ValueError, KeyError, IndexError) as error:
        raise WeightsError(path, "not a whole GGUF file", "a Llama in GGUF") from error
    if architecture != "llama":
        raise WeightsError(path, f"architecture {architecture}", "a Llama in GGUF")
    tensors = _tensors(reader, facts)
    config = LlamaConfig(**_config(facts, tensors))
    config.dtype = torch.float32
    check_fits(folder.name, LlamaForCausalLM, config, tensors)
    save_tensors(folder, tensors)
    config.save_pretrained(folder)
    ids = {f"{kind}_token_id": getattr(config, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    save_json(folder / "generation_config.json", ids)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(path, "no tokenizer that can be read", "one in the GGUF file") from error
    tokenizer.save_pretrained(folder)


def _tensors(reader: Any, facts: dict[str, Any]) -> dict[str, Tensor]:
    """Transformers' names -> float32 tensors."""
    from gguf import dequantize

    heads = {
        "attn_q": facts["llama.attention.head_count"],
        "attn_k": facts["llama.attention.head_count_kv"],
    }
    tensors = {}
    for stored in reader.tensors:
        *block, place, kind = stored.name.split(".")
        if place not in _PLACES:
            raise WeightsError(stored.name, "unknown tensor", "one of a Llama")
        values = dequantize(stored.data, stored.tensor_type).reshape(stored.shape[::-1].tolist())
        if place in heads:
            values = _unpermute(values, heads[place])
        prefix = f"model.layers.{block[1]}." if block else ""
        tensors[f"{prefix}{_PLACES[place]}.{kind}"] = torch.from_numpy(np.array(values, dtype=np.float32, order="C"))
    return tensors


def _unpermute(values: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's order of rows for rotary embeddings: pairs beside each other -> first halves, then second halves."""
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _config(facts: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The arguments of ``LlamaConfig``."""
    vocab_size, dim = tensors["model.embed_tokens.weight"].shape
    epsilon = np.float32(facts["llama.attention.layer_norm_rms_epsilon"])
    return {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocab_size,
        "hidden_size": dim,
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": facts["llama.attention.head_count"],
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "max_position_embeddings": facts["llama.context_length"],
        "rms_norm_eps": float(str(epsilon)),  # the shortest decimal: 1e-05, as the author wrote it
        "rope_parameters": {"rope_type": "default", "rope_theta": float(facts["llama.rope.freq_base"])},
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
        "tie_word_embeddings": "lm_head.weight" not in tensors,
    }
