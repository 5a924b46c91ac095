"""Is one run better than another on the same utterances? A paired bootstrap for any score, and MAPSSWE for word errors.

Both answer with a two-sided p: how often a difference at least this large would come about if there were none. Neither knows
how much a run varies with its seed of training; that takes several runs.

**Paired bootstrap** (Koehn, EMNLP 2004; Berg-Kirkpatrick et al., EMNLP 2012). Utterances are drawn with replacement, the same
for both runs, and the score of each is computed anew. With d the difference and d_b that of resample b, of R,

    p = (1 + |{b : |d_b - d| >= |d|}|) / (1 + R)

**MAPSSWE**, the matched pairs sentence segment word error test (Gillick and Cox, ICASSP 1989), with the rule of NIST's sctk
(`mtchprs.c`, with its default of two words as a boundary):

- Both hypotheses are aligned with the reference (by jiwer, with the fewest errors; sctk weighs a substitution 4, the others 3).
  A word of the reference is good if both runs have it. Insertions stand between words.
- A segment begins with the first error of either run and ends where two good words stand side by side with no insertion between
  them, or with the utterance. So one good word between two errors belongs to the segment of both. What lies
  outside of segments holds no errors.
- Insertions after the last word count, whichever run has them. (sctk's loop ends with the first run's alignment, and overlooks
  those that only the second has.)

With the differences z_i of the errors in n segments, their mean and their standard deviation s (divisor n - 1),

    Z = mean * sqrt(n) / s    p = 2 * (1 - Phi(|Z|))

and Z = 0 where s is 0, as in sctk. The normal approximation wants ``ENOUGH_SEGMENTS``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import numpy as np
from numpy.typing import ArrayLike

from stapes.errors import DataError
from stapes.metrics import bootstrap
from stapes.metrics.wer import WORDS, align

BOUNDARY_WORDS = 2
ENOUGH_SEGMENTS = 50


@dataclass(frozen=True)
class Difference:
    """Two runs by one score.

    Attributes:
        first, second: the scores, in percent.
        interval: 95 % bootstrap interval of ``second - first``, in percentage points.
        p: two-sided, of the paired bootstrap.
        utterances: how many both were scored on.
    """

    first: float
    second: float
    interval: tuple[float, float]
    p: float
    utterances: int

    @property
    def difference(self) -> float:
        """``second - first``, in percentage points."""
        return self.second - self.first


@dataclass(frozen=True)
class MatchedPairs:
    """The result of MAPSSWE.

    Attributes:
        segments: how many hold an error of either run.
        mean: errors of the second run less those of the first, in a segment.
        z: the statistic; negative where the second run has fewer errors.
        p: two-sided, from the normal distribution.
    """

    segments: int
    mean: float
    z: float
    p: float


def paired_bootstrap(
    statistic: bootstrap.Statistic,
    first: ArrayLike,
    second: ArrayLike,
    *,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Compare two runs by a score that is computed from sums over utterances.

    Args:
        statistic: from sums to scores; such as `bootstrap.ratio` for WER and NER F1, `macro_f1`, `bleu_of_sums`.
        first, second: (utterances, columns), what each utterance of a run adds to the sums, in the same order.
        resamples: bootstrap samples; p is at least 1 / (1 + resamples).
        seed: of the bootstrap.

    Raises:
        DataError: no utterances, not the same number, or a run without a score.
    """
    runs = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if runs[0].ndim != 2 or runs[0].shape != runs[1].shape or not len(runs[0]):
        raise DataError(
            "paired bootstrap", f"counts of shapes {runs[0].shape} and {runs[1].shape}", "the same utterances twice"
        )
    columns = runs[0].shape[1]
    values = [float(statistic(run.sum(axis=0, keepdims=True))[0]) for run in runs]
    if any(map(math.isnan, values)):
        raise DataError("paired bootstrap", "a run without a score", "at least one denominator above zero")
    sums = bootstrap.resampled_sums(np.concatenate(runs, axis=1), resamples=resamples, seed=seed)
    drawn = statistic(sums[:, columns:]) - statistic(sums[:, :columns])
    drawn = drawn[~np.isnan(drawn)]
    difference = values[1] - values[0]
    # Scores are sums of floats: a tie must not hang on the last bit.
    extreme = np.abs(drawn - difference) >= abs(difference) - 1e-9
    return Difference(
        first=values[0],
        second=values[1],
        interval=bootstrap.percentiles(drawn),
        p=(1 + int(extreme.sum())) / (1 + len(drawn)),
        utterances=len(runs[0]),
    )


def mapsswe(
    references: Sequence[str], first: Sequence[str], second: Sequence[str], *, normaliser: str = "slue"
) -> MatchedPairs:
    """Compare the word errors of two runs on the same utterances.

    Args:
        references: transcripts.
        first, second: hypotheses of the two runs, in the same order.
        normaliser: name of what is done to all of them.

    Raises:
        DataError: the lists differ in length or are empty.
        RecipeError: there is no such normaliser.
    """
    differences = [
        errors[1] - errors[0]
        for places in zip(_places(references, first, normaliser), _places(references, second, normaliser), strict=True)
        for errors in segments(*places)
    ]
    spread = stdev(differences) if len(differences) > 1 else 0.0
    mean = fmean(differences) if differences else 0.0
    z = mean * math.sqrt(len(differences)) / spread if spread else 0.0
    return MatchedPairs(len(differences), mean, z, 2.0 * NormalDist().cdf(-abs(z)))


def segments(first: Sequence[int], second: Sequence[int]) -> list[tuple[int, int]]:
    """The errors of both runs in each segment of one utterance.

    Args:
        first, second: errors of a run before the first word, at it (0 or 1), between it and the second, and so on until after
            the last: one more than twice the words.
    """
    found: list[tuple[int, int]] = []
    errors = [0, 0]
    good_words = 0
    for place, here in enumerate(zip(first, second, strict=True)):
        if any(here):
            good_words = 0
            errors = [total + more for total, more in zip(errors, here, strict=True)]
        elif place % 2:
            good_words += 1
        if good_words == BOUNDARY_WORDS and any(errors):
            found.append((errors[0], errors[1]))
            errors = [0, 0]
    return [*found, (errors[0], errors[1])] if any(errors) else found


def _places(references: Sequence[str], hypotheses: Sequence[str], normaliser: str) -> list[list[int]]:
    """Of each utterance what `segments` wants of one run."""
    output = align(references, hypotheses, normaliser, WORDS)
    found = []
    for reference, chunks in zip(output.references, output.alignments, strict=True):
        places = [0] * (2 * len(reference) + 1)
        for chunk in chunks:
            if chunk.type == "insert":
                places[2 * chunk.ref_start_idx] += chunk.hyp_end_idx - chunk.hyp_start_idx
            elif chunk.type != "equal":
                for word in range(chunk.ref_start_idx, chunk.ref_end_idx):
                    places[2 * word + 1] = 1
        found.append(places)
    return found
