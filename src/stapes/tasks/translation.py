"""Speech translation: what is said, in another language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stapes.metrics.signature import with_facts
from stapes.metrics.translation import bleu, chrf
from stapes.tasks.base import Result, Task, key_of
from stapes.text import normalise
from stapes.types import Score, Utterance

# As many as arXiv 2409.17044 trains with; the wording is ours.
INSTRUCTIONS = (
    "Translate the speech into {language}.",
    "Write in {language} what is said.",
    "What does the speaker say, in {language}?",
    "Give the meaning of this recording in {language}.",
    "Turn the speech into {language} text.",
    "Put into {language} what you hear.",
    "Listen, and translate into {language}.",
    "Render the audio in {language}.",
    "Give a {language} translation of the audio.",
)
LANGUAGES = {
    "ar": "Arabic",
    "ca": "Catalan",
    "cs": "Czech",
    "cy": "Welsh",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "hi": "Hindi",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "lv": "Latvian",
    "mn": "Mongolian",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sl": "Slovenian",
    "sv": "Swedish",
    "ta": "Tamil",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char"}  # sacrebleu's, for languages without spaces between words


class Translation(Task):
    """Translate from whatever language the encoder knows.

    Args:
        to: code of the language that is wanted, a key of the manifest's ``translations``.
        instruction, templates: as for ``Task``; "{language}" in an instruction stands for its name.
    """

    name = "translation"
    criterion = "bleu"
    normaliser = "none"
    longer = 2.0

    def __init__(self, to: str, instruction: str | None = None, templates: int = 1) -> None:
        super().__init__(INSTRUCTIONS, instruction, templates)
        self.to = to
        language = LANGUAGES.get(to, f"the language '{to}'")
        self.instructions = tuple(text.replace("{language}", language) for text in self.instructions)

    @property
    def key(self) -> str:
        """See ``Task.key``."""
        return key_of(self.name, to=self.to)

    def has_target(self, utterance: Utterance) -> bool:
        """Whether it has a translation into the language."""
        return self.to in utterance.translations

    def target(self, utterance: Utterance) -> str:
        """The translation, white space collapsed."""
        return normalise.none(utterance.translations[self.to])

    def reference(self, utterance: Utterance) -> Result:
        """The translation."""
        return Result(self.target(utterance))

    def parse(self, answer: str) -> Result:
        """The answer, white space collapsed."""
        return Result(normalise.none(answer))

    def scores(
        self, references: Sequence[Result], hypotheses: Sequence[Result], normaliser: str | None = None, resamples: int = 1000
    ) -> dict[str, Score]:
        """BLEU and chrF, on texts as they are written."""
        expected, found = [each.text for each in references], [each.text for each in hypotheses]
        tokenize = TOKENIZERS.get(self.to, "13a")
        scores = {
            "bleu": bleu(expected, found, tokenize=tokenize, resamples=resamples),
            "chrf": chrf(expected, found, resamples=resamples),
        }
        return {name: with_facts(score, to=self.to) for name, score in scores.items()}

    def labels(self, reference: Result, hypothesis: Result) -> dict[str, Any]:
        """Both translations."""
        return {"reference_translation": reference.text, "translation": hypothesis.text}
