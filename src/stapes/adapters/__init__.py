"""Adapters: encoder frames -> embeddings that the LLM reads. One file an adapter; a recipe finds them by the table below."""

from stapes.adapters.base import Adapter as Adapter
from stapes.registry import Table

ADAPTERS = Table(
    "adapter",
    {
        "linear": "stapes.adapters.linear:Linear",
        "stack_mlp": "stapes.adapters.stack_mlp:StackMLP",
        "stack_swiglu": "stapes.adapters.stack_swiglu:StackSwiGLU",
        "pool_linear": "stapes.adapters.pool_linear:PoolLinear",
        "transformer": "stapes.adapters.transformer:Transformer",
        "conv": "stapes.adapters.conv:Conv",
        "conv1d_mlp": "stapes.adapters.conv1d_mlp:Conv1dMLP",
        "dws_mlp": "stapes.adapters.dws_mlp:DwsMLP",
        "conv1d_transformer": "stapes.adapters.conv1d_transformer:Conv1dTransformer",
        "cif": "stapes.adapters.cif:CIF",
        "ctc": "stapes.adapters.ctc:CTC",
        "posterior": "stapes.adapters.posterior:Posterior",
        "q_former": "stapes.adapters.q_former:QFormerAdapter",
        "segment_q_former": "stapes.adapters.segment_q_former:SegmentQFormer",
        "wlq_former": "stapes.adapters.wlq_former:WLQFormer",
        "cross_attention": "stapes.adapters.cross_attention:CrossAttention",
    },
    above_zero=[
        *("stride", "kernel", "convs", "dim", "hidden_dim", "ffn_dim", "heads", "layers", "queries", "entries", "embeddings"),
        *("embeddings_per_second", "segment_seconds", "window_seconds", "threshold", "temperature"),
    ],
)

# What a constructor may ask for and no recipe may set: it follows from the encoder and the LLM.
DERIVED = ("encoder_dim", "llm_dim", "seconds_per_frame", "vocab_size", "blank_id", "llm_table")
