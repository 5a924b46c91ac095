"""Adapters: encoder frames -> embeddings that the LLM reads. One file an adapter; a recipe finds them by the table below."""

from stapes.adapters.base import Adapter as Adapter
from stapes.registry import Table

ADAPTERS = Table(
    "adapter",
    {
        "pool_linear": "stapes.adapters.pool_linear:PoolLinear",
        "stack_mlp": "stapes.adapters.stack_mlp:StackMLP",
        "conv1d_mlp": "stapes.adapters.conv1d_mlp:Conv1dMLP",
        "conv1d_transformer": "stapes.adapters.conv1d_transformer:Conv1dTransformer",
    },
)

# What a constructor may ask for and no recipe may set: it follows from the encoder and the LLM.
DERIVED = ("encoder_dim", "llm_dim", "seconds_per_frame")
