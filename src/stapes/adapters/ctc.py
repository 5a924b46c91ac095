"""``ctc``: runs of frames in which one token is heard, averaged. "CTC-based" of arXiv 2409.17044.

    p_t = softmax(W h_t + b) over the LLM's vocabulary;  run r: consecutive frames with one argmax, blanks included
    x_r = mean of h_t over run r;  z = Base(x)                          Base: see ``transformer``
    token_ctc loss = -log P_CTC(tokens | p)

| paper | here | shape |
|---|---|---|
| encoder output | ``frames.values`` | (B, T, E) |
| W, b | ``logits`` | (V, E), (V,) |
| blank: the LLM's padding token, else its end token | ``blank_id`` | |
| longest output, a number or a share of the frames | ``most`` | |
| Base | as in ``transformer`` | (B, R, 768) |

Where more runs than ``most`` are left, every ceil(R / most) of them in a row become one.

Differs from the paper: its two other ways to average a run are left out (one of them gives more weight to the less likely
frames); gradients of the text pass through the averages to whatever is trained before them, which the authors' code cuts off.
The targets are the answer's tokens without beginning or end token, since the end token may be the blank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stapes.adapters.layers import runs
from stapes.adapters.transformer import Transformer
from stapes.errors import RecipeError
from stapes.types import Padded


class CTC(Transformer):
    """Average what sounds like one token before ``Transformer``: (B, T, E) -> (B, R, D), R at most T.

    Args:
        encoder_dim: E.
        llm_dim: D.
        vocab_size: V.
        blank_id: the LLM's token that stands for the blank.
        dim: width of the layers.
        layers: how many.
        heads: attention heads of each.
        ffn_dim: width of their feed-forward part.
        dropout: in the layers.
        most: embeddings at most, as a number (1 or more, whole) or as a share of the frames (below 1); None for no limit.

    Raises:
        RecipeError: ``most`` is neither.
    """

    losses = ("token_ctc",)
    lengths_are_bounds = True

    def __init__(
        self,
        encoder_dim: int,
        llm_dim: int,
        vocab_size: int,
        blank_id: int,
        dim: int = 768,
        layers: int = 4,
        heads: int = 12,
        ffn_dim: int = 3072,
        dropout: float = 0.1,
        most: float | None = None,
    ) -> None:
        super().__init__(encoder_dim, llm_dim, dim, layers, heads, ffn_dim, dropout)
        if most is not None and (most <= 0 or (most >= 1 and most != int(most))):
            raise RecipeError("adapter.most", f"{most}", "a share between 0 and 1, a whole number from 1, or nothing")
        self.blank_id, self.most = blank_id, most
        self.logits = nn.Linear(encoder_dim, vocab_size)

    def forward(self, frames: Padded) -> Padded:
        """See ``Adapter.forward``."""
        return self._compress(frames, token_logits(self.logits, frames).argmax(-1))

    def with_losses(self, frames: Padded, targets: Sequence[Sequence[int]]) -> tuple[Padded, dict[str, Tensor]]:
        """See ``Adapter.with_losses``; token_ctc: CTC over the LLM's tokens, summed over the batch."""
        logits = token_logits(self.logits, frames)
        return self._compress(frames, logits.argmax(-1)), {
            "token_ctc": token_ctc(logits, frames.lengths, targets, self.blank_id)
        }

    def _compress(self, frames: Padded, labels: Tensor) -> Padded:
        share, lengths = runs(labels, frames.mask)
        if self.most is not None:
            together = (lengths / self._limits(frames.lengths).clamp(min=1)).ceil().long()
            share, lengths = runs(share.argmax(-1) // together[:, None], frames.mask)
        averages = share.mT.to(frames.values.dtype) @ frames.zero_padding().values
        return super().forward(Padded(averages, lengths))

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """An upper bound: T, or what ``most`` leaves of it."""
        return lengths if self.most is None else torch.minimum(lengths, self._limits(lengths).ceil().long())

    def _limits(self, lengths: Tensor) -> Tensor:
        most = self.most or 1.0
        return lengths * most if most < 1 else torch.full_like(lengths, int(most)).float()


def token_logits(layer: nn.Linear, frames: Padded) -> Tensor:
    """(B, T, E) -> (B, T, V), also under autocast in the layer's own precision: rounding would decide where a run ends."""
    with torch.autocast(frames.values.device.type, enabled=False):
        scores: Tensor = layer(frames.zero_padding().values)
        return scores


def token_ctc(logits: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]], blank_id: int) -> Tensor:
    """CTC loss over the LLM's tokens, in float32, summed over the batch; what does not fit its frames counts as zero.

    Args:
        logits: (B, T, V).
        lengths: (B,) frames of each.
        targets: the tokens of each answer, the end token last, which is left out.
        blank_id: class of the blank.
    """
    sizes = torch.tensor([len(row) - 1 for row in targets], device=logits.device)
    flat = torch.tensor([token for row in targets for token in row[:-1]], dtype=torch.long, device=logits.device)
    log_probs = logits.float().log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(log_probs, flat, lengths, sizes, blank=blank_id, reduction="sum", zero_infinity=True)
