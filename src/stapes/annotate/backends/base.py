"""What every annotator promises."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Question:
    """One utterance, put to an annotator.

    Attributes:
        id: of the utterance.
        text: what the annotator reads.
        messages: the conversation that asks an LLM; empty for annotators that need no telling.
    """

    id: str
    text: str
    messages: tuple[dict[str, str], ...] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that is sent, by which an answer in a journal is known to belong to this question."""
        return hashlib.sha256(json.dumps([self.text, self.messages]).encode()).hexdigest()


@dataclass
class Usage:
    """Tokens that requests cost, as the server counts them; those of requests that led nowhere are in it."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def add(self, other: Usage) -> None:
        """Count another's tokens in."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Answer:
    """What came of a question.

    Attributes:
        labels: ``{"entities": [...]}`` or ``{"sentiment": ...}``; None where there are none.
        failure: why there are none.
        final: whether the annotator answered; if not, the next run asks again.
        usage: what it cost.
        trouble: what went wrong on the way, counted by kind ("429", "timeout", "broken JSON", ...).
    """

    labels: dict[str, Any] | None = None
    failure: str = ""
    final: bool = True
    usage: Usage = field(default_factory=Usage)
    trouble: Counter[str] = field(default_factory=Counter)


class Backend(ABC):
    """An annotator.

    Attributes:
        name: which kind it is.
        concurrency: how many questions it takes at once.
    """

    name: str
    concurrency = 1

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What its answers depend on, beside the question."""

    @abstractmethod
    async def ask(self, question: Question) -> Answer:
        """Answer a question; whatever befalls one question alone is a failure in its answer, not an exception.

        Raises:
            StapesError: no question can be answered.
        """

    async def close(self) -> None:
        """Let go of connections."""
        return
