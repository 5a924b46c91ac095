"""The leaderboard's own lines, and an interval for which both corpora are resampled."""

import random

import numpy as np
import pytest

from stapes.errors import DataError
from stapes.metrics.classification import sentiment_f1
from stapes.metrics.entities import entity_f1
from stapes.metrics.slue import combine, slue_score
from stapes.metrics.wer import wer
from stapes.types import Score


@pytest.mark.parametrize(
    ("voxpopuli_wer", "voxceleb_wer", "ner_f1", "sentiment", "slue"),
    [
        (18.4, 20.9, 49.6, 48.6, 59.5),  # end to end, W2V2-B
        (0.0, 0.0, 81.4, 66.8, 82.7),  # text, DeBERTa-L
        (9.3, 11.1, 71.8, 65.5, 75.7),  # pipeline, W2V2-L-LL60K with LM and DeBERTa-L
        (22.8, 33.7, 47.9, 38.9, 52.8),  # end to end, W2V2-B-VP100K
    ],
)
def test_lines_of_the_leaderboard(voxpopuli_wer, voxceleb_wer, ner_f1, sentiment, slue):
    assert combine(voxpopuli_wer, voxceleb_wer, ner_f1, sentiment) == pytest.approx(slue, abs=0.06)


@pytest.fixture(scope="module")
def parts() -> dict[str, Score]:
    """A system's four scores, each of 60 utterances."""
    draw = random.Random(0)
    texts = [" ".join(draw.choices("abcde", k=draw.randint(3, 9))) for _ in range(120)]
    losses = [0.1] * 60 + [0.4] * 60
    heard = [" ".join(w for w in text.split() if draw.random() > loss) for text, loss in zip(texts, losses, strict=True)]
    entities = [[("ORG", word) for word in text.split()[: draw.randrange(3)]] for text in texts[:60]]
    found = [[pair for pair in pairs if draw.random() < 0.7] + [("LAW", "x")] * draw.randrange(2) for pairs in entities]
    labels = draw.choices(["Negative", "Neutral", "Positive"], k=60)
    answers = [label if draw.random() < 0.6 else draw.choice(["Neutral", None]) for label in labels]
    return {
        "voxpopuli_wer": wer(texts[:60], heard[:60], resamples=0),
        "voxceleb_wer": wer(texts[60:], heard[60:], resamples=0),
        "ner_f1": entity_f1(entities, found, resamples=0),
        "sentiment_f1": sentiment_f1(labels, answers, resamples=0),
    }


def test_is_computed_from_its_parts_and_names_them(parts):
    score = slue_score(**parts)
    values = {name: part.value for name, part in parts.items()}
    words = values["voxpopuli_wer"] + values["voxceleb_wer"]
    assert score.value == pytest.approx((100 - words / 2 + values["ner_f1"] + values["sentiment_f1"]) / 3)
    assert score.parts == values | {"name": "SLUE score", "synthetic": ()}
    assert score.signature.startswith("SLUE score; voxpopuli_wer wer|norm:slue.v1|")
    assert "; ner_f1 ner_f1|avg:micro|tags:combined|" in score.signature


def test_synthetic_sound_is_part_of_the_name(parts):
    score = slue_score(**parts, synthetic=["VoxCeleb"])
    assert score.parts["name"] == "SLUE score (synthetic VoxCeleb)"
    assert score.signature.startswith("SLUE score (synthetic VoxCeleb); ")
    assert score.value == slue_score(**parts).value
    both = slue_score(**parts, synthetic=["VoxPopuli", "VoxCeleb"])
    assert both.parts["name"] == "SLUE score (synthetic VoxPopuli and VoxCeleb)"


def redrawn(parts: dict[str, Score], draw: random.Random) -> float:
    """The score of two redrawn corpora, counted anew."""
    counted = {name: part.parts for name, part in parts.items()}
    one, other = draw.choices(range(60), k=60), draw.choices(range(60), k=60)
    rates = [
        100
        * sum(counted[name]["utterance_errors"][row] for row in rows)
        / sum(counted[name]["utterance_words"][row] for row in rows)
        for name, rows in (("voxpopuli_wer", one), ("voxceleb_wer", other))
    ]
    hits, invented, missed = (
        sum(column) for column in zip(*(counted["ner_f1"]["utterance_counts"][row] for row in one), strict=True)
    )
    labels = [counted["sentiment_f1"]["utterance_labels"][row] for row in other]
    f1 = [
        200 * labels.count((label, label)) / sum((expected == label) + (found == label) for expected, found in labels)
        for label in ("Negative", "Neutral", "Positive")
    ]
    return combine(*rates, 200 * hits / (2 * hits + invented + missed), sum(f1) / 3)


def test_the_interval_is_that_of_two_redrawn_corpora(parts):
    score, draw = slue_score(**parts, resamples=4000), random.Random(4)
    values = [redrawn(parts, draw) for _ in range(4000)]
    assert score.interval == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.5)
    assert score.interval[0] < score.value < score.interval[1]
    assert score.interval == slue_score(**parts, resamples=4000).interval
    assert score.interval != slue_score(**parts, resamples=4000, seed=1).interval
    assert slue_score(**parts, resamples=0).interval is None


def test_the_two_corpora_are_drawn_apart():
    """With one draw for both, equal corpora would have equal error rates, and their mean the spread of one."""
    texts = ["a b c d"] * 400
    words = wer(texts, ["a b c d", "a b"] * 200, resamples=4000)
    perfect = entity_f1([[("ORG", "a")]] * 400, [[("ORG", "a")]] * 400, resamples=0)
    score = slue_score(words, perfect, words, sentiment_f1(["Neutral"] * 400, ["Neutral"] * 400, resamples=0), resamples=4000)
    assert np.diff(score.interval)[0] == pytest.approx(np.diff(words.interval)[0] / 3 / np.sqrt(2), rel=0.1)


def test_the_parts_of_a_corpus_must_be_of_the_same_utterances(parts):
    short = entity_f1([[]] * 59, [[]] * 59, resamples=0)
    with pytest.raises(DataError, match="SLUE-VoxPopuli: 60 utterances with words and 59 with labels"):
        slue_score(**parts | {"ner_f1": short})
    short = sentiment_f1(["Neutral"] * 61, ["Neutral"] * 61, resamples=0)
    with pytest.raises(DataError, match="SLUE-VoxCeleb: 60 utterances with words and 61 with labels"):
        slue_score(**parts | {"sentiment_f1": short})
