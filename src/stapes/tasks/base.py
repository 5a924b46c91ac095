"""What every task promises: what is asked, what is to be answered, how an answer is read, and how it is scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from stapes.errors import RecipeError
from stapes.registry import nearest
from stapes.types import Entity, Score, Utterance

OVER = "\n"  # state of ``Task.listen`` from where nothing more is spoken; no markup holds a line break back


@dataclass(frozen=True)
class Result:
    """What an answer says, or should say.

    Attributes:
        text: the words: a transcript, or a translation; empty where the task asks for none.
        entities: spans of ``text``; None for a task that does not name them.
        sentiment: one of ``tags.SENTIMENTS``; None for a task that does not ask, and for an answer that is none of them.
        repairs: how many places of the answer were malformed and had to be mended.
    """

    text: str
    entities: tuple[Entity, ...] | None = None
    sentiment: str | None = None
    repairs: int = 0


@dataclass(frozen=True)
class Example:
    """An utterance and what is asked about it.

    Attributes:
        utterance: with the labels that the task needs.
        task: its key; empty for the model's first task.
        template: which of the task's instructions is used.
        emphasis: how many tokens a token of its answer counts for in the loss.
    """

    utterance: Utterance
    task: str = ""
    template: int = 0
    emphasis: float = 1.0


class Task(ABC):
    """Prompt, target, parser and scores of one task in one style; all of it belongs to the checkpoint.

    Args:
        known: our instructions for this task, the best first.
        instruction: what the LLM is told; None for the first that is known.
        templates: how many of them training chooses among; answers are always asked for by the first.

    Attributes:
        name: as in the table.
        normaliser: the name of the text normaliser that made the targets, and that scores use by default.
        criterion: the score that says most, by its name in ``scores``.
        lower_is_better: whether the criterion is an error rate.
        longer: how many times the tokens of a plain transcript an answer may need.
        scores_sound: whether an answer holds the words that were said, in order, so that the CTC head can judge it.
    """

    name: ClassVar[str]
    criterion: ClassVar[str]
    lower_is_better: ClassVar[bool] = False
    normaliser: str
    longer: float = 1.0
    scores_sound: bool = False

    def __init__(self, known: Sequence[str], instruction: str | None, templates: int) -> None:
        if not 1 <= templates <= len(known):
            raise RecipeError(f"task '{self.name}'", f"templates: {templates}", f"1 to {len(known)}")
        if instruction is not None and templates > 1:
            found = f"an instruction of your own and templates: {templates}"
            raise RecipeError(f"task '{self.name}'", found, "one of them", "leave templates out")
        self.instructions = tuple(known[:templates]) if instruction is None else (instruction,)

    @property
    def key(self) -> str:
        """What tells it from a model's other tasks: its name, and what is not the default of its options."""
        return self.name

    @property
    def instruction(self) -> str:
        """What the LLM is told when the model is used."""
        return self.instructions[0]

    @abstractmethod
    def has_target(self, utterance: Utterance) -> bool:
        """Whether an utterance has the labels that a target is made of."""

    @abstractmethod
    def target(self, utterance: Utterance) -> str:
        """The text that the model should write for an utterance that ``has_target``."""

    def kind(self, utterance: Utterance) -> str:
        """Which kind of answer a target is, for mixtures that are balanced over them; one for all, unless said otherwise."""
        return ""

    @abstractmethod
    def reference(self, utterance: Utterance) -> Result:
        """What a right answer says, from the labels themselves; of an utterance that ``has_target``."""

    @abstractmethod
    def parse(self, answer: str) -> Result:
        """What an answer says. Never raises: what is malformed gives what can be saved."""

    @abstractmethod
    def scores(
        self, references: Sequence[Result], hypotheses: Sequence[Result], normaliser: str | None = None, resamples: int = 1000
    ) -> dict[str, Score]:
        """Every score that applies, the criterion among them.

        Args:
            references: of each utterance.
            hypotheses: in the same order.
            normaliser: of texts, in place of the task's own.
            resamples: of the bootstrap; 0 for no intervals.
        """

    def grammar(self) -> str | None:
        """A regular expression of all well-formed answers; None where any text is one."""
        return None

    def listen(self, state: str, letters: str) -> tuple[str, str]:
        """Which of the next letters of an answer are spoken words.

        Args:
            state: what the last call returned; "" at the beginning.
            letters: that the answer goes on with.

        Returns:
            The new state, and the spoken ones of ``letters``. The state is ``OVER`` where words were and none can follow: the
            letters that bring it about are held against the sound as the end of what was said.
        """
        return state, letters

    @property
    def has_words(self) -> bool:
        """Whether an answer is, or holds, a text: not a label or a list alone."""
        return bool(self.listen("", " a")[1])

    def labels(self, reference: Result, hypothesis: Result) -> dict[str, Any]:
        """What there is to be compared besides the texts, as ``predictions.jsonl`` has it."""
        return {}

    def provenance(self) -> dict[str, str]:
        """What its key does not tell of how answers are written, for the provenance of an evaluation."""
        return {}


def find_task(tasks: Mapping[str, Task], key: str) -> Task:
    """The task of that key; the first if it is empty.

    Raises:
        RecipeError: the model has no such task.
    """
    if key and key not in tasks:
        raise RecipeError("task", f"'{key}'", "one that this model does", nearest(key, tasks))
    return tasks[key] if key else next(iter(tasks.values()))


def key_of(name: str, style: str = "spoken", to: str | None = None) -> str:
    """The key of a task in a style, into a language: the defaults go without saying ("asr.written", "translation.fr")."""
    return ".".join([name, *([style] if style != "spoken" else []), *([to] if to is not None else [])])
