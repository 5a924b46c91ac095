"""``matching``: each token's embedding, sought in the speech, is to be found there. Matching loss of arXiv 2406.17272.

    A = softmax(E H^T / sqrt(D)) over the utterance's own embeddings;   H~ = A H
    loss = sum_u  a * mean_D (H~_u - E_u)^2  +  b * (1 - cos(H~_u, E_u))

| paper | here | shape |
|---|---|---|
| text embeddings E (queries), constant | ``batch.text`` | (B, U, D) |
| acoustic embeddings H (keys and values) | ``batch.speech`` | (B, K, D) |
| aligned acoustic embeddings H~, as many as tokens | ``attend`` | (B, U, D) |
| weights a and b | ``mse``, ``cosine`` | |
| dot-product or scaled dot-product | ``score`` | |

The loss says of each token that it is to be in the speech, and not where: order and repetitions cost nothing. It can align an
adapter before the LLM is run, and go on beside ``next_token``.

Ours, where the paper's text was not to be had: both weights are 1, scores are scaled, H are the adapter's outputs before any
compression, the end token (which has no sound) is left out. ``projection_dim`` puts a learned map before either side of the
scores, and none before what is compared. All of it is computed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stapes.losses.base import SpeechAndText, SpeechLoss
from stapes.types import Padded, Utterance


class Matching(SpeechLoss):
    """Cross-attention of text over speech, then MSE and cosine distance; targets: tokens without the end token.

    Args:
        llm_dim: D.
        score: E H^T as it is ("dot"), or divided by the root of the width ("scaled_dot").
        mse: weight a.
        cosine: weight b.
        projection_dim: width of learned projections of queries and keys; None for none.
    """

    def __init__(
        self, llm_dim: int, score: Literal["dot", "scaled_dot"], mse: float, cosine: float, projection_dim: int | None
    ) -> None:
        super().__init__()
        self.mse, self.cosine = mse, cosine
        self.scale = 1 / math.sqrt(projection_dim or llm_dim) if score == "scaled_dot" else 1.0
        project = projection_dim is not None
        self.query = nn.Linear(llm_dim, projection_dim or llm_dim, bias=False) if project else nn.Identity()
        self.key = nn.Linear(llm_dim, projection_dim or llm_dim, bias=False) if project else nn.Identity()

    def forward(self, batch: SpeechAndText) -> Tensor:
        """See ``SpeechLoss.forward``."""
        with torch.autocast(batch.speech.values.device.type, enabled=False):
            text = batch.text.to(dtype=torch.float32).zero_padding()
            found, wanted = self.attend(text, batch.speech)[text.mask], text.values[text.mask]
            squared = (found - wanted).square().mean(-1)
            return (self.mse * squared + self.cosine * (1 - F.cosine_similarity(found, wanted, dim=-1))).sum()

    def attend(self, text: Padded, speech: Padded) -> Tensor:
        """(B, U, D) queries over (B, K, D) -> (B, U, D): for each token, the mean of the speech that resembles it."""
        heard = speech.to(dtype=torch.float32).zero_padding()
        scores = self.scale * self.query(text.values) @ self.key(heard.values).mT
        return scores.masked_fill(~heard.mask[:, None, :], -torch.inf).softmax(-1) @ heard.values

    def target_count(self, answers: Sequence[Sequence[int]], utterances: Sequence[Utterance]) -> int:
        """Tokens, the end tokens left out."""
        return sum(len(answer) - 1 for answer in answers)
