"""Large language models: embeddings in, text out. The table below is how a recipe finds them."""

from stapes.llms.base import LLM as LLM
from stapes.registry import Table

LLMS = Table(
    "llm",
    {
        "causal": "stapes.llms.causal:CausalLLM",
        "toy": "stapes.llms.toy:ToyLLM",
    },
)
