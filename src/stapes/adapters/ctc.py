"""``ctc``: runs of frames in which one token is heard, averaged. "CTC-based" of arXiv 2409.17044.

    p_t = softmax(W h_t + b) over the LLM's vocabulary;  run r: consecutive frames with one argmax, blanks included
    x_r = mean of h_t over run r;  z = Base(x)                          Base: see ``transformer``
    token_ctc loss = -log P_CTC(tokens | p)

| paper | here | shape |
|---|---|---|
| encoder output, h unless layers stand before | ``frames.values`` | (B, T, E) |
| W, b | ``logits`` | (V, E), (V,), or (V, dim), (V,) |
| blank: the LLM's padding token, else its end token | ``blank_id`` | |
| longest output, a number or a share of the frames | ``most`` | |
| layers between the encoder output and h | ``layers_before`` | |
| Base | as in ``transformer`` | (B, R, 768) |

Where more runs than ``most`` are left, every ceil(R / most) of them in a row become one.

Where this stands is not known from the paper. ``layers_before: 0``, the default, is the authors' code: at the very front, h
being the encoder's output. ``layers_before: 2`` is the other reading that there is of ``conv``, carried over to here, which is
ours: h is what the first projection and two of the layers make of the encoder's output, and the labels, their loss and the
averages are all taken from it, at the layers' width.

Differs from the paper: its two other ways to average a run are left out (one of them gives more weight to the less likely
frames); gradients of the text pass through the averages to whatever is trained before them, which the authors' code cuts off.
The targets are the transcript's tokens without beginning or end token, since the end token may be the blank.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from stapes.adapters.layers import runs
from stapes.adapters.transformer import Shortened
from stapes.errors import RecipeError
from stapes.types import Padded

STEPS_AT_A_TIME = 64  # of 49,152 scores: 12 MB


class CTC(Shortened):
    """Average what sounds like one token before or inside ``Transformer``: (B, T, E) -> (B, R, D), R at most T.

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
        layers_before: how many of the layers come before the averages; with 0, the projection comes after them too.

    Raises:
        RecipeError: ``most`` is neither.
    """

    losses = ("token_ctc",)
    lengths_are_bounds = True
    over_vocabulary = ("logits",)

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
        layers_before: int = 0,
    ) -> None:
        super().__init__(encoder_dim, llm_dim, dim, layers, heads, ffn_dim, dropout, layers_before)
        if most is not None and (most <= 0 or (most >= 1 and most != int(most))):
            raise RecipeError("adapter.most", f"{most}", "a share between 0 and 1, a whole number from 1, or nothing")
        self.blank_id, self.most = blank_id, most
        self.logits = nn.Linear(self.width, vocab_size)

    def forward(self, frames: Padded) -> Padded:
        """See ``Adapter.forward``."""
        return self._embed(self.before(frames))

    def with_losses(
        self, frames: Padded, targets: Sequence[Sequence[int]], wanted: Collection[str]
    ) -> tuple[Padded, dict[str, Tensor]]:
        """See ``Adapter.with_losses``; token_ctc: CTC over the LLM's tokens, summed over the batch."""
        hidden = self.before(frames)
        return self._embed(hidden), {"token_ctc": self._loss(hidden, targets)} if "token_ctc" in wanted else {}

    def _embed(self, hidden: Padded) -> Padded:
        """Embeddings (B, R, D) of h (B, T, C), whose labels have no gradient."""
        with torch.no_grad():
            (labels,) = by_utterance(lambda row: (in_full(self.logits, row).argmax(-1),), hidden)
        return self.after(self._averages(hidden, labels))

    def _averages(self, hidden: Padded, labels: Tensor) -> Padded:
        """Means (B, R, C) of the runs that the labels (B, T) make, or of several in a row where those are too many."""
        share, lengths = runs(labels, hidden.mask)
        if self.most is not None:
            together = (lengths / limits(hidden.lengths, self.most)).ceil().long()
            share, lengths = runs(share.argmax(-1) // together[:, None], hidden.mask)
        return Padded(share.mT.to(hidden.values.dtype) @ hidden.values, lengths)

    def _loss(self, hidden: Padded, targets: Sequence[Sequence[int]]) -> Tensor:
        """token_ctc from h (B, T, C): apart from the labels, for it has a backward pass and, under autocast, its precision."""
        classes = TargetClasses(targets, self.blank_id, hidden.values.device)
        (log_probs,) = by_utterance(lambda row: (classes.log_probs(self.logits(row)),), hidden)
        return classes.loss(log_probs, hidden.lengths)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """An upper bound: T, or what ``most`` leaves of it."""
        return lengths if self.most is None else torch.minimum(lengths, limits(lengths, self.most).ceil().long())


def limits(lengths: Tensor, most: float) -> Tensor:
    """How many embeddings (B,) so many frames (B,) may become, as float32, 1 or more; see ``most`` of ``CTC``."""
    return (lengths * most if most < 1 else torch.full_like(lengths, int(most)).float()).clamp(min=1)


class TargetClasses:
    """The classes of a batch that a CTC loss over a whole vocabulary is about: its targets, the blank, and all others as one.

    No path goes through the others, so that the loss and its gradients are those over the vocabulary, whose scores of every
    frame need not be kept.

    Args:
        targets: the tokens of each answer, the end token last, which is left out.
        blank_id: token or class of the blank.
        device: of the scores.
    """

    def __init__(self, targets: Sequence[Sequence[int]], blank_id: int, device: torch.device) -> None:
        said = [row[:-1] for row in targets]
        known = sorted({blank_id, *(token for row in said for token in row)})
        number = {token: index for index, token in enumerate(known)}
        self.known = torch.tensor(known, device=device)
        self.blank = number[blank_id]
        self.targets = torch.tensor([number[token] for row in said for token in row], dtype=torch.long, device=device)
        self.sizes = torch.tensor([len(row) for row in said], device=device)

    def log_probs(self, logits: Tensor) -> Tensor:
        """(..., V) -> (..., n + 1) in float32, the others last."""
        found: Tensor = _LogProbs.apply(logits.flatten(0, -2), self.known)
        return found.unflatten(0, logits.shape[:-1])

    def loss(self, log_probs: Tensor, lengths: Tensor) -> Tensor:
        """CTC summed over the batch; what does not fit its frames counts as zero.

        Args:
            log_probs: (B, T, n + 1).
            lengths: (B,) frames of each.
        """
        steps = log_probs.transpose(0, 1)
        return F.ctc_loss(steps, self.targets, lengths, self.sizes, blank=self.blank, reduction="sum", zero_infinity=True)


class _LogProbs(torch.autograd.Function):
    """Log-softmax over a vocabulary, told for some classes and for all others together.

    Scores (T, V), classes (n,) -> (T, n + 1) in float32. Forward and backward go over a few steps at a time, so that what is
    made of their scores stays in the processor's cache: operations on all of them take about as long as the layer itself.

    With p the softmax, P what of it the others have, g the gradients of the classes and g_o that of the others:
    dL/ds_v = g_v - p_v (sum(g) + g_o) for a class, p_v (g_o / P - sum(g) - g_o) for one of the others.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, classes: Tensor) -> Tensor:
        least = torch.finfo(torch.float32).min  # not minus infinity: where every class is told, the others are none
        found = scores.new_empty(len(scores), len(classes) + 1, dtype=torch.float32)
        for given, out in zip(scores.split(STEPS_AT_A_TIME), found.split(STEPS_AT_A_TIME), strict=True):
            values = given.to(torch.float32, copy=True)
            out[:, :-1] = values[:, classes]
            out[:, -1] = values.index_fill_(-1, classes, least).logsumexp(-1)
        total = found.logsumexp(-1, keepdim=True)
        found -= total
        ctx.save_for_backward(scores, classes, found, total)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        scores, classes, found, total = ctx.saved_tensors
        of_others = gradient[:, -1:] / found[:, -1:].exp().clamp(min=torch.finfo(torch.float32).tiny)
        share = of_others - gradient.sum(-1, keepdim=True)
        of_classes = gradient[:, :-1] - found[:, :-1].exp() * of_others
        result = torch.empty_like(scores)
        parts = (values.split(STEPS_AT_A_TIME) for values in (scores, total, share, of_classes, result))
        for given, sums, factor, own, out in zip(*parts, strict=True):
            values = (given - sums).exp_().mul_(factor)
            out.copy_(values.index_add_(-1, classes, own))
        return result, None


def by_utterance(read: Callable[[Tensor], tuple[Tensor, ...]], frames: Padded) -> list[Tensor]:
    """What ``read`` makes of the frames (T_i, E) of each utterance, padded with zeros: (B, T, ...) each.

    Padding never meets the vocabulary, and the scores over it are made again in the backward pass: of a minute of speech at 50
    frames a second, those over 49,152 tokens take 600 MB, and every step that is taken with them as much again.
    """
    made = [checkpoint(read, row, use_reentrant=False, preserve_rng_state=False) for row in frames.rows()]
    batches = [pad_sequence(list(each), batch_first=True) for each in zip(*made, strict=True)]
    missing = frames.values.shape[1] - batches[0].shape[1]  # where even the longest has padding
    return [F.pad(batch, (0, 0) * (batch.dim() - 2) + (0, missing)) for batch in batches]


def in_full(layer: nn.Linear, values: Tensor) -> Tensor:
    """(T, E) -> (T, V), also under autocast in the layer's own precision: rounding would decide where a run ends."""
    with torch.autocast(values.device.type, enabled=False):
        scores: Tensor = layer(values)
        return scores
