"""Labels of an annotator against those of people, for the same utterances, before the filters and after each: precision, recall
and F1, of all tags and of each; what the filters lose; and each error with its text.

An entity is right if people have the same tag on the same phrase in that utterance, as often (micro F1 over multisets, as SLUE
scores); phrases are compared through the normaliser `slue`. A sentiment counts as a tag on the whole utterance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stapes.annotate.filter import known_tag
from stapes.annotate.label import Labelled
from stapes.annotate.prompt import Task
from stapes.errors import DataError
from stapes.metrics.entities import Pair, count_by_tag
from stapes.text import normalise, tags
from stapes.types import Entity, Utterance

STAGES = ("before", "after filter 1", "after filter 2")
TAG_SETS = ("combined", "raw")


@dataclass(frozen=True)
class Rates:
    """How often an annotator was right.

    Attributes:
        hits, invented, missed: numbers of labels.
        precision, recall, f1: in percent, 0 where there is nothing to divide by.
    """

    hits: int
    invented: int
    missed: int

    @property
    def precision(self) -> float:
        """Share of what the annotator found that is right."""
        return _percent(self.hits, self.hits + self.invented)

    @property
    def recall(self) -> float:
        """Share of what people found that the annotator found."""
        return _percent(self.hits, self.hits + self.missed)

    @property
    def f1(self) -> float:
        """The harmonic mean of both."""
        return _percent(2 * self.hits, 2 * self.hits + self.invented + self.missed)


@dataclass
class Quality:
    """A comparison.

    Attributes:
        task: "ner" or "sentiment".
        utterances: how many were compared.
        unanswered: how many that people labelled have no answer; they are not in the numbers.
        rates: stage and tag set -> of all tags together.
        per_tag: stage and tag set -> of each tag that occurs there, on either side.
        macro_f1: stage -> mean of the F1 of every sentiment, in percent; empty for entities.
        rejected: each label that a filter dropped, and whether it is ``lost``: people have it (raw tag and phrase), and none
            that was kept stands for it; None in an utterance that was not compared.
        errors: each that is left after both filters, with raw tags.
    """

    task: Task
    utterances: int
    unanswered: int
    rates: dict[tuple[str, str], Rates] = field(default_factory=dict)
    per_tag: dict[tuple[str, str], dict[str, Rates]] = field(default_factory=dict)
    macro_f1: dict[str, float] = field(default_factory=dict)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)


def compare(labelled: Labelled, human: Sequence[Utterance], task: Task) -> Quality:
    """Compare with the utterances of the same ids that people labelled.

    Raises:
        DataError: there are none.
    """
    found = _stages(labelled, task)
    asked = {*found, *(failure["id"] for failure in labelled.failures)}
    known = [each for each in human if each.id in asked and _is_labelled(each, task)]
    shared = [each for each in known if each.id in found]
    if not shared:
        what = "sentiment" if task == "sentiment" else "entities"
        raise DataError("--quality", "no utterance of these ids is labelled", f"a manifest with {what} of the same utterances")
    quality = Quality(task, len(shared), len(known) - len(shared))
    for tag_set in TAG_SETS if task == "ner" else ("sentiment",):
        expected = [_pairs(_human(each, task), tag_set) for each in shared]
        for index, stage in enumerate(STAGES):
            per_tag = count(expected, [_pairs(found[each.id][index], tag_set) for each in shared])
            quality.rates[stage, tag_set] = total(per_tag)
            quality.per_tag[stage, tag_set] = per_tag
            if task == "sentiment":
                quality.macro_f1[stage] = sum(rates.f1 for rates in per_tag.values()) / len(per_tag)
    quality.rejected = _judged(labelled, shared, task)
    raw = "raw" if task == "ner" else "sentiment"
    for each in shared:
        quality.errors += _errors(each, _pairs(_human(each, task), raw), _pairs(found[each.id][-1], raw))
    return quality


def count(references: Sequence[Sequence[Pair]], hypotheses: Sequence[Sequence[Pair]]) -> dict[str, Rates]:
    """Hits and errors of each tag that occurs."""
    return {tag: Rates(*counts) for tag, counts in count_by_tag(references, hypotheses).items()}


def total(per_tag: dict[str, Rates]) -> Rates:
    """All tags together."""
    rates = per_tag.values()
    return Rates(sum(each.hits for each in rates), sum(each.invented for each in rates), sum(each.missed for each in rates))


def _stages(labelled: Labelled, task: Task) -> dict[str, Sequence[list[Pair]]]:
    """The labels of each answered utterance at every stage."""
    if task == "ner":
        return {name: found.stages for name, found in labelled.filtered.items()}
    kept = {each.id: [(each.sentiment or "", "")] for each in labelled.utterances}
    return {name: ([(claim, "")], [(claim, "")], kept.get(name, [])) for name, claim in labelled.claimed.items()}


def _is_labelled(utterance: Utterance, task: Task) -> bool:
    return (utterance.entities if task == "ner" else utterance.sentiment) is not None


def _human(utterance: Utterance, task: Task) -> list[Pair]:
    if task == "sentiment":
        return [(tags.sentiment(utterance.sentiment or "", utterance.source), "")]
    return _labels(utterance.entities)


def _labels(entities: Sequence[Entity] | None) -> list[Pair]:
    return [(entity.label, entity.phrase) for entity in entities or ()]


def _judged(labelled: Labelled, shared: Sequence[Utterance], task: Task) -> list[dict[str, Any]]:
    """Each rejection, and whether it cost a label that people have; a label can be lost as often as they have it."""
    missed = {each.id: _missed(labelled, each, task) for each in shared}
    judged = []
    for each in labelled.rejected:
        lost = None
        if each.id in missed:
            label = (known_tag(each.tag), normalise.slue(each.phrase))
            lost = missed[each.id][label] > 0
            missed[each.id][label] -= lost
        judged.append({**vars(each), "lost": lost})
    return judged


def _missed(labelled: Labelled, human: Utterance, task: Task) -> Counter[Pair]:
    """What people have and the filters did not leave, in the spelling that the annotator read where people labelled that."""
    if task == "sentiment":  # one that is rejected is none that people could give
        return Counter()
    found = labelled.filtered[human.id]
    if found.is_raw and human.raw_entities is not None:
        expected, kept = _labels(human.raw_entities), _labels(found.raw_entities)
    else:
        expected, kept = _human(human, task), _labels(found.entities)
    return Counter(_pairs(expected, "raw")) - Counter(_pairs(kept, "raw"))


def _pairs(labels: Sequence[Pair], tag_set: str) -> list[Pair]:
    """Labels as they are compared; an unknown tag, which the second filter has yet to drop, stays as it is."""
    clean = [(tag, normalise.slue(phrase)) for tag, phrase in labels]
    if tag_set != "combined":
        return clean
    known = {*tags.RAW, *tags.COMBINED}
    named = [(tags.combined(tag) if tag in known else tag, phrase) for tag, phrase in clean]
    return [(tag, phrase) for tag, phrase in named if tag is not None]


def _errors(utterance: Utterance, expected: list[Pair], found: list[Pair]) -> Sequence[dict[str, Any]]:
    """What differs in one utterance; a missed and an invented entity that share words are one error."""
    missed = list((Counter(expected) - Counter(found)).elements())
    invented = list((Counter(found) - Counter(expected)).elements())
    errors: list[dict[str, Any]] = []

    def note(kind: str, human: Pair | None, annotator: Pair | None) -> None:
        sides = {"human": human, "annotator": annotator}
        labels = {side: None if pair is None else {"tag": pair[0], "phrase": pair[1]} for side, pair in sides.items()}
        errors.append({"id": utterance.id, "kind": kind, **labels, "text": utterance.text})

    for kind, alike in (
        ("other tag", lambda human, other: human[1] == other[1]),
        ("other words", lambda human, other: human[0] == other[0] and set(human[1].split()) & set(other[1].split())),
        ("other tag and words", lambda human, other: set(human[1].split()) & set(other[1].split())),
    ):
        for human in list(missed):
            if (other := next((each for each in invented if alike(human, each)), None)) is not None:
                missed.remove(human)
                invented.remove(other)
                note(kind, human, other)
    for human in missed:
        note("missed", human, None)
    for other in invented:
        note("invented", None, other)
    return errors


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0
