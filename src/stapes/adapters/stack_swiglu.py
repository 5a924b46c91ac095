"""``stack_swiglu``: concatenate k frames, then a gated layer between two linear ones. Ultravox (github.com/fixie-ai/ultravox).

    x = W1 RMSNorm([h_{ik}; ...; h_{ik+k-1}]);  z_i = W2 RMSNorm(SiLU(x'') x')        x' and x'': the halves of x

| Ultravox | here | shape |
|---|---|---|
| stack factor, 8 (of 50 frames a second) | ``stride`` | k |
| W1 | ``hidden`` | (4096, k E) |
| W2 | ``out`` | (D, 2048) |
| RMSNorms, weights starting at 0.4 | ``norm``, ``mid_norm`` or ``out_norm`` | k E, 2048 or D |

There is no paper; sizes are those of the public code. From version 0.5 on the second norm stands before W2 (``norm_at: mid``,
the default), up to 0.4.1 after it (``norm_at: out``).

Differs from the code: nothing that we know of, but that the padding is zeroed first, whatever stands there.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from stapes.adapters.base import Adapter
from stapes.adapters.layers import stack
from stapes.errors import RecipeError
from stapes.types import Padded

NORM_START = 0.4


class RMSNorm(nn.RMSNorm):
    """RMSNorm in the precision of its weights, which autocast leaves alone: where the two differ, torch is slow and warns."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-6)
        nn.init.constant_(self.weight, NORM_START)

    def forward(self, values: Tensor) -> Tensor:
        """Norm over the last dimension."""
        return super().forward(values.to(self.weight.dtype))


class StackSwiGLU(Adapter):
    """Stack ``stride`` frames and map them by a SwiGLU: (B, T, E) -> (B, ceil(T / stride), D).

    Args:
        encoder_dim: E.
        llm_dim: D.
        stride: frames per embedding.
        hidden_dim: width of the first layer, whose one half gates the other; even.
        norm_at: where the second norm stands, "mid" or "out".

    Raises:
        RecipeError: ``hidden_dim`` has no halves, or ``norm_at`` is something else.
    """

    def __init__(
        self,
        encoder_dim: int,
        llm_dim: int,
        stride: int = 8,
        hidden_dim: int = 4096,
        norm_at: Literal["mid", "out"] = "mid",
    ) -> None:
        super().__init__()
        if hidden_dim % 2:
            raise RecipeError("adapter.hidden_dim", f"{hidden_dim}", "an even number")
        if norm_at not in ("mid", "out"):
            raise RecipeError("adapter.norm_at", f"'{norm_at}'", "'mid' or 'out'")
        self.stride = stride
        self.norm = RMSNorm(stride * encoder_dim)
        self.hidden = nn.Linear(stride * encoder_dim, hidden_dim, bias=False)
        self.mid_norm = RMSNorm(hidden_dim // 2) if norm_at == "mid" else nn.Identity()
        self.out = nn.Linear(hidden_dim // 2, llm_dim, bias=False)
        self.out_norm = RMSNorm(llm_dim) if norm_at == "out" else nn.Identity()

    def forward(self, frames: Padded) -> Padded:
        """See ``Adapter.forward``."""
        stacked = stack(frames, self.stride)
        value, gate = self.hidden(self.norm(stacked.values)).chunk(2, dim=-1)
        values = self.out_norm(self.out(self.mid_norm(F.silu(gate) * value)))
        return Padded(values, stacked.lengths).zero_padding()

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """ceil(T / stride)."""
        return -(-lengths // self.stride)
