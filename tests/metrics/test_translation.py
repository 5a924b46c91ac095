"""BLEU and chrF are sacrebleu's, and so are their signatures; the bootstrap is over utterances."""

import importlib.util
import random

import numpy as np
import pytest
import sacrebleu

from stapes.errors import DataError, MissingDependency, RecipeError
from stapes.metrics.translation import bleu, chrf, comet

REFERENCES = ["Guten Morgen, wie geht es Ihnen?", "Das Haus ist klein.", "Er ging gestern nach Hause.", "Nein."]
HYPOTHESES = ["Guten Morgen, wie geht es dir?", "Das Haus ist sehr klein.", "gestern ging er heim", ""]


def corpus(count: int) -> tuple[list[str], list[str]]:
    draw = random.Random(0)
    references = [" ".join(draw.choices("abcdefgh", k=draw.randint(4, 12))) for _ in range(count)]
    return references, [" ".join(word for word in text.split() if draw.random() > 0.2) for text in references]


def test_is_sacrebleus_number_with_its_signature():
    metric = sacrebleu.metrics.BLEU()
    theirs = metric.corpus_score(HYPOTHESES, [REFERENCES])
    score = bleu(REFERENCES, HYPOTHESES)
    assert 10 < theirs.score < 90
    assert score.value == pytest.approx(theirs.score)
    assert score.parts["precisions"] == pytest.approx(theirs.precisions)
    assert score.parts["brevity_penalty"] == pytest.approx(theirs.bp)
    assert (score.parts["hypothesis_tokens"], score.parts["reference_tokens"]) == (theirs.sys_len, theirs.ref_len)
    assert score.signature == f"bleu|{metric.get_signature()}|n:4"
    assert "tok:13a" in score.signature and f"version:{sacrebleu.__version__}" in score.signature
    metric = sacrebleu.metrics.CHRF()
    score = chrf(REFERENCES, HYPOTHESES)
    assert score.value == pytest.approx(metric.corpus_score(HYPOTHESES, [REFERENCES]).score)
    assert score.signature == f"chrf2|{metric.get_signature()}|n:4"


def test_a_tokeniser_for_languages_without_spaces():
    references, hypotheses = ["我今天回家。"], ["我今天不回家。"]
    assert bleu(references, hypotheses, tokenize="zh").value > 2 * bleu(references, hypotheses).value
    assert "tok:zh" in bleu(references, hypotheses, tokenize="zh").signature
    with pytest.raises(RecipeError, match="unknown tokeniser 'zhh'; did you mean 'zh'"):
        bleu(references, hypotheses, tokenize="zhh")


@pytest.mark.parametrize("metric", [bleu, chrf])
def test_the_interval_is_that_of_redrawn_utterances(metric):
    references, hypotheses = corpus(40)
    score = metric(references, hypotheses, resamples=1000)
    draw = random.Random(1)
    values = []
    for _ in range(150):
        rows = draw.choices(range(40), k=40)
        again = metric([references[row] for row in rows], [hypotheses[row] for row in rows], resamples=0)
        assert again.interval is None
        values.append(again.value)
    assert score.interval == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=2.5)
    assert score.interval[0] < score.value < score.interval[1]


@pytest.mark.parametrize("metric", [bleu, chrf])
def test_the_same_text_is_a_hundred_and_order_does_not_matter(metric):
    references, hypotheses = corpus(10)
    perfect = metric(references, references, resamples=20)
    assert perfect.value == pytest.approx(100.0)
    assert perfect.interval == pytest.approx((100.0, 100.0))
    first, second = metric(references, hypotheses), metric(references[::-1], hypotheses[::-1])
    assert first.value == pytest.approx(second.value)
    assert first.interval == second.interval


@pytest.mark.parametrize("metric", [bleu, chrf])
def test_what_cannot_be_scored_is_named(metric):
    for references, hypotheses, message in (
        ([], [], "no utterances"),
        (["a"], [], "1 references"),
        ("a", "b", "single string"),
    ):
        with pytest.raises(DataError, match=message):
            metric(references, hypotheses)


@pytest.mark.skipif(importlib.util.find_spec("comet") is not None, reason="unbabel-comet is installed")
def test_comet_says_what_is_missing():
    with pytest.raises(MissingDependency, match=r"COMET: an optional package is missing; run `pip install 'stapes\[comet\]'`"):
        comet(["good morning"], ["guten Morgen"], ["guten Tag"])
    with pytest.raises(DataError, match="comet: 1 references and 2"):
        comet(["a", "b"], ["a"], ["a", "b"])
