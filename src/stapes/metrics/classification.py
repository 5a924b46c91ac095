"""Sentiment as SLUE scores it (arXiv 2111.10367): F1 of Negative, Neutral and Positive, averaged over them, by scikit-learn.

"Mixed" and "disagreement" are Neutral, where there are any (``text/tags.py``). An answer that is no label is wrong: it lowers
the recall of what it should have been, and the precision of nothing. As in the official toolkit, which leaves this to
scikit-learn's defaults, the average is over the labels that occur in references or hypotheses; in any set of some size these
are all three.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stapes.errors import DataError
from stapes.metrics import bootstrap
from stapes.metrics.paired import require_pairs
from stapes.text.tags import SENTIMENTS, sentiment
from stapes.types import Score

NO_LABEL = "none"
_ANSWERS = (*SENTIMENTS, NO_LABEL)
_MEASURES = ("precision", "recall", "f1")


def sentiment_f1(
    references: Sequence[str],
    hypotheses: Sequence[str | None],
    *,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> Score:
    """Macro F1 of the sentiment: the SA score of SLUE's leaderboard.

    Args:
        references: a label of SLUE for each utterance, in any case.
        hypotheses: the answers, in the same order; None, or any string that is no label of SLUE, is a wrong answer.
        resamples: bootstrap samples behind the interval; 0 for no interval.
        seed: of the bootstrap.

    Returns:
        Macro F1 in percent. Parts, all in percent: ``macro_precision``, ``macro_recall``; ``weighted_precision``,
        ``weighted_recall``, ``weighted_f1`` (by how often a label is in the references); ``accuracy``; ``per_label`` with
        precision, recall, F1 and the number in the references. Counts: ``confusion``, reference -> answer -> utterances, the
        answer ``none`` being no label; ``unlabelled``, the answers that are none; ``utterance_labels``, the (reference,
        answer) of each utterance.

    Raises:
        DataError: the lists differ in length or are empty, or a reference is no label of SLUE.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    require_pairs("sentiment", references, hypotheses)
    expected = [sentiment(label, f"sentiment of utterance {position}") for position, label in enumerate(references)]
    found = [_label(answer) for answer in hypotheses]
    occurring = [label for label in SENTIMENTS if label in expected or label in found]
    measured = {
        average: precision_recall_fscore_support(expected, found, labels=occurring, average=average, zero_division=0)
        for average in ("macro", "weighted", None)
    }
    macro, weighted, single = measured["macro"], measured["weighted"], measured[None]
    confusion = confusion_matrix(expected, found, labels=list(_ANSWERS))[: len(SENTIMENTS)]
    return Score(
        value=100.0 * float(macro[2]),
        parts={
            **{f"macro_{name}": 100.0 * float(macro[row]) for row, name in enumerate(_MEASURES) if name != "f1"},
            **{f"weighted_{name}": 100.0 * float(weighted[row]) for row, name in enumerate(_MEASURES)},
            "accuracy": 100.0 * float(np.trace(confusion)) / len(expected),
            "per_label": {
                label: {name: 100.0 * float(single[row][column]) for row, name in enumerate(_MEASURES)}
                | {"reference": expected.count(label)}
                for column, label in enumerate(occurring)
            },
            "confusion": {
                label: dict(zip(_ANSWERS, map(int, confusion[row]), strict=True)) for row, label in enumerate(SENTIMENTS)
            },
            "unlabelled": found.count(NO_LABEL),
            "utterance_labels": list(zip(expected, found, strict=True)),
        },
        interval=bootstrap.interval_of(macro_f1, confusion_columns(expected, found), resamples=resamples, seed=seed)
        if resamples
        else None,
        signature=f"sentiment_f1|avg:macro|scikit-learn:{importlib.metadata.version('scikit-learn')}|n:{len(expected)}",
    )


def confusion_columns(expected: Sequence[str], found: Sequence[str]) -> NDArray[np.float64]:
    """(utterances, 12): the cell of the flattened confusion matrix, 3 labels by 4 answers, that each utterance adds 1 to."""
    cells = [
        SENTIMENTS.index(label) * len(_ANSWERS) + _ANSWERS.index(answer) for label, answer in zip(expected, found, strict=True)
    ]
    return np.eye(len(SENTIMENTS) * len(_ANSWERS))[cells]


def macro_f1(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(resamples, 12) flattened confusion matrices -> (resamples,) macro F1 in percent, over the labels that occur."""
    confusion = sums.reshape(-1, len(SENTIMENTS), len(_ANSWERS))
    hits = np.diagonal(confusion[:, :, : len(SENTIMENTS)], axis1=1, axis2=2)
    denominators = confusion.sum(axis=2) + confusion[:, :, : len(SENTIMENTS)].sum(axis=1)
    f1 = np.divide(2.0 * hits, denominators, out=np.zeros_like(hits), where=denominators > 0)
    return 100.0 * f1.sum(axis=1) / (denominators > 0).sum(axis=1)


def _label(answer: str | None) -> str:
    if answer is None:
        return NO_LABEL
    try:
        return sentiment(answer)
    except DataError:
        return NO_LABEL
