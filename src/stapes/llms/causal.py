"""Any causal language model that ``transformers`` loads by name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal

from stapes import hub
from stapes.errors import MissingDependency, RecipeError
from stapes.llms.base import LLM
from stapes.llms.templates import find


class CausalLLM(LLM):
    """``AutoModelForCausalLM`` with its tokenizer and chat template.

    Args:
        weights: sources tried in order (``pack:smollm2-135m-instruct``, ``hf:owner/name``, ``path:...``).
        chat_template: a name in ``templates.TEMPLATES`` or Jinja, in place of the tokenizer's own.
        quantize: keep the linear layers in 4 bits (NF4 with double quantisation, QLoRA, arXiv 2305.14314) or in 8 (LLM.int8(),
            arXiv 2208.07339); the output layer stays as it is. Through ``bitsandbytes``.

    Raises:
        RecipeError: no such template or precision.
        MissingDependency: ``bitsandbytes`` is not installed.
        WeightsError: the weights cannot be had.
    """

    def __init__(
        self,
        weights: str | Sequence[str] = "hf:HuggingFaceTB/SmolLM2-135M-Instruct",
        chat_template: str | None = None,
        quantize: Literal["4bit", "8bit"] | None = None,
    ) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        options = {} if quantize is None else _quantization(quantize)
        template = None if chat_template is None else find(chat_template)
        found = hub.resolve(weights)
        # No attention is named: transformers takes sdpa wherever the model allows it, and Gemma 2, which caps scores, does not.
        model = AutoModelForCausalLM.from_pretrained(found.folder, dtype=torch.float32, **options)
        tokenizer = AutoTokenizer.from_pretrained(found.folder)
        if template is not None:
            tokenizer.chat_template = template
        super().__init__(model.eval(), tokenizer, found.source)


def _quantization(quantize: str) -> dict[str, Any]:
    """What ``from_pretrained`` has to be told; the model is made on the CPU and moved with everything else."""
    if quantize not in ("4bit", "8bit"):
        raise RecipeError("llm.quantize", f"'{quantize}'", "'4bit' or '8bit'")
    if find_spec("bitsandbytes") is None:
        raise MissingDependency(f"llm.quantize: {quantize}", "quantize")
    import torch
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=quantize == "4bit",
        load_in_8bit=quantize == "8bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": config, "device_map": {"": "cpu"}}
