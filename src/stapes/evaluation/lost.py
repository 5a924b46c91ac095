"""Entities that were lost or invented, and by which error: of recognition, or of tagging.

A reference entity is lost if the hypothesis does not have its (tag, phrase) pair, or has it too few times, as in the F1. Each
is laid over the alignment of the two transcripts and put down to the first of these that holds; the kinds are ours.

    misheard    the words aligned with it differ
    deleted     no word is aligned with it
    other_tag   its words are right, and are tagged as something else
    boundary    its words are right, and part of it, or more than it, is tagged
    not_tagged  its words are right, and nothing there is tagged
    not_listed  the answer has no transcript to compare with, and nothing in its list comes near

An invented entity is put down to the same kinds with the sides exchanged: "misheard" then means that other words were said.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from stapes.evaluation.evaluate import Evaluation, Prediction
from stapes.evaluation.word_errors import Column, aligned_words, has_words

LOST = {
    "misheard": "misheard",
    "deleted": "not heard at all",
    "other_tag": "right words, other tag",
    "boundary": "right words, other boundaries",
    "not_tagged": "right words, no tag",
    "not_listed": "not in the list",
}
INVENTED = {
    "misheard": "other words said",
    "deleted": "nothing said",
    "other_tag": "right words, other tag",
    "boundary": "right words, other boundaries",
    "not_tagged": "right words, no entity",
    "not_listed": "not in the reference",
}
NORMALISER = "slue"  # that of the phrases, so that they are found in the texts


@dataclass(frozen=True)
class EntityError:
    """An entity that only one side has.

    Attributes:
        kind: a key of ``LOST`` (and of ``INVENTED``).
        tag, phrase: of the entity.
        other: the words of the other side that are aligned with it; where only boundaries differ, the phrase tagged there.
        other_tag: what the other side has tagged there; None for nothing.
    """

    kind: str
    tag: str
    phrase: str
    other: str = ""
    other_tag: str | None = None


@dataclass(frozen=True)
class EntityErrors:
    """What was lost and what was invented, in the order of the texts."""

    lost: list[EntityError]
    invented: list[EntityError]


@dataclass(frozen=True)
class _Placed:
    """An entity and the columns of the alignment that it covers; None where its phrase is not in the text."""

    pair: tuple[str, str]
    columns: range | None

    def meets(self, other: _Placed) -> bool:
        """Whether both cover the same column; where one has no place, whether one phrase holds the other."""
        if self.columns is not None and other.columns is not None:
            return max(self.columns.start, other.columns.start) < min(self.columns.stop, other.columns.stop)
        ours, theirs = f" {self.pair[1]} ", f" {other.pair[1]} "
        return ours in theirs or theirs in ours


def entity_errors(prediction: Prediction, has_transcript: bool) -> EntityErrors:
    """Explain every lost and every invented entity of an utterance; none for a task without entities.

    Args:
        prediction: with the entities of both sides.
        has_transcript: whether the hypothesis is a transcript; an empty one is that nothing was heard.
    """
    columns = aligned_words(prediction.reference, prediction.hypothesis, NORMALISER) if has_transcript else []
    expected = _place(prediction.labels.get("reference_entities", ()), columns)
    mirrored = [(heard, said) for said, heard in columns]
    found = _place(prediction.labels.get("entities", ()), mirrored)
    lost, invented = _unmatched(expected, found), _unmatched(found, expected)
    return EntityErrors(
        [_explain(entity, invented, columns) for entity in lost], [_explain(entity, lost, mirrored) for entity in invented]
    )


def all_entity_errors(evaluation: Evaluation) -> EntityErrors:
    """Those of all utterances together."""
    found = [entity_errors(prediction, has_words(evaluation)) for prediction in evaluation.predictions]
    return EntityErrors([each for one in found for each in one.lost], [each for one in found for each in one.invented])


def by_kind(errors: Sequence[EntityError]) -> dict[str, int]:
    """How many there are of each kind that occurs, in the order of ``LOST``."""
    counts = Counter(error.kind for error in errors)
    return {kind: counts[kind] for kind in LOST if counts[kind]}


def examples(errors: Sequence[EntityError], each: int) -> list[tuple[EntityError, int]]:
    """The most frequent ones of every kind, ``each`` at most, with how often they occur."""
    counts = Counter(errors).most_common()
    return [example for kind in LOST for example in [pair for pair in counts if pair[0].kind == kind][:each]]


def kind_rows(errors: Sequence[EntityError], names: dict[str, str]) -> list[tuple[str, str]]:
    """How many there are of each kind, by its name."""
    return [(names[kind], str(count)) for kind, count in by_kind(errors).items()]


def example_rows(errors: Sequence[EntityError], names: dict[str, str], each: int) -> list[tuple[str, ...]]:
    """Kind, tag, phrase, words and tag of the other side, and how often."""
    return [
        (names[error.kind], error.tag, error.phrase, error.other, error.other_tag or "", str(count))
        for error, count in examples(errors, each)
    ]


def _place(entities: Sequence[Sequence[str]], columns: Sequence[Column]) -> list[_Placed]:
    """Find each entity in the left text of the columns; they come in its order, but for nested ones."""
    positions = [number for number, (word, _) in enumerate(columns) if word is not None]
    words = [word for word, _ in columns if word is not None]
    text, starts = " ".join(words), [0, *accumulate(len(word) + 1 for word in words)][: len(words)]
    placed, cursor, behind = [], 0, dict[str, int]()
    for tag, phrase in entities:
        start = _search(phrase, text, cursor, behind.get(phrase, 0)) if words else None
        if start is None:
            placed.append(_Placed((tag, phrase), None))
            continue
        cursor, behind[phrase] = start, start + 1
        first, last = (positions[bisect_right(starts, offset) - 1] for offset in (start, start + len(phrase) - 1))
        placed.append(_Placed((tag, phrase), range(first, last + 1)))
    return placed


def _search(phrase: str, text: str, cursor: int, behind: int) -> int | None:
    """Where a phrase begins: as whole words behind the last entity or else behind its own last place, or else within words."""
    whole, part = re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)"), re.compile(re.escape(phrase))
    found = (pattern.search(text, begin) for pattern in (whole, part) for begin in (max(cursor, behind), behind))
    return next((match.start() for match in found if match), None)


def _unmatched(ours: Sequence[_Placed], theirs: Sequence[_Placed]) -> list[_Placed]:
    """Those of ours that the others lack; of equal ones, those are matched first that stand where an equal one stands."""
    left = Counter(entity.pair for entity in theirs)
    unmatched = []
    for position, entity in sorted(
        enumerate(ours), key=lambda each: not any(each[1].pair == other.pair and each[1].meets(other) for other in theirs)
    ):
        if left[entity.pair]:
            left[entity.pair] -= 1
        else:
            unmatched.append((position, entity))
    return [entity for _, entity in sorted(unmatched, key=lambda each: each[0])]


def _explain(entity: _Placed, others: Sequence[_Placed], columns: Sequence[Column]) -> EntityError:
    """Put an unmatched entity down to a kind, given the unmatched ones of the other side."""
    tag, phrase = entity.pair
    there = [other for other in others if entity.meets(other)]
    tagged = there[0].pair[0] if there else None
    if entity.columns is not None and not _is_right(phrase, [columns[column] for column in entity.columns]):
        heard = " ".join(word for _, word in _widened(entity.columns, columns) if word is not None)
        return EntityError("misheard" if heard else "deleted", tag, phrase, heard, tagged)
    for other in there:
        if other.pair[1] == phrase:
            return EntityError("other_tag", tag, phrase, phrase, other.pair[0])
    if there:
        return EntityError("boundary", tag, phrase, there[0].pair[1], tagged)
    return EntityError("not_tagged" if entity.columns is not None else "not_listed", tag, phrase)


def _is_right(phrase: str, columns: Sequence[Column]) -> bool:
    """Whether the right words hold the phrase: all of them, or, where it is part of a word, enough of it ("eu" of "eu's")."""
    heard = " ".join(word for _, word in columns if word is not None)
    return heard == " ".join(word for word, _ in columns if word is not None) or (
        re.fullmatch(rf"{re.escape(phrase)}(?:'\w*)?", heard) is not None
    )


def _widened(span: range, columns: Sequence[Column]) -> list[Column]:
    """The columns of an entity, and the words inserted next to a wrong word at its edge: they are part of what was heard."""
    first, last = span.start, span.stop - 1
    if columns[first][0] != columns[first][1]:
        while first > 0 and columns[first - 1][0] is None:
            first -= 1
    if columns[last][0] != columns[last][1]:
        while last + 1 < len(columns) and columns[last + 1][0] is None:
            last += 1
    return list(columns[first : last + 1])
