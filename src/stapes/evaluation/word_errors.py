"""Which words a model gets wrong, and how its errors depend on how long an utterance is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest

from stapes.evaluation.evaluate import Evaluation, Prediction
from stapes.metrics import bootstrap
from stapes.metrics.wer import WORDS, align

BIN_EDGES_SECONDS = (0.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, float("inf"))  # ours

Column = tuple[str | None, str | None]
"""A word of the reference above one of the hypothesis; None where one of them has no word."""


def has_words(evaluation: Evaluation) -> bool:
    """Whether words were compared, one by one: not in translations, nor where no transcript was asked for."""
    return "wer" in evaluation.scores


def aligned_words(reference: str, hypothesis: str, normaliser: str) -> list[Column]:
    """The columns of an alignment with the fewest errors, both texts normalised."""
    output = align([reference], [hypothesis], normaliser, WORDS)
    said, heard = output.references[0], output.hypotheses[0]
    columns: list[Column] = []
    for chunk in output.alignments[0]:
        columns += zip_longest(said[chunk.ref_start_idx : chunk.ref_end_idx], heard[chunk.hyp_start_idx : chunk.hyp_end_idx])
    return columns


@dataclass(frozen=True)
class WordErrors:
    """The errors of an evaluation by word.

    Attributes:
        substitutions: how often a word of the reference (first) was taken for another.
        deletions, insertions: how often a word was left out, or put in.
    """

    substitutions: Counter[tuple[str, str]] = field(default_factory=Counter)
    deletions: Counter[str] = field(default_factory=Counter)
    insertions: Counter[str] = field(default_factory=Counter)


def word_errors(evaluation: Evaluation) -> WordErrors:
    """Count the errors of all utterances by word."""
    found = WordErrors()
    for prediction in evaluation.predictions:
        for said, heard in aligned_words(prediction.reference, prediction.hypothesis, evaluation.normaliser):
            if said is None and heard is not None:
                found.insertions[heard] += 1
            elif said is not None and heard is None:
                found.deletions[said] += 1
            elif said is not None and heard is not None and said != heard:
                found.substitutions[said, heard] += 1
    return found


@dataclass(frozen=True)
class DurationBin:
    """The utterances of similar duration.

    Attributes:
        label: "2 to 5 s".
        utterances: how many there are.
        reference_words, hypothesis_words: in all of them.
        wer: in percent.
        interval: its 95 % bootstrap interval.
    """

    label: str
    utterances: int
    reference_words: int
    hypothesis_words: int
    wer: float
    interval: tuple[float, float]


def duration_bins(predictions: Sequence[Prediction]) -> list[DurationBin]:
    """Error rates by duration; bins without a word in their references are left out."""
    bins = []
    for low, high in pairwise(BIN_EDGES_SECONDS):
        inside = [found.counts for found in predictions if low <= found.duration < high]
        errors, words = [each.errors for each in inside], [each.reference_words for each in inside]
        if not any(words):
            continue
        label = f"{low:.0f} to {high:.0f} s" if high < float("inf") else f"{low:.0f} s and more"
        heard = sum(words) + sum(each.insertions - each.deletions for each in inside)
        rate = 100.0 * sum(errors) / sum(words)
        bins.append(DurationBin(label, len(inside), sum(words), heard, rate, bootstrap.interval(errors, words)))
    return bins
