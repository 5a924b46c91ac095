"""Confidence intervals for scores that are a ratio of sums over utterances: errors over words, hits over candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stapes.errors import DataError, RecipeError

_CELLS_AT_ONCE = 1_000_000


def interval(
    numerators: Sequence[float] | ArrayLike,
    denominators: Sequence[float] | ArrayLike,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of ``100 * sum(numerators) / sum(denominators)``, utterances drawn with replacement.

    The unit of resampling is the utterance, as in Bisani and Ney (ICASSP 2004), so errors within an utterance may depend on
    each other. Utterances with equal (numerator, denominator) are drawn together, as one category of a multinomial
    distribution: that is the same distribution, makes the result independent of the utterances' order, and keeps 100 000
    utterances cheap.
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
    if resamples < 1:
        raise RecipeError("bootstrap.resamples", f"{resamples}", "at least 1")
    if not 0.0 < confidence < 1.0:
        raise RecipeError("bootstrap.confidence", f"{confidence}", "a number between 0 and 1, such as 0.95")
    pairs, counts = np.unique(_pairs(numerators, denominators), axis=0, return_counts=True)
    ratios = _ratios(pairs, counts, resamples, np.random.default_rng(seed))
    if not len(ratios):
        raise DataError(
            "bootstrap", "no resample has a denominator above zero", "more utterances with words", "draw more resamples"
        )
    low, high = np.percentile(100.0 * ratios, [50.0 * (1.0 - confidence), 50.0 * (1.0 + confidence)])
    return float(low), float(high)


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


def _ratios(
    pairs: NDArray[np.float64], counts: NDArray[np.int64], resamples: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """(resamples,) or fewer ratios of resampled sums, drawn in chunks of bounded memory."""
    total = int(counts.sum())
    rows_at_once = max(1, _CELLS_AT_ONCE // len(counts))
    sums = np.concatenate(
        [
            random.multinomial(total, counts / total, size=min(rows_at_once, resamples - start)) @ pairs
            for start in range(0, resamples, rows_at_once)
        ]
    )
    sums = sums[sums[:, 1] > 0]
    return sums[:, 0] / sums[:, 1]
