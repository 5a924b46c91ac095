"""``posterior``: what the LLM would read if it read what was heard. LegoSLM, arXiv 2505.11352.

    x_i = [h_{ik}; ...; h_{ik+k-1}];   p_i = softmax((W x_i + b) / tau) over the LLM's tokens and a blank
    z_i = sum_v p_i(v) e_v
    token_ctc loss = -log P_CTC(tokens | softmax(W x_i + b))

| paper | here | shape |
|---|---|---|
| encoder output h | ``frames.values`` | (B, T, E) |
| k | ``stride`` | |
| W, b | ``logits`` | (1 + V, k E), (1 + V,) |
| LLM's embedding table e | ``table`` | (V, D), frozen |
| temperature tau | ``temperature`` | |

A lower temperature trusts the encoder more, a higher one leaves more to the LLM. With ``compress``, steps whose blank is at
least ``blank`` likely are dropped and consecutive steps with the same best token become one, their average (after the public
re-implementation of LegoSLM).

Differs from the paper: its text could not be had, but for the abstract; that the blank is a class of its own and has no
embedding is our choice, and so are the defaults and the frames put side by side. An encoder that gives fifty frames a second
would have the whole vocabulary scored fifty times a second, where people say some four tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from stapes.adapters.base import Adapter
from stapes.adapters.ctc import TargetClasses, by_utterance, in_full
from stapes.adapters.layers import runs, stack
from stapes.types import Padded


class Posterior(Adapter):
    """Expected embeddings of the LLM's tokens: (B, T, E) -> (B, N, D) with N = ceil(T / stride), or (B, R, D) compressed.

    Args:
        encoder_dim: E.
        llm_table: (V, D), the LLM's embeddings; not part of a checkpoint, since the LLM has them.
        stride: frames per step; what the last group lacks is zeros.
        temperature: tau.
        compress: drop blanks and average runs.
        blank: a step is dropped when its blank is at least so likely.
    """

    losses = ("token_ctc",)
    over_vocabulary = ("logits",)
    table: Tensor

    def __init__(
        self,
        encoder_dim: int,
        llm_table: Tensor,
        stride: int = 4,
        temperature: float = 1.0,
        compress: bool = False,
        blank: float = 0.9,
    ) -> None:
        super().__init__()
        self.stride, self.temperature, self.compress, self.blank = stride, temperature, compress, blank
        self.lengths_are_bounds = compress
        self.logits = nn.Linear(stride * encoder_dim, len(llm_table) + 1)
        self.register_buffer("table", llm_table.detach(), persistent=False)

    def forward(self, frames: Padded) -> Padded:
        """See ``Adapter.forward``."""
        steps = stack(frames, self.stride)
        return self._compress(steps, *by_utterance(lambda row: self._expect(self._logits(row)), steps))

    def with_losses(
        self, frames: Padded, targets: Sequence[Sequence[int]], wanted: Collection[str]
    ) -> tuple[Padded, dict[str, Tensor]]:
        """See ``Adapter.with_losses``; token_ctc: CTC over the LLM's tokens, summed over the batch."""
        if "token_ctc" not in wanted:
            return self(frames), {}
        steps = stack(frames, self.stride)
        classes = TargetClasses(targets, len(self.table), frames.values.device)

        def read(row: Tensor) -> tuple[Tensor, ...]:
            logits = self._logits(row)
            return *self._expect(logits), classes.log_probs(logits)

        *expected, log_probs = by_utterance(read, steps)
        return self._compress(steps, *expected), {"token_ctc": classes.loss(log_probs, steps.lengths)}

    def _logits(self, row: Tensor) -> Tensor:
        """(N, k E) -> (N, 1 + V), in full precision where runs hang on it."""
        if self.compress:
            return in_full(self.logits, row)
        scores: Tensor = self.logits(row)
        return scores

    def _expect(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 1 + V) -> the expected embedding (N, D), the best token (N,) and how likely the blank is (N,)."""
        scores = logits.float()
        probabilities = (scores / self.temperature).softmax(-1)
        expected = probabilities[:, :-1].to(self.table.dtype) @ self.table
        blank = (scores[:, -1] - scores.logsumexp(-1)).exp() if self.compress else expected.new_zeros(len(expected))
        return expected.to(logits.dtype), logits.argmax(-1), blank

    def _compress(self, steps: Padded, expected: Tensor, best: Tensor, blank: Tensor) -> Padded:
        """What ``_expect`` found of a batch -> embeddings (B, N, D), or (B, R, D) where they are compressed."""
        if not self.compress:
            return Padded(expected, steps.lengths)
        heard = steps.mask & (blank < self.blank)
        any_heard = heard.any(1, keepdim=True)
        # An utterance of blanks becomes one embedding, the average of its steps.
        share, lengths = runs(torch.where(any_heard, best, 0), torch.where(any_heard, heard, steps.mask))
        return Padded(share.mT.to(expected.dtype) @ expected, lengths).zero_padding()

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """ceil(T / stride); an upper bound when compressed."""
        return -(-lengths // self.stride)
