"""A language model made from nothing, for tests, tutorials and ``recipes/toy.yaml``: a two-layer Llama over characters."""

from __future__ import annotations

import string

import torch

from stapes.llms.base import LLM

CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'][0] }}>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


class ToyLLM(LLM):
    """A random Llama over single characters and a few merges, with a chat template; the same for the same ``seed``.

    Args:
        dim: D, a multiple of 4.
        seed: of its random weights.
    """

    def __init__(self, dim: int = 32, seed: int = 0) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        tokenizer = _tokenizer()
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=dim,
            intermediate_size=2 * dim,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LlamaForCausalLM(config).eval()
        super().__init__(model, tokenizer, f"toy-{dim}-{seed}")


def _tokenizer():  # type: ignore[no-untyped-def]
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<end>", "<pad>", "<s>", "<u>", "<a>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("i", "n"), ("a", "n"), ("an", "d"), ("e", "r")]
    merges += [("Ġ", letter) for letter in string.ascii_lowercase]  # a word's beginning
    words = [*special, *alphabet, *("".join(pair) for pair in merges)]
    core = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<end>", pad_token="<pad>", additional_special_tokens=special[2:]
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
