"""The scores that can be computed from predictions, each with the sums over utterances that it is a function of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from numpy.typing import ArrayLike

from stapes.evaluation.predictions import PredictionLine, setting
from stapes.metrics import bootstrap
from stapes.metrics.classification import confusion_columns, macro_f1, sentiment_f1
from stapes.metrics.entities import combined_f1, entity_f1, f1_columns, label_f1
from stapes.metrics.signature import facts, with_facts
from stapes.metrics.translation import bleu, bleu_of_sums, chrf, chrf_of_sums
from stapes.metrics.wer import cer, sentence_mean_wer, wer
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
        settings: what ``score`` is told, by keyword -> where its signature says it.
    """

    title: str
    reference: str
    answer: str
    score: Callable[..., Score]
    columns: Callable[[Score], ArrayLike]
    statistic: bootstrap.Statistic = bootstrap.ratio
    settings: Mapping[str, str] = field(default_factory=dict)

    def scored(self, lines: Sequence[PredictionLine]) -> list[PredictionLine]:
        """The lines that have a reference for this score."""
        return [line for line in lines if getattr(line, self.reference) is not None]

    def of(self, lines: Sequence[PredictionLine], signature: str, resamples: int = bootstrap.RESAMPLES) -> Score:
        """The score of lines that have a reference for it, measured as its evaluation did.

        Args:
            lines: of one evaluation.
            signature: that it gave this score; what it says of the data is taken over.
            resamples: bootstrap samples behind the interval; 0 for no interval.

        Raises:
            DataError: the signature lacks a setting, or the lines cannot be scored.
            RecipeError: a setting is not known.
        """
        sides = ([getattr(line, key) for line in lines] for key in (self.reference, self.answer))
        told = {keyword: setting(signature, fact) for keyword, fact in self.settings.items()}
        return with_facts(self.score(*sides, resamples=resamples, **told), **facts(signature))


def _errors_and(unit: str) -> Callable[[Score], ArrayLike]:
    return lambda score: list(zip(score.parts["utterance_errors"], score.parts[f"utterance_{unit}"], strict=True))


def _rates(score: Score) -> ArrayLike:
    return [(0.0, 0.0) if rate is None else (rate / 100, 1.0) for rate in score.parts["utterance_rates"]]


def _entities(score: Score) -> ArrayLike:
    return f1_columns(score.parts["utterance_counts"])


def _labels(score: Score) -> ArrayLike:
    return confusion_columns(*zip(*score.parts["utterance_labels"], strict=True))


def _statistics(score: Score) -> ArrayLike:
    found: ArrayLike = score.parts["utterance_statistics"]
    return found


_TEXTS, _TRANSLATIONS = ("reference", "hypothesis"), ("reference_translation", "translation")
_FOUND, _FELT = ("reference_entities", "entities"), ("reference_sentiment", "sentiment")
_AS_WORDS, _AS_PAIRS = {"normaliser": "norm"}, {"normaliser": "norm", "tag_set": "tags"}
MEASURES = {
    "wer": Measure("WER", *_TEXTS, wer, _errors_and("words"), settings=_AS_WORDS),
    "wer_sentence_mean": Measure("WER, mean over utterances", *_TEXTS, sentence_mean_wer, _rates, settings=_AS_WORDS),
    "cer": Measure("CER", *_TEXTS, cer, _errors_and("characters"), settings=_AS_WORDS),
    "ner_f1": Measure("NER F1", *_FOUND, entity_f1, _entities, settings=_AS_PAIRS),
    "ner_f1_combined": Measure("NER F1, combined tags", *_FOUND, combined_f1, _entities, settings=_AS_WORDS),
    "ner_label_f1": Measure("NER label-F1", *_FOUND, label_f1, _entities, settings=_AS_PAIRS),
    "sentiment_f1": Measure("sentiment macro F1", *_FELT, sentiment_f1, _labels, macro_f1),
    "bleu": Measure("BLEU", *_TRANSLATIONS, bleu, _statistics, bleu_of_sums, {"tokenize": "tok"}),
    "chrf": Measure("chrF2", *_TRANSLATIONS, chrf, _statistics, chrf_of_sums),
}
"""By their names in ``scores.json``."""
