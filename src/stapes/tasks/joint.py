"""Two tasks in one answer: the transcript on the first line, and on the second what is found in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from stapes.tasks.asr import ASR
from stapes.tasks.base import OVER, Result, Task, key_of
from stapes.tasks.ner import NER
from stapes.tasks.sentiment import Sentiment
from stapes.tasks.style import Style, letter_class
from stapes.types import Score, Utterance

BREAK = "\n"


class Joint(Task):
    """Transcribe, then do another task on what was heard, in the same answer.

    Args:
        second: what stands on the second line.
        known: instructions for both.
        instruction, templates: as for ``Task``.
        style: of the transcript.
    """

    def __init__(self, second: Task, known: Sequence[str], instruction: str | None, templates: int, style: Style) -> None:
        super().__init__(known, instruction, templates)
        self.first, self.second, self.style = ASR(style=style), second, style
        self.normaliser, self.scores_sound = self.first.normaliser, self.first.scores_sound
        self.longer = self.first.longer + (1.0 if isinstance(second, NER) else 0.0)

    @property
    def key(self) -> str:
        """See ``Task.key``."""
        return key_of(self.name, self.style)

    def has_target(self, utterance: Utterance) -> bool:
        """Whether both have theirs."""
        return self.first.has_target(utterance) and self.second.has_target(utterance)

    def target(self, utterance: Utterance) -> str:
        """Both lines."""
        return f"{self.first.target(utterance)}{BREAK}{self.second.target(utterance)}"

    def kind(self, utterance: Utterance) -> str:
        """That of the second task."""
        return self.second.kind(utterance)

    def reference(self, utterance: Utterance) -> Result:
        """The transcript, and the labels of the second task."""
        labels = self.second.reference(utterance)
        return Result(self.first.reference(utterance).text, labels.entities, labels.sentiment)

    def parse(self, answer: str) -> Result:
        """Of one line alone, a transcript; a repair, since there should be two."""
        said, line_break, rest = answer.partition(BREAK)
        labels = self.second.parse(rest)
        repairs = labels.repairs if line_break else max(1, labels.repairs)
        return Result(self.first.parse(said).text, labels.entities, labels.sentiment, repairs)

    def scores(
        self, references: Sequence[Result], hypotheses: Sequence[Result], normaliser: str | None = None, resamples: int = 1000
    ) -> dict[str, Score]:
        """Those of both."""
        sides = references, hypotheses
        return self.second.scores(*sides, resamples=resamples) | self.first.scores(*sides, normaliser, resamples)

    def grammar(self) -> str:
        """Words, and behind a line break what the second task allows."""
        words = letter_class(self.style)
        return f"(?:{words}+(?: {words}+)*)?{BREAK}(?:{self.second.grammar()})"

    def listen(self, state: str, letters: str) -> tuple[str, str]:
        """The first line is spoken, and its end is the end of what was said."""
        said, line_break, _ = letters.partition(BREAK)
        return (OVER if state or line_break else ""), ("" if state else said)

    def labels(self, reference: Result, hypothesis: Result) -> dict[str, Any]:
        """Those of the second task."""
        return self.second.labels(reference, hypothesis)

    def provenance(self) -> dict[str, str]:
        """That of the second task."""
        return self.second.provenance()


class TranscriptAndEntities(Joint):
    """``asr+ner``: a transcript, and below it the list of its entities.

    Args:
        instruction, templates, style: as for ``ASR``.
        tags: as for ``NER``.
    """

    name = "asr+ner"
    criterion = "ner_f1"

    def __init__(
        self,
        instruction: str | None = None,
        templates: int = 1,
        style: Style = "spoken",
        tags: Literal["combined", "raw"] = "combined",
    ) -> None:
        known = (
            "Transcribe the speech, then list its named entities.",
            "Write down what is said, and below it the entities.",
            "What does the speaker say, and which names, places, numbers and dates are in it?",
            "Give the words of this recording, then its entities.",
            "Turn the speech into text and extract the named entities.",
            "Note down the spoken words, then the entities among them.",
            "Listen, write what you hear, and list the entities.",
            "Put the audio into writing and add a list of its entities.",
            "Give a transcript of the audio and its named entities.",
        )
        super().__init__(NER(style=style, markup="json", tags=tags), known, instruction, templates, style)


class TranscriptAndSentiment(Joint):
    """``asr+sentiment``: a transcript, and below it the sentiment.

    Args:
        instruction, templates, style: as for ``ASR``.
    """

    name = "asr+sentiment"
    criterion = "sentiment_f1"

    def __init__(self, instruction: str | None = None, templates: int = 1, style: Style = "spoken") -> None:
        known = (
            "Transcribe the speech, then name its sentiment.",
            "Write down what is said, and below it the sentiment.",
            "What does the speaker say, and is it negative, neutral or positive?",
            "Give the words of this recording, then its mood.",
            "Turn the speech into text and classify its sentiment.",
            "Note down the spoken words, then the feeling in them.",
            "Listen, write what you hear, and judge the sentiment.",
            "Put the audio into writing and add its sentiment.",
            "Give a transcript of the audio and its sentiment.",
        )
        super().__init__(Sentiment(), known, instruction, templates, style)
