"""Any causal language model that ``transformers`` loads by name."""

from __future__ import annotations

from collections.abc import Sequence

from stapes import hub
from stapes.llms.base import LLM


class CausalLLM(LLM):
    """``AutoModelForCausalLM`` with its tokenizer and chat template.

    Args:
        weights: sources tried in order (``pack:smollm2-135m-instruct``, ``hf:owner/name``, ``path:...``).
    """

    def __init__(self, weights: str | Sequence[str] = "hf:HuggingFaceTB/SmolLM2-135M-Instruct") -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        found = hub.resolve(weights)
        model = AutoModelForCausalLM.from_pretrained(found.folder, dtype=torch.float32, attn_implementation="sdpa")
        super().__init__(model.eval(), AutoTokenizer.from_pretrained(found.folder), found.source)
