"""What every loss with a module promises; ``tests/losses/test_contract.py`` holds each one in the table to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from stapes.types import Padded, Utterance


@dataclass(frozen=True)
class SpeechAndText:
    """The two sides of a batch, in the LLM's space.

    Attributes:
        speech: (B, K, D) of the adapter, not compressed.
        text: (B, U, D), the LLM's own embeddings of the transcripts' tokens, without the end token; no gradient flows there.
        utterances: what is known of each; a loss of labels looks here.
    """

    speech: Padded
    text: Padded
    utterances: Sequence[Utterance] = ()


class Loss(nn.Module, ABC):
    """A sum over targets; the training loop divides it by their number in the whole step.

    Its parameters are trained by a stage that lists ``losses`` among what is trainable, and are kept in the checkpoint.
    The value for a batch is the sum of the values for its utterances, except where a loss says otherwise.
    """

    def observe(self, mixture: Iterable[tuple[Utterance, float]]) -> None:
        """Learn what has to be known of the training mixture before the first step; nothing, for most.

        Args:
            mixture: every utterance, and how often it is seen in an epoch.

        Raises:
            DataError: there is nothing in it that this loss could be trained on.
        """

    @abstractmethod
    def target_count(self, answers: Sequence[Sequence[int]], utterances: Sequence[Utterance]) -> int:
        """How many targets some utterances have, given the token ids of their answers (the end token last)."""


class SpeechLoss(Loss):
    """A loss on what the adapter gives, for which the LLM is not run."""

    @abstractmethod
    def forward(self, batch: SpeechAndText) -> Tensor:
        """Sum over the batch's targets: a scalar in float32, which has a graph even where there are none."""
