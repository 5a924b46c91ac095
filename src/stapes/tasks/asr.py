"""Speech recognition: the words, in lower case and without punctuation, whatever the corpus wrote."""

from __future__ import annotations

from stapes.tasks.base import Task
from stapes.text import normalise
from stapes.types import Utterance


class ASR(Task):
    """Transcribe.

    Args:
        instruction: what the LLM is told; short, since every utterance pays for it.
        normaliser: applied to every transcript before it becomes a target.
    """

    name = "asr"

    def __init__(self, instruction: str = "Transcribe the speech.", normaliser: str = "slue") -> None:
        self.instruction, self.normaliser = instruction, normaliser
        self._normalise = normalise.get(normaliser)

    def target(self, utterance: Utterance) -> str:
        """The normalised transcript, empty for non-speech."""
        return self._normalise(utterance.text)

    def parse(self, text: str) -> str:
        """The transcript as written, white space trimmed."""
        return " ".join(text.split())
