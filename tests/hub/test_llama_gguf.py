from pathlib import Path

import numpy as np
import pytest
import torch

from stapes.errors import WeightsError
from stapes.hub.llama_gguf import write_llama

HEADS, KV_HEADS, DIM = 4, 2, 32
TOKENS = ["<unk>", "<s>", "</s>", "a", "b", "ab", "\u0120", "c"]
PLACES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def toy_llama(tied: bool):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=DIM,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).eval()


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order: within a head, row i of the first half, then row i of the second."""
    order = []
    size = weight.shape[0] // heads
    for head in range(heads):
        for row in range(size // 2):
            order += [head * size + row, head * size + size // 2 + row]
    return np.ascontiguousarray(weight[order])


def write_gguf(path: Path, model, architecture: str = "llama", quantised: str = "") -> None:
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(DIM)
    writer.add_feed_forward_length(48)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(5000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3, 1, 1, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    for name, values in tensors_of(model).items():
        if name == quantised:
            kind = gguf.GGMLQuantizationType.Q4_1
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors_of(model) -> dict[str, np.ndarray]:
    """The model's weights under llama.cpp's names and in its order of rows."""
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    tensors = {"token_embd.weight": state["model.embed_tokens.weight"], "output_norm.weight": state["model.norm.weight"]}
    if not model.config.tie_word_embeddings:
        tensors["output.weight"] = state["lm_head.weight"]
    for layer in range(2):
        for place, name in PLACES.items():
            values = state[f"model.layers.{layer}.{place}.weight"]
            heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(name)
            tensors[f"blk.{layer}.{name}.weight"] = permuted(values, heads) if heads else values
    return tensors


@pytest.mark.parametrize("tied", [True, False])
def test_the_folder_computes_what_the_model_computed(tied: bool, tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = toy_llama(tied)
    write_gguf(tmp_path / "toy.gguf", model)
    folder = tmp_path / "folder"
    folder.mkdir()
    write_llama(folder, tmp_path / "toy.gguf")
    found = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[3, 4, 5, 7, 3]])
    with torch.no_grad():
        assert torch.equal(found(ids).logits, model(ids).logits)
    assert found.config.rms_norm_eps == 1e-5
    assert found.generation_config.eos_token_id == 2
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("abc").input_ids == [5, 7]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "</s>")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False) == "ab"


def test_quantised_blocks_are_scale_times_integer_plus_minimum(tmp_path: Path):
    import gguf

    from stapes.hub.layout import load_tensors

    model, name = toy_llama(True), "blk.0.ffn_up.weight"
    write_gguf(tmp_path / "toy.gguf", model, quantised=name)
    folder = tmp_path / "folder"
    folder.mkdir()
    write_llama(folder, tmp_path / "toy.gguf")
    block = gguf.quantize(tensors_of(model)[name], gguf.GGMLQuantizationType.Q4_1)[0]
    scale, minimum = (np.float32(value) for value in block[:4].view(np.float16))
    packed = block[4:]
    by_hand = np.concatenate([packed & 15, packed >> 4]).astype(np.float32) * scale + minimum
    np.testing.assert_array_equal(load_tensors(folder)["model.layers.0.mlp.up_proj.weight"][0].numpy(), by_hand)


def test_other_models_and_damaged_files_are_refused(tmp_path: Path):
    path = tmp_path / "toy.gguf"
    write_gguf(path, toy_llama(True), "gptneox")
    with pytest.raises(WeightsError, match="architecture gptneox, expected a Llama in GGUF"):
        write_llama(tmp_path, path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(WeightsError, match="not a whole GGUF file"):
        write_llama(tmp_path, path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match="not a whole GGUF file"):
        write_llama(tmp_path, path)
