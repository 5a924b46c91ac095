"""Small tokenizers, each of the kind that a family of LLMs has; their merges are learnt from two sentences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = [
    "listen to the speech and write down every word that the speaker says, nothing else",
    "the cat sat on the mat and the rain fell in the afternoon while the others sang",
]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _learn(words: pre_tokenizers.PreTokenizer, alphabet: Sequence[str], special: Sequence[str]) -> dict[str, Any]:
    """Vocabulary and merges of the sentences: the special tokens first, then the alphabet."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = words
    letters = [letter for letter in alphabet if len(letter) == 1]
    core.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=400, initial_alphabet=letters, show_progress=False))
    found = json.loads(core.to_str())["model"]
    names = dict.fromkeys([*special, *alphabet, *sorted(found["vocab"], key=found["vocab"].get)])
    return {"vocab": {name: place for place, name in enumerate(names)}, "merges": [tuple(pair) for pair in found["merges"]]}


def byte_level(special: Sequence[str], cls: str = "PreTrainedTokenizerFast", begin: str | None = None, **named: Any) -> Any:
    """A byte-level tokenizer (GPT-2, Llama 3, Qwen); ``begin`` is what it puts before a text."""
    learnt = _learn(pre_tokenizers.ByteLevel(add_prefix_space=False), sorted(pre_tokenizers.ByteLevel.alphabet()), special)
    if cls != "PreTrainedTokenizerFast":
        return getattr(transformers, cls)(**learnt, extra_special_tokens=list(special), **named)
    core = Tokenizer(models.BPE(**learnt))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    if begin is not None:
        core.post_processor = processors.TemplateProcessing(f"{begin} $A", special_tokens=[(begin, special.index(begin))])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, extra_special_tokens=list(special), **named)


def llama_2(**named: Any) -> Any:
    """SentencePiece with bytes to fall back to: a space before the text's first word, and <s> before that."""
    return transformers.LlamaTokenizer(**_learn_pieces(["<unk>", "<s>", "</s>"]), add_bos_token=True, **named)


def mistral_3() -> Any:
    """The same with [INST] and [/INST] as special tokens, of which it has many more."""
    tokenizer = llama_2()
    tokenizer.add_tokens([AddedToken(name, special=True) for name in ("[INST]", "[/INST]")])
    return tokenizer


def llama_2_legacy(**named: Any) -> Any:
    """The same as old files have it: a space before every stretch between special tokens."""
    core = Tokenizer(
        models.BPE(**_learn_pieces(["<unk>", "<s>", "</s>"]), fuse_unk=True, byte_fallback=True, unk_token="<unk>")
    )
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>", **named
    )


def gemma() -> Any:
    """SentencePiece without a space in front; <end_of_turn> is special, but has no name of its own."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = transformers.GemmaTokenizer(**_learn_pieces([*special, "\n"]), add_bos_token=True)
    tokenizer.add_tokens([AddedToken(name, special=True) for name in special[5:]])
    return tokenizer


def _learn_pieces(special: Sequence[str]) -> dict[str, Any]:
    letters = [chr(code) for code in range(33, 127)]
    return _learn(pre_tokenizers.Metaspace(prepend_scheme="always"), [*BYTES, "▁", *letters], special)
