"""The SLUE score (arXiv 2111.10367), as the benchmark's leaderboard computes it from its two corpora.

    SLUE = ((100 - (WER of VoxPopuli + WER of VoxCeleb) / 2) + NER F1 of VoxPopuli + SA F1 of VoxCeleb) / 3

with NER F1 micro over the combined tags and SA F1 macro, all in percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stapes.errors import DataError
from stapes.metrics import bootstrap
from stapes.metrics.classification import confusion_columns, macro_f1
from stapes.metrics.entities import f1_columns
from stapes.types import Score

NAME = "SLUE score"
Percent = TypeVar("Percent", float, NDArray[np.float64])


def combine(voxpopuli_wer: Percent, voxceleb_wer: Percent, ner_f1: Percent, sentiment_f1: Percent) -> Percent:
    """The SLUE score of its four parts, numbers or arrays, all in percent."""
    return ((100.0 - (voxpopuli_wer + voxceleb_wer) / 2.0) + ner_f1 + sentiment_f1) / 3.0


def slue_score(
    voxpopuli_wer: Score,
    ner_f1: Score,
    voxceleb_wer: Score,
    sentiment_f1: Score,
    *,
    synthetic: Sequence[str] = (),
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> Score:
    """The SLUE score of a system, with an interval for which both corpora are resampled.

    An utterance is drawn with all that was made of it: its word errors and its entities, or its word errors and its sentiment.
    The two corpora are drawn apart.

    Args:
        voxpopuli_wer: `wer` on SLUE-VoxPopuli.
        ner_f1: `entity_f1` of the same utterances, in the same order.
        voxceleb_wer: `wer` on SLUE-VoxCeleb.
        sentiment_f1: `sentiment_f1` of the same utterances, in the same order.
        synthetic: corpora whose sound was made by a synthesiser ("VoxPopuli", "VoxCeleb"); the score is then called so, and is
            no benchmark's.
        resamples: bootstrap samples behind the interval; 0 for no interval.
        seed: of the bootstrap.

    Returns:
        The score in percent. Parts: ``name``, ``synthetic``, ``voxpopuli_wer``, ``voxceleb_wer``, ``ner_f1``, ``sentiment_f1``.
        The signature holds those of the four.

    Raises:
        DataError: two scores of one corpus are of different numbers of utterances.
    """
    parts = {"voxpopuli_wer": voxpopuli_wer, "voxceleb_wer": voxceleb_wer, "ner_f1": ner_f1, "sentiment_f1": sentiment_f1}
    name = f"{NAME} (synthetic {' and '.join(synthetic)})" if synthetic else NAME
    voxpopuli = _columns("SLUE-VoxPopuli", voxpopuli_wer, f1_columns(ner_f1.parts["utterance_counts"]))
    labels = zip(*sentiment_f1.parts["utterance_labels"], strict=True)
    voxceleb = _columns("SLUE-VoxCeleb", voxceleb_wer, confusion_columns(*labels))
    return Score(
        value=combine(voxpopuli_wer.value, voxceleb_wer.value, ner_f1.value, sentiment_f1.value),
        parts={"name": name, "synthetic": tuple(synthetic)} | {key: part.value for key, part in parts.items()},
        interval=_interval(voxpopuli, voxceleb, resamples, seed) if resamples else None,
        signature="; ".join([name, *(f"{key} {part.signature}" for key, part in parts.items())]),
    )


def _interval(voxpopuli: NDArray[np.float64], voxceleb: NDArray[np.float64], resamples: int, seed: int) -> tuple[float, float]:
    """Of the columns (errors, words, numerator and denominator of F1) and (errors, words, confusion matrix)."""
    first = bootstrap.resampled_sums(voxpopuli, resamples=resamples, seed=(seed, 0))
    second = bootstrap.resampled_sums(voxceleb, resamples=resamples, seed=(seed, 1))
    rates = bootstrap.ratio(first[:, :2]), bootstrap.ratio(second[:, :2])
    return bootstrap.percentiles(combine(*rates, bootstrap.ratio(first[:, 2:]), macro_f1(second[:, 2:])))


def _columns(corpus: str, wer: Score, others: Sequence[Sequence[float]] | NDArray[np.float64]) -> NDArray[np.float64]:
    """(utterances, 2 + columns): word errors, words, and what else was counted of each utterance."""
    words = wer.parts["utterance_words"]
    if len(words) != len(others):
        raise DataError(corpus, f"{len(words)} utterances with words and {len(others)} with labels", "both of every utterance")
    return np.column_stack([wer.parts["utterance_errors"], words, np.asarray(others, dtype=np.float64)])
