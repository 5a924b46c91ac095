"""The CTC head: aligns speech embeddings with the LLM's own embedding table, and compresses them by what it hears.

Three uses, one module:

1. *Alignment* (``loss``): before any LLM is in the loop, the adapter learns to put each sound near the embedding of the piece
   it belongs to. Without it, next-token training of a fresh adapter sits on the language model's prior for long.
2. *Compression* (``compress``): runs of one label become one embedding and blanks are dropped, as in the CTC compressor of
   arXiv 2409.17044 and 2307.03917; what is left is near the number of text tokens.
3. *Scoring* (``log_probs``): decoding can ask how well a text fits the sound (``decoding/ctc_prefix.py``).

    logits_p = s * cos(z, e_p - mean(e)),  logit_blank = w . z/|z| + b            (e_p: row of the LLM's table)
    run r over frames t in r:  q_r = mean_t softmax(logits_t) over pieces, without blank, renormalised
                               x_r = sum_p q_r(p) e_p  +  R mean_t(z_t)           (R starts at zero; LegoSLM, arXiv 2505.11352)

CTC: Graves et al., ICML 2006. Scale, blank and the residual map R are our choices.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stapes.adapters.layers import runs
from stapes.types import Padded

BLANK = 0  # piece p of the vocabulary is class p + 1


class CTCHead(nn.Module):
    """CTC over pieces of the LLM's vocabulary, with rows of its embedding table as the output layer.

    Args:
        table: (P, D) embeddings of the pieces, frozen; stored only where the LLM's own may change (``SpeechLLM.store``).
        keep_below: compression keeps a frame that is most likely blank if the blank's probability is below this, so that
            what the head is unsure of still reaches the LLM.
    """

    table: Tensor

    def __init__(self, table: Tensor, keep_below: float = 0.9) -> None:
        super().__init__()
        self.keep_below = keep_below
        self.register_buffer("table", table.detach().clone(), persistent=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(16.0)))
        self.blank = nn.Linear(table.shape[1], 1)
        self.residual = nn.Linear(table.shape[1], table.shape[1], bias=False)
        nn.init.zeros_(self.blank.weight)
        nn.init.zeros_(self.blank.bias)
        nn.init.zeros_(self.residual.weight)

    @property
    def centred(self) -> Tensor:
        """(P, D) directions of the pieces from the middle of them all."""
        return F.normalize(self.table - self.table.mean(0), dim=-1)

    def log_probs(self, embeddings: Padded) -> Tensor:
        """(B, K, D) -> (B, K, 1 + P) log-probabilities in float32, blank first."""
        direction = F.normalize(embeddings.zero_padding().values.float(), dim=-1)
        pieces = self.log_scale.exp() * (direction @ self.centred.T).float()
        return torch.cat([self.blank(direction).float() * self.log_scale.exp(), pieces], dim=-1).log_softmax(-1)

    def loss(self, log_probs: Tensor, lengths: Tensor, targets: list[list[int]]) -> Tensor:
        """CTC loss summed over the batch.

        An utterance whose pieces do not fit into its embeddings has no alignment and counts as zero.

        Args:
            log_probs: (B, K, 1 + P).
            lengths: (B,) embeddings of each.
            targets: piece numbers of each.
        """
        flat = torch.tensor([piece + 1 for row in targets for piece in row], device=log_probs.device)
        sizes = torch.tensor([len(row) for row in targets], device=log_probs.device)
        return F.ctc_loss(log_probs.transpose(0, 1), flat, lengths, sizes, blank=BLANK, reduction="sum", zero_infinity=True)

    def best_pieces(self, log_probs: Tensor, lengths: Tensor) -> list[list[int]]:
        """Greedy CTC: the piece numbers of the best path of each utterance, repeats merged, blanks removed."""
        best = log_probs.argmax(-1).cpu()
        paths = [torch.unique_consecutive(row[:length]).tolist() for row, length in zip(best, lengths.tolist(), strict=True)]
        return [[label - 1 for label in path if label != BLANK] for path in paths]

    def compress(self, embeddings: Padded, log_probs: Tensor) -> Padded:
        """Average runs of one label and drop blanks: (B, K, D) -> (B, R, D), R at least 1 and at most K.

        An utterance without any label becomes one embedding, the average of all.
        """
        label = log_probs.argmax(-1)
        real = embeddings.mask
        kept = real & ((label != BLANK) | (log_probs[:, :, BLANK] < math.log(self.keep_below)))
        kept = torch.where(kept.any(1, keepdim=True), kept, real)
        weight, lengths = runs(label, kept)
        weight = weight.to(log_probs.dtype)
        pieces = log_probs[:, :, 1:].softmax(-1)
        expected = (weight.mT @ pieces) @ self.table.to(pieces.dtype)
        sound = weight.mT @ embeddings.zero_padding().values.to(weight.dtype)
        return Padded(expected + self.residual(sound), lengths).zero_padding()
