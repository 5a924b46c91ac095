"""Speech recognition in two styles: the words alone, or as a person would write them."""

from __future__ import annotations

from collections.abc import Sequence

from stapes.metrics.wer import cer, wer
from stapes.tasks.base import Result, Task, key_of
from stapes.tasks.style import LONGER, NORMALISERS, Style, check_style, in_style, is_said, said
from stapes.text import normalise
from stapes.types import Score, Utterance

# As many as arXiv 2409.17044 trains with; the wording is ours.
SPOKEN = (
    "Transcribe the speech.",
    "Write down what is said.",
    "What does the speaker say?",
    "Give the words of this recording.",
    "Turn the speech into text.",
    "Note down the spoken words.",
    "Listen, and write what you hear.",
    "Put the audio into writing.",
    "Give a transcript of the audio.",
)
WRITTEN = (
    "Transcribe the speech with punctuation.",
    "Write down what is said as a person would write it.",
    "What does the speaker say? Write full sentences.",
    "Give the words of this recording with capitals and punctuation.",
    "Turn the speech into written text.",
    "Note down what is said in proper spelling.",
    "Listen, and write what you hear with digits and punctuation.",
    "Put the audio into well-written text.",
    "Give a clean, punctuated transcript of the audio.",
)


class ASR(Task):
    """Transcribe.

    Args:
        instruction, templates: as for ``Task``.
        style: "spoken": lower-case words, whatever the corpus wrote; "written": case, punctuation and digits as in
            ``raw_text``, or in ``text`` where an utterance has no other.
        normaliser: applied to every transcript before it becomes a target; by default "slue" for spoken, "none" for written.
    """

    name = "asr"
    criterion = "wer"
    lower_is_better = True

    def __init__(
        self, instruction: str | None = None, templates: int = 1, style: Style = "spoken", normaliser: str | None = None
    ) -> None:
        check_style(self.name, style)
        super().__init__(SPOKEN if style == "spoken" else WRITTEN, instruction, templates)
        self.style = style
        self.normaliser = normaliser or NORMALISERS[style]
        self._normalise = normalise.get(self.normaliser)
        self.scores_sound = style == "spoken"  # the CTC head knows no case, no punctuation and no digits
        self.longer = LONGER[style]

    @property
    def key(self) -> str:
        """See ``Task.key``."""
        return key_of(self.name, self.style)

    def has_target(self, utterance: Utterance) -> bool:
        """See ``is_said``; an empty transcript is non-speech."""
        return is_said(utterance, self.style)

    def target(self, utterance: Utterance) -> str:
        """The normalised transcript, empty for non-speech."""
        return self._normalise(said(utterance, self.style))

    def reference(self, utterance: Utterance) -> Result:
        """The transcript as the corpus has it."""
        return Result(said(utterance, self.style))

    def parse(self, answer: str) -> Result:
        """The transcript as written, white space trimmed."""
        return Result(" ".join(answer.split()))

    def scores(
        self, references: Sequence[Result], hypotheses: Sequence[Result], normaliser: str | None = None, resamples: int = 1000
    ) -> dict[str, Score]:
        """WER and CER; see ``Task.scores``."""
        return in_style(rates(references, hypotheses, normaliser or self.normaliser, resamples), self.style)


def rates(references: Sequence[Result], hypotheses: Sequence[Result], normaliser: str, resamples: int) -> dict[str, Score]:
    """WER and CER of the texts."""
    texts, found = [each.text for each in references], [each.text for each in hypotheses]
    return {
        "wer": wer(texts, found, normaliser=normaliser, resamples=resamples),
        "cer": cer(texts, found, normaliser=normaliser, resamples=resamples),
    }
