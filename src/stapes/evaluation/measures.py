"""The scores that can be computed from predictions, each with the sums over utterances that it is a function of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from stapes.evaluation.predictions import PredictionLine
from stapes.metrics import bootstrap
from stapes.metrics.classification import confusion_columns, macro_f1, sentiment_f1
from stapes.metrics.entities import entity_f1, f1_columns, label_f1
from stapes.metrics.translation import bleu, bleu_of_sums, chrf, chrf_of_sums
from stapes.metrics.wer import cer, wer
from stapes.text import normalise
from stapes.types import Score


@dataclass(frozen=True)
class Measure:
    """One score.

    Attributes:
        title: for people.
        reference, answer: the keys of a line that are compared.
        score: from references and answers.
        columns: from such a score, what each utterance adds to the sums.
        statistic: from the sums to the score.
        normalised: whether ``score`` is told a normaliser.
    """

    title: str
    reference: str
    answer: str
    score: Callable[..., Score]
    columns: Callable[[Score], ArrayLike]
    statistic: bootstrap.Statistic = bootstrap.ratio
    normalised: bool = True

    def scored(self, lines: Sequence[PredictionLine], normaliser: str) -> list[PredictionLine]:
        """The lines that have a reference for this score; none where all of them are without words."""
        known = [line for line in lines if getattr(line, self.reference) is not None]
        if self.reference == "reference" and not any(normalise.get(normaliser)(line.reference) for line in known):
            return []
        return known

    def of(self, lines: Sequence[PredictionLine], normaliser: str, resamples: int = bootstrap.RESAMPLES) -> Score:
        """The score of lines that have a reference for it."""
        sides = ([getattr(line, key) for line in lines] for key in (self.reference, self.answer))
        return self.score(*sides, resamples=resamples, **({"normaliser": normaliser} if self.normalised else {}))


def _errors_and(unit: str) -> Callable[[Score], ArrayLike]:
    return lambda score: list(zip(score.parts["utterance_errors"], score.parts[f"utterance_{unit}"], strict=True))


def _entities(score: Score) -> ArrayLike:
    return f1_columns(score.parts["utterance_counts"])


def _labels(score: Score) -> ArrayLike:
    return confusion_columns(*zip(*score.parts["utterance_labels"], strict=True))


def _statistics(score: Score) -> ArrayLike:
    found: ArrayLike = score.parts["utterance_statistics"]
    return found


_TEXTS, _TRANSLATIONS = ("reference", "hypothesis"), ("reference_translation", "translation")
_FOUND, _FELT = ("reference_entities", "entities"), ("reference_sentiment", "sentiment")
MEASURES = {
    "wer": Measure("WER", *_TEXTS, wer, _errors_and("words")),
    "cer": Measure("CER", *_TEXTS, cer, _errors_and("characters")),
    "ner_f1": Measure("NER F1", *_FOUND, entity_f1, _entities),
    "ner_label_f1": Measure("NER label-F1", *_FOUND, label_f1, _entities),
    "sentiment_f1": Measure("sentiment macro F1", *_FELT, sentiment_f1, _labels, macro_f1, normalised=False),
    "bleu": Measure("BLEU", *_TRANSLATIONS, bleu, _statistics, bleu_of_sums, normalised=False),
    "chrf": Measure("chrF2", *_TRANSLATIONS, chrf, _statistics, chrf_of_sums, normalised=False),
}
"""By their names in ``scores.json``."""
