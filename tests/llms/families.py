"""Families of LLMs, small: each with its own model class, a tokenizer of its kind, its special tokens and its prompt format.

What makes a family what it is stands here: which token begins a text and who writes it, which ones end an answer, which one
fills up, and the chat template. Templates are ours, written after the format that each model's card describes, without what we
do not use (tools, several turns).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from llms.tokenizers import byte_level, gemma, llama_2, llama_2_legacy, mistral_3

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}


@dataclass(frozen=True)
class Family:
    """What is known of a family.

    Attributes:
        model: the name of its transformers classes, without ``Config`` and ``ForCausalLM``.
        tokenizer: makes one, without the chat template.
        template: the chat template that the tokenizer brings; None where it brings none.
        prompt: the whole prompt for the instruction "Listen." and the speech SPEECH, with its begin token.
        ends: the names of all tokens that end an answer.
        end: the one that training puts there.
        pad: what fills up batches.
        tied: whether input and output embeddings are one tensor.
        named: the end tokens in the generation config.
        config: more settings of the model.
        generation: more of the generation config, which must not matter.
        rewinds: whether what was read can be taken back.
        options: of ``CausalLLM``.
    """

    model: str
    tokenizer: Callable[[], Any]
    template: str | None
    prompt: str
    ends: Sequence[str]
    end: str
    pad: str
    tied: bool
    named: Sequence[str]
    config: dict[str, Any] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)
    rewinds: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """A folder with a random model of the family and its tokenizer, as a hub would have it."""
        tokenizer = self.tokenizer()
        tokenizer.chat_template = self.template
        ids = tokenizer.convert_tokens_to_ids
        own = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        settings = {**SIZES, "vocab_size": len(tokenizer), "pad_token_id": None, "tie_word_embeddings": self.tied, **own}
        config = getattr(transformers, f"{self.model}Config")(**settings | self.config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = getattr(transformers, self.model.removesuffix("Text") + "ForCausalLM")(config)
        ends = [ids(name) for name in self.named]
        model.generation_config = transformers.GenerationConfig(eos_token_id=ends, **self.generation)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_PROMPT = "<|im_start|>system\nListen.<|im_end|>\n<|im_start|>user\nSPEECH<|im_end|>\n<|im_start|>assistant\n"
QWEN = {"special": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"], "cls": "Qwen2Tokenizer"}
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
VICUNA_SENTENCE = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
LLAMA_3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>"]
GRANITE = ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"]
COHERE = ["<PAD>", "<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"]
COHERE += ["<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"]

TINYLLAMA = Family(
    "Llama",
    lambda: llama_2(pad_token="</s>"),
    "{% for message in messages %}{{ '<|' + message.role + '|>\n' + message.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    "<s> <|system|>\nListen.</s>\n<|user|>\nSPEECH</s>\n<|assistant|>\n",  # <s> and the space are SentencePiece's
    ends=["</s>"],
    end="</s>",
    pad="</s>",
    tied=False,
    named=["</s>"],
)
VICUNA = Family(
    "Llama",
    lambda: llama_2(pad_token="<unk>"),
    None,
    f"<s> {VICUNA_SENTENCE} USER: Listen.\nSPEECH ASSISTANT:",
    ends=["</s>"],
    end="</s>",
    pad="<unk>",
    tied=False,
    named=["</s>"],
    options={"chat_template": "vicuna"},
)
LLAMA = Family(
    "Llama",
    lambda: byte_level(LLAMA_3, begin=LLAMA_3[0], bos_token=LLAMA_3[0], eos_token="<|eot_id|>"),
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' }}"
    "{% if message.role == 'system' %}"
    "{{ 'Cutting Knowledge Date: December 2023\nToday Date: ' + strftime_now('%d %b %Y') + '\n\n' }}"
    "{% endif %}{{ message.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\nListen.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nSPEECH<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ends=["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"],
    end="<|eot_id|>",
    pad="<|eot_id|>",
    tied=True,
    named=["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"],
    generation={"do_sample": True, "temperature": 0.6, "top_p": 0.9},
)
MISTRAL = Family(
    "Mistral",
    llama_2_legacy,
    NO_SYSTEM + "{{ bos_token }}{% for message in messages %}"
    "{{ '[INST] ' + message.content + ' [/INST]' if message.role == 'user' else message.content + eos_token }}{% endfor %}",
    "<s> [INST] Listen.\nSPEECH [/INST]",  # the space after <s> is SentencePiece's
    ends=["</s>"],
    end="</s>",
    pad="</s>",
    tied=False,
    named=["</s>"],
    config={"sliding_window": None},
)
QWEN2 = Family(
    "Qwen2",
    lambda: byte_level(**QWEN, eos_token="<|im_end|>", pad_token="<|endoftext|>"),
    CHATML,
    CHATML_PROMPT,
    ends=["<|im_end|>", "<|endoftext|>"],
    end="<|im_end|>",
    pad="<|endoftext|>",
    tied=True,
    named=["<|im_end|>", "<|endoftext|>"],
    generation={"do_sample": True, "repetition_penalty": 1.1, "temperature": 0.7, "top_k": 20},
)
GEMMA_TURNS = (
    "{{ ('model' if message.role == 'assistant' else message.role) + '\n' }}"
    "{{ lead + message.content | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA2 = Family(
    "Gemma2",
    gemma,
    NO_SYSTEM + "{{ bos_token }}{% set lead = '' %}{% for message in messages %}{{ '<start_of_turn>' }}" + GEMMA_TURNS,
    "<bos><start_of_turn>user\nListen.\nSPEECH<end_of_turn>\n<start_of_turn>model\n",
    ends=["<eos>", "<end_of_turn>"],
    end="<end_of_turn>",
    pad="<pad>",
    tied=True,
    named=["<eos>", "<end_of_turn>"],
    config={"query_pre_attn_scalar": 8, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0, "sliding_window": 8},
    generation={"cache_implementation": "hybrid"},
    rewinds=False,
)
GEMMA3 = Family(
    "Gemma3Text",
    gemma,
    "{{ bos_token }}{% set lead = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}"
    "{% for message in messages if message.role != 'system' %}{{ '<start_of_turn>' }}" + GEMMA_TURNS,
    "<bos><start_of_turn>user\nListen.\n\nSPEECH<end_of_turn>\n<start_of_turn>model\n",
    ends=["<eos>", "<end_of_turn>"],
    end="<end_of_turn>",
    pad="<pad>",
    tied=True,
    named=["<eos>", "<end_of_turn>"],
    config={"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8, "query_pre_attn_scalar": 8},
    rewinds=False,
)
THINKING = (
    "{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}"
)
FAMILIES = {
    "TinyLlama": TINYLLAMA,
    "Vicuna 1.5": VICUNA,
    "Llama 3": LLAMA,
    "Mistral 0.3": replace(
        MISTRAL,
        tokenizer=mistral_3,
        template="{% set lead = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}{{ bos_token }}"
        "{% for message in messages if message.role != 'system' %}"
        "{{ '[INST] ' + lead + message.content + '[/INST]' if message.role == 'user' else message.content + eos_token }}"
        "{% endfor %}",
        prompt="<s>[INST] Listen.\n\nSPEECH[/INST]",
    ),
    "Mistral 0.2": MISTRAL,
    "Mistral 0.1": replace(MISTRAL, config={"sliding_window": 8}, rewinds=False),
    "Qwen2, Qwen2.5": QWEN2,
    "Qwen3": replace(
        QWEN2,
        model="Qwen3",
        template=CHATML + THINKING + "{% endif %}",
        prompt=CHATML_PROMPT + "<think>\n\n</think>\n\n",
        generation={"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95},
    ),
    "SmolLM2": Family(
        "Llama",
        lambda: byte_level(
            QWEN["special"][:3], "GPT2Tokenizer", bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
        ),
        CHATML,
        CHATML_PROMPT,
        ends=["<|im_end|>"],
        end="<|im_end|>",
        pad="<|im_end|>",
        tied=True,
        named=["<|im_end|>"],
    ),
    "Gemma 2": GEMMA2,
    "Gemma 3": GEMMA3,
    "Granite 3": Family(
        "Granite",
        lambda: byte_level(GRANITE, "GPT2Tokenizer", **dict.fromkeys(["bos_token", "eos_token", "pad_token"], GRANITE[0])),
        "{% for message in messages %}{{ '<|start_of_role|>' + message.role + '<|end_of_role|>' + message.content }}"
        "{{ '<|end_of_text|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}",
        "<|start_of_role|>system<|end_of_role|>Listen.<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>SPEECH<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>",
        ends=["<|end_of_text|>"],
        end="<|end_of_text|>",
        pad="<|end_of_text|>",
        tied=True,
        named=["<|end_of_text|>"],
        config={
            "embedding_multiplier": 12.0,
            "logits_scaling": 8.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.125,
        },
    ),
    "Command R": Family(
        "Cohere",
        lambda: byte_level(
            COHERE, begin="<BOS_TOKEN>", bos_token="<BOS_TOKEN>", eos_token="<|END_OF_TURN_TOKEN|>", pad_token="<PAD>"
        ),
        "{{ bos_token }}{% for message in messages %}{{ '<|START_OF_TURN_TOKEN|>' }}"
        "{{ {'system': '<|SYSTEM_TOKEN|>', 'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>'}[message.role] }}"
        "{{ message.content + '<|END_OF_TURN_TOKEN|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}",
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Listen.<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>SPEECH"
        "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        ends=["<|END_OF_TURN_TOKEN|>"],
        end="<|END_OF_TURN_TOKEN|>",
        pad="<PAD>",
        tied=True,
        named=["<|END_OF_TURN_TOKEN|>"],
        config={"logit_scale": 0.0625},
    ),
}
