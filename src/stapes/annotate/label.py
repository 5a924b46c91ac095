"""The loop: a question for every utterance, several at once, each answer into the journal before anything else.

What is written in the end depends on the journal alone and not on the order in which answers came, so that a run which was
killed and begun again ends in the same bytes as one that was not.
"""

from __future__ import annotations

import asyncio
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stapes.annotate import prompt
from stapes.annotate.backends.base import Answer, Backend, Question
from stapes.annotate.examples import Pool
from stapes.annotate.filter import Filtered, Rejection, filter_entities
from stapes.annotate.journal import Journal
from stapes.annotate.prompt import Task
from stapes.annotate.reading import Reading
from stapes.data.manifest import NON_SPEECH, write_lines, write_manifest
from stapes.errors import AnnotationError, StapesError
from stapes.text import tags
from stapes.types import Utterance

FAILURES_IN_A_ROW = 10  # and as many again as are asked at once: then the server is down, or nothing suits it


@dataclass(frozen=True)
class Plan:
    """How utterances become questions.

    Attributes:
        task: "ner" or "sentiment".
        reading: which spelling the annotator reads.
        pool: few-shot examples; None for none.
        shots: how many of them go into a request.
        talks: whether the annotator is told anything (an LLM) or only reads.
    """

    task: Task
    reading: Reading
    pool: Pool | None = None
    shots: int = 0
    talks: bool = True

    @property
    def settings(self) -> dict[str, Any]:
        """What the answers depend on, for the journal."""
        instruction = prompt.INSTRUCTIONS[self.task] if self.talks else None
        shown = {} if self.pool is None else {"examples": self.pool.digest, "shots": self.shots}
        return {"task": self.task, "reads": self.reading.kind, "instruction": instruction, **shown}

    def question(self, utterance: Utterance) -> Question:
        """What the annotator is asked of an utterance."""
        text = self.reading.text(utterance)
        if not self.talks:
            return Question(utterance.id, text)
        drawn = [] if self.pool is None else self.pool.shots(utterance, self.shots)
        shown = [(self.reading.text(each), self._labels(each)) for each in drawn]
        return Question(utterance.id, text, tuple(prompt.messages(self.task, shown, text)))

    def _labels(self, example: Utterance) -> dict[str, Any]:
        if self.task == "sentiment":
            return {"sentiment": tags.sentiment(example.sentiment or "")}
        found = self.reading.entities(example)
        return {"entities": [{"tag": entity.label, "phrase": entity.phrase} for entity in found]}


@dataclass
class Labelled:
    """What came of a manifest.

    Attributes:
        utterances: with their new labels, in the manifest's order, without those that have none.
        rejected: what the filters dropped.
        failures: utterances without an answer: id, text and reason.
        filtered: what the filters made of each utterance's entities, by id.
        claimed: the sentiment of each utterance before the filter, by id.
    """

    utterances: list[Utterance] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    filtered: dict[str, Filtered] = field(default_factory=dict)
    claimed: dict[str, str] = field(default_factory=dict)


async def ask_all(
    utterances: Sequence[Utterance],
    plan: Plan,
    backend: Backend,
    journal: Journal,
    on_progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Answer]:
    """The answer for each utterance that holds words, by id; those in the journal are not asked for again.

    Raises:
        AnnotationError: the annotator cannot be asked, or has failed ``FAILURES_IN_A_ROW`` times and once more for each
            question that is asked at the same time. What it answered is in the journal; what led to this end, whatever it
            was, is asked again by the next run.
    """
    answers: dict[str, Answer] = {}
    failing: list[tuple[Question, Answer]] = []

    async def work(waiting: Iterator[Utterance]) -> None:
        nonlocal failing
        for utterance in waiting:
            question = plan.question(utterance)
            answer = journal.answer(question)
            if answer is None:
                answer = await backend.ask(question)
                journal.write(question, answer)
                failing = [*failing, (question, answer)] if answer.failure else []
                if len(failing) >= FAILURES_IN_A_ROW + backend.concurrency:
                    for each, failed in failing:
                        journal.write(each, Answer(failure=failed.failure, final=False))
                    found = f"{len(failing)} failures in a row, the last: {answer.failure}"
                    fix = "mend that and run the same command again: it goes on from here"
                    raise AnnotationError(backend.name, found, fix=fix)
            answers[utterance.id] = answer
            on_progress(1)

    waiting = iter([utterance for utterance in utterances if _has_words(utterance)])
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(backend.concurrency):
                group.create_task(work(waiting))
    except* StapesError as errors:
        raise errors.exceptions[0] from None
    finally:
        await backend.close()
    return answers


def apply(utterances: Sequence[Utterance], plan: Plan, answers: dict[str, Answer]) -> Labelled:
    """Filter the answers and put them in the place of whatever labels the utterances had."""
    labelled = Labelled()
    for utterance in utterances:
        if not _has_words(utterance):
            nothing = {"entities": ()} if plan.task == "ner" else {"sentiment": None}
            labelled.utterances.append(replace(utterance, **nothing))
            continue
        answer = answers[utterance.id]
        if answer.labels is None:
            labelled.failures.append({"id": utterance.id, "text": utterance.text, "reason": answer.failure})
        elif plan.task == "ner":
            _apply_entities(labelled, utterance, plan.reading, answer.labels)
        else:
            _apply_sentiment(labelled, utterance, answer.labels["sentiment"])
    return labelled


def beside(output: Path, what: str) -> Path:
    """The file beside an output manifest: "out.jsonl", "rejected.jsonl" -> "out.rejected.jsonl"."""
    return output.with_name(f"{output.stem}.{what}")


def write(output: Path, labelled: Labelled) -> None:
    """Write the manifest, and beside it what was rejected and what failed, each in one step and the manifest last."""
    output.parent.mkdir(parents=True, exist_ok=True)
    write_lines(beside(output, "rejected.jsonl"), (vars(each) for each in labelled.rejected))
    write_lines(beside(output, "failures.jsonl"), labelled.failures)
    write_manifest(output, labelled.utterances)


def _has_words(utterance: Utterance) -> bool:
    return utterance.kind != NON_SPEECH and bool(utterance.text.strip())


def _apply_entities(labelled: Labelled, utterance: Utterance, reading: Reading, labels: dict[str, Any]) -> None:
    found = filter_entities(utterance, prompt.claims(labels), reading.text(utterance), reading.is_raw(utterance))
    labelled.filtered[utterance.id] = found
    labelled.rejected += found.rejected
    labelled.utterances.append(replace(utterance, entities=found.entities, raw_entities=found.raw_entities))


def _apply_sentiment(labelled: Labelled, utterance: Utterance, claimed: str) -> None:
    """A sentiment that SLUE does not know is rejected, and its utterance has no label."""
    labelled.claimed[utterance.id] = claimed
    try:
        known = tags.sentiment(claimed.strip(string.punctuation + string.whitespace))
    except StapesError:
        labelled.rejected.append(Rejection(utterance.id, 2, "unknown sentiment", claimed, ""))
        return
    labelled.utterances.append(replace(utterance, sentiment=known))
