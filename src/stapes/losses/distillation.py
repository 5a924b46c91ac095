"""``distillation``: answer to speech as the LLM answers to its transcript. Ultravox's loss (github.com/fixie-ai/ultravox).

    teacher p = softmax(LLM([before] [transcript] [after] [answer]) / T),   as it was: no gradient, LoRA off
    student q = softmax(model([before] [speech] [after] [answer]) / T)
    loss = sum over the answers' positions of KL(p || q)

| Ultravox | here | shape |
|---|---|---|
| student logits | ``student`` | (n, V) |
| teacher logits | ``teacher`` | (n, V) |
| ``kl_temperature``, 2 | ``temperature`` | |

As there, the sum is not multiplied by T^2, so that a higher temperature is also a lower weight.

Differs from Ultravox: the position that predicts the end token counts once (later versions weigh it again, by 1); the answer is
the task's target, which may be the transcript itself, where Ultravox has the LLM write a continuation first; the transcript
that the teacher reads goes through the task's normaliser, as targets do. An utterance without a transcript teaches nothing
and takes no part. The teacher costs a second forward pass of the LLM.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from stapes.losses.base import Loss
from stapes.types import Utterance


class Distillation(Loss):
    """KL divergence from the LLM that reads the transcript; targets: tokens of the utterances with a transcript.

    Args:
        temperature: T.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Logits (n, V) of both -> scalar, in float32."""
        p, q = ((logits.float() / self.temperature).log_softmax(-1) for logits in (teacher, student))
        return F.kl_div(q, p, reduction="sum", log_target=True)

    def target_count(self, answers: Sequence[Sequence[int]], utterances: Sequence[Utterance]) -> int:
        """Tokens of the answers, of those with a transcript."""
        return sum(len(answer) for answer, row in zip(answers, utterances, strict=True) if has_transcript(row))


def has_transcript(utterance: Utterance) -> bool:
    """Whether there is something that the teacher can read."""
    return bool(utterance.text.strip())
