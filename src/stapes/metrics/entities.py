"""Named entities as SLUE scores them (arXiv 2111.10367): micro F1 over the (tag, phrase) pairs of each utterance, and label-F1.

An utterance's entities are a multiset: their order does not matter, and of two equal ones each has to be found. The official
toolkit numbers equal ones and compares sets; the intersection of multisets is the same.

    precision = 100 * TP / (TP + FP)    recall = 100 * TP / (TP + FN)    F1 = 100 * 2 TP / (2 TP + FP + FN)

over all utterances, 0 where the denominator is 0. Label-F1 puts one constant in the place of every phrase, so that only tags
and how often they occur count; it is never below F1.

**Phrases.** The toolkit prepares texts for entities by removing ``. , ! ? ;``, splitting words before an apostrophe
("people 's"), dropping one at a word's end, and splitting at spaces. Here phrases are normalised by name, `slue` by default, on
both sides. Since phrases are only compared for equality, it is enough to keep apart and put together what the toolkit does: on
the 1892 different phrases of SLUE-VoxPopuli's fine-tune and dev sets (7682 entities) `slue` does so without an exception. The
two differ on what these sets do not have. `slue` puts a space where a hyphen, a symbol or punctuation within a word stood
("e.g." becomes "e g", theirs "eg"), keeps the apostrophe at a word's end ("citizens'" and "citizens" are one phrase for the
toolkit, two here), and lower-cases.

**Malformed answers.** The toolkit drops an entity that is never closed, and of one within another the outer one. Here the first
reaches to the next mark, and the inner one is dropped (``text/markup/inline.py``): what can be saved is scored, and counted as
a repair. Decoding by the task's grammar leaves none but in answers that the cap has cut off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from stapes.errors import DataError, RecipeError
from stapes.metrics import bootstrap
from stapes.metrics.paired import require_pairs
from stapes.text import normalise, tags
from stapes.types import Entity, Score

TagSet = Literal["combined", "raw"]
Pair = tuple[str, str]
"""(tag, phrase)"""

Counts = tuple[int, int, int]
"""(hits, invented, missed)"""

_ANY_PHRASE = "phrase"


def phrases(entities: Sequence[Entity], tag_set: TagSet = "combined", normaliser: str = "slue") -> list[Pair]:
    """The (tag, phrase) pairs that are scored, in the order of the entities.

    Args:
        entities: of one utterance, with raw tags (or tags that are combined already).
        tag_set: ``combined`` makes 7 tags of the 18 and drops what the benchmark discards; ``raw`` keeps all as they are.
        normaliser: name of what is done to each phrase. One of which nothing is left is no entity, as in the toolkit.

    Raises:
        DataError: a tag that SLUE does not know.
        RecipeError: there is no such tag set or normaliser.
    """
    if tag_set not in ("combined", "raw"):
        raise RecipeError("tag_set", f"'{tag_set}'", "combined or raw")
    clean = normalise.get(normaliser)
    raw = [(entity.label, clean(entity.phrase)) for entity in entities]
    combined = combine(raw)  # for raw tags, too: it knows which there are
    return [(tag, phrase) for tag, phrase in (raw if tag_set == "raw" else combined) if phrase]


def combine(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that the combined tags make of raw ones, without those that the benchmark discards.

    Raises:
        DataError: a tag that SLUE does not know.
    """
    return [(tag, phrase) for raw, phrase in pairs if (tag := tags.combined(raw)) is not None]


def combined_f1(
    references: Sequence[Sequence[Pair]],
    hypotheses: Sequence[Sequence[Pair]],
    *,
    normaliser: str = "slue",
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> Score:
    """`entity_f1` with the combined tags of pairs that have raw ones; arguments, parts and errors as there."""
    references, hypotheses = ([combine(pairs) for pairs in _checked(side)] for side in (references, hypotheses))
    return _score("ner_f1", references, hypotheses, "combined", normaliser, resamples, seed)


def entity_f1(
    references: Sequence[Sequence[Pair]],
    hypotheses: Sequence[Sequence[Pair]],
    *,
    tag_set: TagSet = "combined",
    normaliser: str = "slue",
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> Score:
    """Micro F1 over (tag, phrase) pairs: the F1 of SLUE's leaderboard, with the combined tags.

    Args:
        references: of each utterance the pairs of `phrases`; empty where there is no entity.
        hypotheses: the pairs found, in the same order of utterances.
        tag_set, normaliser: what `phrases` was given, for the signature.
        resamples: bootstrap samples behind the interval; 0 for no interval.
        seed: of the bootstrap.

    Returns:
        F1 in percent. Parts: ``precision`` and ``recall`` in percent; ``true_positives``, ``false_positives``,
        ``false_negatives``; ``per_tag``, of each tag that occurs its precision, recall, F1 and how many the references have;
        ``utterance_counts``, the (true positives, false positives, false negatives) of each utterance. There is no interval
        where neither side has an entity.

    Raises:
        DataError: the lists differ in length or are empty, or an utterance's entities are not (tag, phrase) pairs.
    """
    return _score("ner_f1", references, hypotheses, tag_set, normaliser, resamples, seed)


def label_f1(
    references: Sequence[Sequence[Pair]],
    hypotheses: Sequence[Sequence[Pair]],
    *,
    tag_set: TagSet = "combined",
    normaliser: str = "slue",
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> Score:
    """Micro F1 over tags alone; arguments, parts and errors as for `entity_f1`."""
    references, hypotheses = (
        [[(tag, _ANY_PHRASE) for tag, _ in utterance] for utterance in _checked(side)] for side in (references, hypotheses)
    )
    return _score("ner_label_f1", references, hypotheses, tag_set, normaliser, resamples, seed)


def count_by_tag(references: Sequence[Sequence[Pair]], hypotheses: Sequence[Sequence[Pair]]) -> dict[str, Counts]:
    """(Hits, invented, missed) of each tag that occurs, over the multisets of each utterance; tags in order."""
    return _by_tag(_compared(*pair) for pair in zip(references, hypotheses, strict=True))


def _compared(reference: Sequence[Pair], hypothesis: Sequence[Pair]) -> tuple[Counter[Pair], Counter[Pair], Counter[Pair]]:
    """The pairs of one utterance that are right, invented and missed."""
    expected, found = Counter(reference), Counter(hypothesis)
    return expected & found, found - expected, expected - found


def _by_tag(compared: Iterable[Sequence[Counter[Pair]]]) -> dict[str, Counts]:
    found: dict[str, list[int]] = {}
    for kinds in compared:
        for kind, pairs in enumerate(kinds):
            for (tag, _), repeats in pairs.items():
                found.setdefault(tag, [0, 0, 0])[kind] += repeats
    return {tag: (hits, invented, missed) for tag, (hits, invented, missed) in sorted(found.items())}


def f1_columns(utterance_counts: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
    """Numerator and denominator of F1 that each utterance adds, given its (TP, FP, FN)."""
    return [(2 * hits, 2 * hits + invented + missed) for hits, invented, missed in utterance_counts]


def _score(
    name: str,
    references: Sequence[Sequence[Pair]],
    hypotheses: Sequence[Sequence[Pair]],
    tag_set: str,
    normaliser: str,
    resamples: int,
    seed: int,
) -> Score:
    require_pairs(name, references, hypotheses)
    compared = list(map(_compared, _checked(references), _checked(hypotheses)))
    counts = [(hits.total(), invented.total(), missed.total()) for hits, invented, missed in compared]
    hits, invented, missed = (sum(column) for column in zip(*counts, strict=True))
    whole = _rates(hits, invented, missed)
    return Score(
        value=whole["f1"],
        parts={
            "precision": whole["precision"],
            "recall": whole["recall"],
            "true_positives": hits,
            "false_positives": invented,
            "false_negatives": missed,
            "per_tag": {tag: _rates(*found) for tag, found in _by_tag(compared).items()},
            "utterance_counts": counts,
        },
        interval=bootstrap.interval(*zip(*f1_columns(counts), strict=True), resamples=resamples, seed=seed)
        if resamples and hits + invented + missed
        else None,
        signature=f"{name}|avg:micro|tags:{tag_set}|norm:{normaliser}.{normalise.version(normaliser)}|n:{len(counts)}",
    )


def _rates(hits: int, invented: int, missed: int) -> dict[str, Any]:
    """Precision, recall and F1 in percent, 0 where a denominator is; and the number in the references."""

    def percent(part: int, whole: int) -> float:
        return 100.0 * part / whole if whole else 0.0

    return {
        "precision": percent(hits, hits + invented),
        "recall": percent(hits, hits + missed),
        "f1": percent(2 * hits, 2 * hits + invented + missed),
        "reference": hits + missed,
    }


def _checked(utterances: Sequence[Sequence[Pair]]) -> list[list[Pair]]:
    """The pairs as tuples, so that lists read from JSON will do."""
    checked = []
    for position, utterance in enumerate(utterances):
        if isinstance(utterance, str) or any(isinstance(pair, str) or len(pair) != 2 for pair in utterance):
            raise DataError("entities", f"{utterance!r} as utterance {position}", "a list of (tag, phrase) pairs")
        checked.append([(tag, phrase) for tag, phrase in utterance])
    return checked
