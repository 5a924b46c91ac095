"""``contrastive``: of the texts of a batch, each utterance is to be nearest to its own, and the other way about. Ours.

    s_i = mean_k H_i,k / |.|;   t_i = mean_u E_i,u / |.|;   L = exp(g) s t^T
    loss = sum_i  ( -log softmax_j(L_ij)_j=i  -  log softmax_j(L_ji)_j=i ) / 2

Symmetric InfoNCE with a learned temperature 1 / exp(g), as between images and captions (CLIP, arXiv 2103.00020), at the place
of ``matching``: between the adapter's outputs H (B, K, D) and the LLM's own embeddings E (B, U, D) of the transcripts' tokens
without the end token, which are constant. It is here so that its combination with ``matching`` can be asked about.

**It depends on the batch by definition**: what an utterance is told apart from are the others of its micro-batch, those of
other processes not among them, so that ``batch_seconds`` is one of its settings. Alone, an utterance has nothing to be told
apart from, and the loss is zero. Without words it takes no part. Two utterances of the same text push each other away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stapes.losses.base import SpeechAndText, SpeechLoss
from stapes.types import Padded, Utterance

MOST_SCALE = 100.0  # as in CLIP


class Contrastive(SpeechLoss):
    """InfoNCE over mean-pooled speech and text; targets: utterances with words.

    Args:
        temperature: that the learned one starts from.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self, batch: SpeechAndText) -> Tensor:
        """See ``SpeechLoss.forward``; not the sum of its utterances' alone."""
        with torch.autocast(batch.speech.values.device.type, enabled=False):
            worded = batch.text.lengths > 0
            speech, text = (F.normalize(_mean(side)[worded], dim=-1) for side in (batch.speech, batch.text))
            logits = self.log_scale.exp().clamp(max=MOST_SCALE) * speech @ text.T
            return -(logits.log_softmax(0) + logits.log_softmax(1)).diagonal().sum() / 2

    def target_count(self, answers: Sequence[Sequence[int]], utterances: Sequence[Utterance]) -> int:
        """Utterances with words."""
        return sum(len(answer) > 1 for answer in answers)


def _mean(side: Padded) -> Tensor:
    """(B, T, D) -> (B, D), padding left out; zeros for a row without steps."""
    values = side.to(dtype=torch.float32).zero_padding().values
    return values.sum(1) / side.lengths.clamp(min=1)[:, None].to(values.device)
