"""Sentiment: scikit-learn's numbers, answers that are no label, and the bootstrap against a slow loop."""

import random
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score

from stapes.errors import DataError
from stapes.metrics.classification import confusion_columns, macro_f1, sentiment_f1
from stapes.text.tags import SENTIMENTS

LABELS = st.sampled_from(SENTIMENTS)
CORPORA = st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=30)


def test_a_case_done_by_hand():
    references = ["Positive", "mixed", "Disagreement", "Negative", "Neutral"]
    score = sentiment_f1(references, ["positive", "Neutral", None, "Positive", "dunno"])
    # Negative: none found of 1. Neutral: 1 of 3, nothing wrong. Positive: 1 of 1, and one that is Negative.
    assert score.value == pytest.approx(100 * (0 + 2 / 4 + 2 / 3) / 3)
    assert score.parts["macro_precision"] == pytest.approx(100 * (0 + 1 + 1 / 2) / 3)
    assert score.parts["macro_recall"] == pytest.approx(100 * (0 + 1 / 3 + 1) / 3)
    assert score.parts["weighted_f1"] == pytest.approx(100 * (0 * 1 + 2 / 4 * 3 + 2 / 3 * 1) / 5)
    assert score.parts["accuracy"] == pytest.approx(40.0)
    assert score.parts["per_label"]["Neutral"] == pytest.approx(
        {"precision": 100.0, "recall": 100 / 3, "f1": 50, "reference": 3}
    )
    assert score.parts["confusion"] == {
        "Negative": {"Negative": 0, "Neutral": 0, "Positive": 1, "none": 0},
        "Neutral": {"Negative": 0, "Neutral": 1, "Positive": 0, "none": 2},
        "Positive": {"Negative": 0, "Neutral": 0, "Positive": 1, "none": 0},
    }
    assert score.parts["unlabelled"] == 2
    assert score.parts["utterance_labels"][2:4] == [("Neutral", "none"), ("Negative", "Positive")]
    assert score.signature.startswith("sentiment_f1|avg:macro|scikit-learn:")
    assert score.signature.endswith("|n:5")


@settings(max_examples=25)
@given(CORPORA)
def test_is_scikit_learns_default(pairs):
    """The official toolkit calls these functions so, without naming labels."""
    expected, found = zip(*pairs, strict=True)
    score = sentiment_f1(expected, found, resamples=0)
    for average in ("macro", "weighted"):
        for measure, function in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
            value = score.value if (average, measure) == ("macro", "f1") else score.parts[f"{average}_{measure}"]
            assert value == pytest.approx(100 * function(expected, found, average=average, zero_division=0))


@settings(max_examples=25)
@given(st.lists(st.tuples(LABELS, st.one_of(LABELS, st.none(), st.text(max_size=3))), min_size=1, max_size=30))
def test_any_answer_can_be_scored_and_the_sums_give_the_same_value(pairs):
    expected, found = zip(*pairs, strict=True)
    score = sentiment_f1(expected, found, resamples=10)
    columns = confusion_columns(*zip(*score.parts["utterance_labels"], strict=True))
    assert macro_f1(columns.sum(axis=0, keepdims=True))[0] == pytest.approx(score.value)
    assert score.interval is not None and 0.0 <= score.interval[0] <= score.interval[1] <= 100.0


@settings(max_examples=25)
@given(CORPORA, st.data())
def test_no_answer_is_no_better_than_a_wrong_one(pairs, data):
    expected, found = (list(side) for side in zip(*pairs, strict=True))
    row = data.draw(st.integers(0, len(pairs) - 1))
    silent = sentiment_f1(expected, [*found[:row], None, *found[row + 1 :]], resamples=0)
    assert silent.parts["accuracy"] <= sentiment_f1(expected, found, resamples=0).parts["accuracy"]
    assert silent.parts["unlabelled"] == 1


def f1_of_a_label(pairs, label):
    hits = sum(pair == (label, label) for pair in pairs)
    return 100 * 2 * hits / (sum(expected == label for expected, _ in pairs) + sum(found == label for _, found in pairs))


def test_the_interval_is_that_of_redrawn_utterances():
    draw = random.Random(0)
    expected = draw.choices(SENTIMENTS, weights=(1, 5, 2), k=80)
    found = [label if draw.random() < 0.6 else draw.choice(["Negative", "Neutral", None]) for label in expected]
    score = sentiment_f1(expected, found, resamples=3000)
    values = []
    for _ in range(3000):
        drawn = [(expected[row], found[row]) for row in draw.choices(range(80), k=80)]
        values.append(fmean(f1_of_a_label(drawn, label) for label in SENTIMENTS if any(label in pair for pair in drawn)))
    assert score.interval == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=1.0)
    assert score.interval[0] < score.value < score.interval[1]
    assert sentiment_f1(expected, found, resamples=0).interval is None


@pytest.mark.parametrize(
    ("references", "hypotheses", "message"),
    [
        ([], [], "no utterances"),
        (["Neutral"], [], "1 references and 0 hypotheses"),
        (["Neutral", "angry"], [None, None], "sentiment of utterance 1: sentiment 'angry'"),
    ],
)
def test_what_cannot_be_scored_is_named(references, hypotheses, message):
    with pytest.raises(DataError, match=message):
        sentiment_f1(references, hypotheses)
