"""Sentiment: one of SLUE's three labels, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from stapes.errors import DataError
from stapes.metrics.classification import sentiment_f1
from stapes.tasks.base import Result, Task
from stapes.text import tags
from stapes.types import Score, Utterance

INSTRUCTIONS = (
    "Is the sentiment of the speech negative, neutral or positive?",
    "Name the sentiment of the speech.",
    "What does the speaker feel: negative, neutral or positive?",
    "Judge the mood of this recording.",
    "Classify the speech as negative, neutral or positive.",
    "Note down the sentiment that is expressed.",
    "Listen, and say what feeling you hear.",
    "Label the attitude in the audio.",
    "Give the sentiment of the audio in one word.",
)


class Sentiment(Task):
    """Say how the speaker feels about what is said: Negative, Neutral or Positive.

    Args:
        instruction, templates: as for ``Task``.
    """

    name = "sentiment"
    criterion = "sentiment_f1"
    normaliser = "none"

    def __init__(self, instruction: str | None = None, templates: int = 1) -> None:
        super().__init__(INSTRUCTIONS, instruction, templates)

    def has_target(self, utterance: Utterance) -> bool:
        """Whether it has a label."""
        return utterance.sentiment is not None

    def target(self, utterance: Utterance) -> str:
        """The label; annotators who saw both sides, or did not agree, make a Neutral."""
        return tags.sentiment(utterance.sentiment or "", utterance.source or utterance.id)

    def kind(self, utterance: Utterance) -> str:
        """The label."""
        return self.target(utterance)

    def reference(self, utterance: Utterance) -> Result:
        """The label."""
        return Result("", sentiment=self.target(utterance))

    def parse(self, answer: str) -> Result:
        """The label that the answer is, or the first that it names; a repair where it is anything more or less."""
        for word in re.findall(r"[^\W_]+", answer):
            try:
                return Result("", sentiment=tags.sentiment(word), repairs=int(answer.strip() not in tags.SENTIMENTS))
            except DataError:
                continue
        return Result("", repairs=1)

    def scores(
        self, references: Sequence[Result], hypotheses: Sequence[Result], normaliser: str | None = None, resamples: int = 1000
    ) -> dict[str, Score]:
        """SLUE's macro F1, with the weighted one among its parts."""
        expected = [each.sentiment or "" for each in references]
        return {"sentiment_f1": sentiment_f1(expected, [each.sentiment for each in hypotheses], resamples=resamples)}

    def grammar(self) -> str:
        """The labels."""
        return "|".join(tags.SENTIMENTS)

    def listen(self, state: str, letters: str) -> tuple[str, str]:
        """Nothing: a label is no word that was said."""
        return "", ""

    def labels(self, reference: Result, hypothesis: Result) -> dict[str, Any]:
        """Both labels."""
        return {"reference_sentiment": reference.sentiment, "sentiment": hypothesis.sentiment}
