"""Two runs by every score that both have."""

import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from stapes.errors import DataError
from stapes.evaluation.compare import compare, table
from stapes.evaluation.evaluate import Evaluation
from stapes.evaluation.measures import MEASURES
from stapes.evaluation.predictions import Predictions, read_predictions
from stapes.metrics.classification import sentiment_f1
from stapes.metrics.entities import combined_f1, entity_f1, label_f1
from stapes.metrics.signature import with_facts
from stapes.metrics.significance import mapsswe
from stapes.metrics.translation import bleu, chrf
from stapes.metrics.wer import cer, sentence_mean_wer, wer

LABELS = ("Negative", "Neutral", "Positive")


def corpus(loss: float, count: int = 40, seed: int = 1) -> list[dict]:
    """Lines with everything in them: the same references for any ``loss``, and answers that lack so much of them."""
    truth, draw = random.Random(0), random.Random(seed)
    lines = []
    for number in range(count):
        words = truth.choices(["one", "two", "three", "four", "five", "six"], k=truth.randint(4, 9))
        kept = [word for word in words if draw.random() > loss]
        label = truth.choice(LABELS)
        lines.append(
            {
                "id": f"u{number}",
                "reference": " ".join(words),
                "hypothesis": " ".join(kept),
                "reference_entities": [["QUANT", word] for word in words[:2]],
                "entities": [["QUANT", word] for word in kept[:2]],
                "reference_sentiment": label,
                "sentiment": label if draw.random() > loss else None,
                "reference_translation": " ".join(words).upper(),
                "translation": " ".join(kept).upper(),
            }
        )
    return lines


@pytest.fixture
def runs(evaluated: Callable[..., Path]) -> list[Predictions]:
    return [read_predictions(evaluated(name, corpus(loss, seed=seed))) for name, loss, seed in (("a", 0.3, 1), ("b", 0.1, 2))]


def test_every_score_is_that_of_its_metric(runs: list[Predictions]):
    found = compare(*runs, resamples=99)
    assert list(found.differences) == list(MEASURES)
    assert found.utterances == 40

    def side(key: str, run: int) -> list:
        return [getattr(line, key) for line in runs[run].lines.values()]

    metrics = {
        "wer": (wer, "reference", "hypothesis"),
        "wer_sentence_mean": (sentence_mean_wer, "reference", "hypothesis"),
        "cer": (cer, "reference", "hypothesis"),
        "ner_f1": (entity_f1, "reference_entities", "entities"),
        "ner_f1_combined": (combined_f1, "reference_entities", "entities"),
        "ner_label_f1": (label_f1, "reference_entities", "entities"),
        "sentiment_f1": (sentiment_f1, "reference_sentiment", "sentiment"),
        "bleu": (bleu, "reference_translation", "translation"),
        "chrf": (chrf, "reference_translation", "translation"),
    }
    for name, (metric, reference, answer) in metrics.items():
        scores = [metric(side(reference, run), side(answer, run), resamples=0) for run in (0, 1)]
        two = found.differences[name]
        assert (two.first, two.second) == pytest.approx([score.value for score in scores]), name
        assert two.interval[0] <= two.difference <= two.interval[1], name
        assert set(scores[0].signature.split("|")) == set(found.signatures[name].split("|"))
        better = two.difference < 0 if name in ("wer", "wer_sentence_mean", "cer") else two.difference > 0
        assert better and two.p < 0.5, name
    assert found.differences["wer"].p == 0.01
    assert found.matched_pairs == mapsswe(side("reference", 0), side("hypothesis", 0), side("hypothesis", 1))


def test_the_order_of_the_lines_does_not_matter(runs: list[Predictions], evaluated: Callable[..., Path]):
    shuffled = read_predictions(evaluated("c", corpus(0.1, seed=2)[::-1]))
    first, second = compare(*runs, resamples=50), compare(runs[0], shuffled, resamples=50)
    assert first.as_json() == second.as_json()
    same = compare(runs[0], runs[0], resamples=50)
    assert {two.p for two in same.differences.values()} == {1.0}


def test_only_what_both_have_is_compared(evaluated: Callable[..., Path]):
    without = ("reference_entities", "entities", "reference_translation", "translation")
    first = read_predictions(evaluated("a", corpus(0.2)))
    second = read_predictions(
        evaluated("b", [{key: value for key, value in line.items() if key not in without} for line in corpus(0.1)])
    )
    assert list(compare(first, second, resamples=9).differences) == ["wer", "wer_sentence_mean", "cer", "sentiment_f1"]


def test_utterances_without_a_label_are_not_scored_by_it(evaluated: Callable[..., Path]):
    runs = []
    for name, loss in (("a", 0.3), ("b", 0.1)):
        lines = corpus(loss)
        for line in lines[:10]:
            del line["reference_sentiment"]
            line["reference"] = line["hypothesis"] = ""
        runs.append(read_predictions(evaluated(name, lines)))
    found = compare(*runs, resamples=9)
    assert (found.differences["sentiment_f1"].utterances, found.differences["wer"].utterances) == (30, 40)
    silent = [[line | {"reference": "", "hypothesis": "a"} for line in corpus(loss)] for loss in (0.3, 0.1)]
    without = dict.fromkeys(("wer", "wer_sentence_mean", "cer"))
    folders = [evaluated(f"silent-{number}", lines, **without) for number, lines in enumerate(silent)]
    found = compare(*map(read_predictions, folders), resamples=9)
    assert "wer" not in found.differences and "ner_f1" in found.differences
    assert found.matched_pairs is None
    assert "mapsswe" not in found.as_json()


def test_json_holds_everything(runs: list[Predictions]):
    found = json.loads(json.dumps(compare(*runs, resamples=20).as_json()))
    assert set(found) == {"utterances", "scores", "mapsswe"}
    assert set(found["scores"]["wer"]) == {"a", "b", "difference", "interval", "p", "utterances", "signature"}
    assert found["scores"]["wer"]["difference"] == pytest.approx(found["scores"]["wer"]["b"] - found["scores"]["wer"]["a"])
    assert set(found["mapsswe"]) == {"segments", "mean", "z", "p"}


def test_a_table_for_people(runs: list[Predictions]):
    console = Console(file=io.StringIO(), width=120)
    found = compare(*runs, resamples=2000)
    console.print(table(found, "a (A) and b (B)"))
    text = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    two = found.differences["wer"]
    assert "a (A) and b (B)" in text
    assert f"│ WER │ {two.first:.2f} │ {two.second:.2f} │ {two.difference:+.2f} │" in text
    assert "< 0.001" in text
    assert f"MAPSSWE on word errors: {found.matched_pairs.segments} segments, Z -" in text
    assert found.signatures["bleu"] in text


def test_runs_that_are_not_of_the_same_data_are_named(runs: list[Predictions], evaluated: Callable[..., Path]):
    fewer = read_predictions(evaluated("fewer", corpus(0.1)[3:]))
    with pytest.raises(DataError, match="3 ids only in the first run and 0 only in the second"):
        compare(runs[0], fewer)
    lines = corpus(0.1)
    lines[4]["reference"] = lines[7]["reference"] = "other words"
    with pytest.raises(DataError, match=r"'reference' differs in 2 of 40 utterances \('u4', 'u7'\), expected the same ref"):
        compare(runs[0], read_predictions(evaluated("other", lines)))
    lines = corpus(0.1)
    lines[5]["reference_entities"] = []
    with pytest.raises(DataError, match=r"'reference_entities' differs in 1 of 40 utterances \('u5'\)"):
        compare(runs[0], read_predictions(evaluated("labels", lines)))
    lines = corpus(0.1)
    lines[5]["reference_sentiment"] = None
    with pytest.raises(DataError, match="sentiment macro F1: 1 ids only in the first run"):
        compare(runs[0], read_predictions(evaluated("unlabelled", lines)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"normaliser": "none"},
            "WER with norm:slue.v1 and norm:none.v1, expected the same for both; evaluate one of them again",
        ),
        ({"ner_f1": "ner_f1|tags:raw|norm:slue.v1"}, "NER F1 with tags:combined and tags:raw"),
        ({"bleu": "bleu|tok:zh"}, "BLEU with tok:13a and tok:zh"),
        ({"sentiment_f1": "sentiment_f1|synthetic:yes"}, r"sentiment macro F1 with synthetic:\(none\) and synthetic:yes"),
    ],
)
def test_runs_that_were_not_measured_in_one_way(
    runs: list[Predictions], evaluated: Callable[..., Path], changes: dict[str, str], message: str
):
    with pytest.raises(DataError, match=message):
        compare(runs[0], read_predictions(evaluated("other", corpus(0.1), **changes)))


def test_each_score_is_measured_as_its_evaluation_did(evaluated: Callable[..., Path]):
    """Raw tags stay raw, Chinese is cut into characters, and phrases are not said to be normalised as words are."""
    lines = [
        {"id": "a", "reference": "The EU", "hypothesis": "the eu"}
        | {"reference_entities": [["GPE", "eu"]], "entities": [["LOC", "eu"]]}
        | {"reference_translation": "我今天回家。", "translation": "我今天不回家。"}
    ]
    changes = {
        "ner_f1": "ner_f1|avg:micro|tags:raw|norm:slue.v1|n:1|data:abc",
        "ner_f1_combined": "ner_f1|avg:micro|tags:combined|norm:slue.v1|n:1|data:abc",
        "ner_label_f1": None,
        "bleu": "bleu|tok:zh|to:zh",
    }
    folder = evaluated("a", lines, "none", **changes)
    found = compare(read_predictions(folder), read_predictions(folder), resamples=9)
    assert found.differences["wer"].first == 100.0
    assert found.signatures["ner_f1"] == changes["ner_f1"]
    assert (found.differences["ner_f1"].first, found.differences["ner_f1_combined"].first) == (0.0, 100.0)
    score = bleu(["我今天回家。"], ["我今天不回家。"], tokenize="zh", resamples=0)
    assert found.differences["bleu"].first == pytest.approx(score.value)
    assert found.signatures["bleu"] == with_facts(score, to="zh").signature


def test_what_an_evaluation_says_is_what_a_comparison_says(made: Callable[..., Evaluation], tmp_path: Path):
    """Values and signatures are those of ``scores.json``, of every task; and nothing is compared that it does not score."""
    rows = [
        {"text": text, "entities": [("GPE", "ghent")], "sentiment": "Neutral", "translations": {"zh": "我今天回家。"}}
        for text in ("in ghent", "to ghent now")
    ]
    listed = '[{"tag": "GPE", "text": "ghent"}]'
    for number, (task, answer) in enumerate(
        (
            ({"name": "asr"}, "in ghent"),
            ({"name": "ner", "tags": "raw"}, "in [GPE ghent]"),
            ({"name": "ner", "style": "written"}, "in [PLACE gent]"),
            ({"name": "ner", "markup": "json", "tags": "raw"}, listed),
            ({"name": "sentiment"}, "Neutral"),
            ({"name": "asr+sentiment"}, "in ghent\nNeutral"),
            ({"name": "translation", "to": "zh"}, "我今天不回家。"),
        )
    ):
        evaluation = made(task, rows, [answer, answer])
        evaluation.save(tmp_path / f"{number}")
        read = read_predictions(tmp_path / f"{number}")
        found = compare(read, read, resamples=9)
        assert found.differences.keys() == evaluation.scores["signatures"].keys() - {"wer_whisper_en"}, task
        for name, two in found.differences.items():
            assert two.first == pytest.approx(evaluation.scores[name], abs=1e-3), (task, name)
            assert set(found.signatures[name].split("|")) == set(evaluation.scores["signatures"][name].split("|"))
        assert (found.matched_pairs is None) == ("wer" not in evaluation.scores), task


def test_nothing_to_compare(evaluated: Callable[..., Path]):
    silent = read_predictions(evaluated("silent", [{"id": "a", "reference": "", "hypothesis": "a"}]))
    with pytest.raises(DataError, match="no score that both have"):
        compare(silent, silent)
