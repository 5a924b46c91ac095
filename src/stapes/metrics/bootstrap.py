"""Confidence intervals for scores of a corpus: any function of sums over its utterances, such as errors over words.

The unit of resampling is the utterance, as in Bisani and Ney (ICASSP 2004), so errors within an utterance may depend on each
other. A score that is computed from sums (a rate, an F1, BLEU) is computed again from the sums of each resample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stapes.errors import DataError, RecipeError

RESAMPLES, CONFIDENCE = 1000, 0.95
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""(resamples, columns) sums -> (resamples,) scores in percent, NaN where a resample has none."""

_CELLS_AT_ONCE = 1_000_000


def interval(
    numerators: Sequence[float] | ArrayLike,
    denominators: Sequence[float] | ArrayLike,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of ``100 * sum(numerators) / sum(denominators)``, utterances drawn with replacement.

    Resamples whose denominators are all zero (possible where most utterances are non-speech) have no ratio and are left out.

    Args:
        numerators: one number an utterance, such as its word errors.
        denominators: one number an utterance, zero or more, such as its reference words.
        resamples: how many bootstrap samples to draw.
        confidence: the part of the bootstrap distribution that lies between the two ends.
        seed: of the random draws; equal arguments give equal intervals.

    Returns:
        (low, high), in percent.

    Raises:
        DataError: the two have different lengths, or hold a negative or non-finite number, or the denominators are all zero.
        RecipeError: ``resamples`` or ``confidence`` is out of range.
    """
    pairs = _pairs(numerators, denominators)
    return interval_of(ratio, pairs, resamples=resamples, confidence=confidence, seed=seed)


def interval_of(
    statistic: Statistic,
    counts: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a score that is computed from sums over utterances.

    Args:
        statistic: from sums to scores, for all resamples at once.
        counts: (utterances, columns), what each utterance adds to the sums.
        resamples: how many bootstrap samples to draw.
        confidence: the part of the bootstrap distribution that lies between the two ends.
        seed: of the random draws.

    Returns:
        (low, high), in percent, over the resamples that have a score.

    Raises:
        DataError: no utterance, a number that is not finite, or no resample with a score.
        RecipeError: ``resamples`` or ``confidence`` is out of range.
    """
    return percentiles(statistic(resampled_sums(counts, resamples=resamples, seed=seed)), confidence)


def resampled_sums(counts: ArrayLike, *, resamples: int = RESAMPLES, seed: int | Sequence[int] = 0) -> NDArray[np.float64]:
    """The sums of bootstrap samples, utterances drawn with replacement.

    Utterances with equal counts are drawn together, as one category of a multinomial distribution: that is the same
    distribution, makes the result independent of the utterances' order, and keeps 100 000 utterances cheap.

    Args:
        counts: (utterances, columns), finite numbers.
        resamples: how many.
        seed: of the random draws, or several numbers that make one.

    Returns:
        (resamples, columns), drawn in chunks of bounded memory.

    Raises:
        DataError: no utterance, or a number that is not finite.
        RecipeError: ``resamples`` is not at least 1.
    """
    if resamples < 1:
        raise RecipeError("bootstrap.resamples", f"{resamples}", "at least 1")
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or not len(table):
        raise DataError("bootstrap", f"counts of shape {table.shape}", "a row for each utterance, and at least one")
    if not np.isfinite(table).all():
        raise DataError("bootstrap", "a number that is not finite", "finite counts")
    rows, repeats = np.unique(table, axis=0, return_counts=True)
    rows_at_once = max(1, _CELLS_AT_ONCE // len(rows))
    random = np.random.default_rng(seed)
    return np.concatenate(
        [
            random.multinomial(len(table), repeats / len(table), size=min(rows_at_once, resamples - start)) @ rows
            for start in range(0, resamples, rows_at_once)
        ]
    )


def percentiles(scores: NDArray[np.float64], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The ends between which ``confidence`` of the resampled scores lie; those that are NaN are left out.

    Raises:
        DataError: no resample has a score.
        RecipeError: ``confidence`` is out of range.
    """
    if not 0.0 < confidence < 1.0:
        raise RecipeError("bootstrap.confidence", f"{confidence}", "a number between 0 and 1, such as 0.95")
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        raise DataError(
            "bootstrap", "no resample has a denominator above zero", "more utterances with words", "draw more resamples"
        )
    low, high = np.percentile(scores, [50.0 * (1.0 - confidence), 50.0 * (1.0 + confidence)])
    return float(low), float(high)


def ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Percentages of the first of two columns in the second, NaN where that is zero."""
    defined = sums[:, 1] > 0
    return 100.0 * np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=defined)


def _pairs(numerators: ArrayLike, denominators: ArrayLike) -> NDArray[np.float64]:
    """(n, 2) of the checked numerators and denominators."""
    top, bottom = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if top.ndim != 1 or top.shape != bottom.shape:
        raise DataError(
            "bootstrap", f"numerators {top.shape} with denominators {bottom.shape}", "one of each for every utterance"
        )
    pairs = np.stack([top, bottom], axis=1)
    if not np.isfinite(pairs).all() or (bottom < 0).any():
        raise DataError("bootstrap", "a number that is not finite, or a negative denominator", "finite counts")
    if not bottom.sum() > 0:
        raise DataError("bootstrap", f"the denominators of {len(bottom)} utterances are all zero", "at least one above zero")
    return pairs
