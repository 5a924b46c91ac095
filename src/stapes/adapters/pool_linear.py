"""``pool_linear``: adaptive average pooling, normalisation, one linear layer. SENSE-ASR, arXiv 2509.04473.

    z = W norm(AdaptiveAvgPool(h)) + b

| paper | here | shape |
|---|---|---|
| h, [1500 x 768] | ``frames.values`` | (B, T, E) |
| 250 | ``embeddings`` | K |
| W | ``linear`` | (2048, 768) = (D, E) |

In the paper every input is padded to 30 s, so that 250 embeddings are 8.33 a second (``embeddings: 250`` with the encoder's
``window: 30s``). By default we pool each utterance to the same rate of its own length, which needs no window.

Differs from the paper: it does not say which normalisation; LayerNorm over E, after pooling, is our choice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stapes.adapters.base import Adapter
from stapes.errors import RecipeError
from stapes.types import Padded


class PoolLinear(Adapter):
    """Pool each utterance to a rate or to a fixed number, then project: (B, T, E) -> (B, K, D).

    Args:
        encoder_dim: E.
        llm_dim: D.
        seconds_per_frame: time step of the frames.
        embeddings_per_second: K = ceil(duration x rate), at most T; the default is the paper's 250 over 30 s.
        embeddings: a fixed K, as in the paper; excludes ``embeddings_per_second``.
    """

    def __init__(
        self,
        encoder_dim: int,
        llm_dim: int,
        seconds_per_frame: float,
        embeddings_per_second: float | None = None,
        embeddings: int | None = None,
    ) -> None:
        super().__init__()
        if embeddings is not None and embeddings_per_second is not None:
            raise RecipeError("adapter", "both embeddings and embeddings_per_second", "one of them")
        self.embeddings = embeddings
        rate = 250 / 30 if embeddings_per_second is None else embeddings_per_second
        self.embeddings_per_frame = rate * seconds_per_frame
        self.norm = nn.LayerNorm(encoder_dim)
        self.linear = nn.Linear(encoder_dim, llm_dim)

    def forward(self, frames: Padded) -> Padded:
        """See ``Adapter.forward``. Pooling sums in float32: running sums drift in bfloat16."""
        lengths = self.output_lengths(frames.lengths)
        pooled = [
            F.adaptive_avg_pool1d(row.float().T, int(length)).T for row, length in zip(frames.rows(), lengths, strict=True)
        ]
        values = Padded.from_rows(pooled).values.to(frames.values.dtype)
        return Padded(self.linear(self.norm(values)), lengths).zero_padding()

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """The fixed number, or ceil(T x rate); never more than T in the latter case."""
        if self.embeddings is not None:
            return torch.full_like(lengths, self.embeddings)
        # Rounded first, so that 0.02 s x 8.333 per second does not turn 6 frames into 2 embeddings by a rounding error.
        wanted = (lengths.double() * self.embeddings_per_frame).round(decimals=6).ceil().long()
        return torch.minimum(wanted, lengths)
