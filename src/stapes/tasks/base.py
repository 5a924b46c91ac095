"""What every task promises."""

from __future__ import annotations

from abc import ABC, abstractmethod

from stapes.types import Utterance


class Task(ABC):
    """Prompt, target and parser of one task; all three belong to the checkpoint.

    Attributes:
        name: as in the table.
        instruction: what the LLM is told.
        normaliser: the name of the text normaliser that made the targets, and that scores use by default.
    """

    name: str
    instruction: str
    normaliser: str

    @abstractmethod
    def target(self, utterance: Utterance) -> str:
        """The text that the model should write for an utterance."""

    @abstractmethod
    def parse(self, text: str) -> str:
        """The result in what the model wrote."""
