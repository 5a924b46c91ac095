"""What a person reads of an evaluation."""

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from stapes.evaluation.evaluate import Evaluation, Prediction
from stapes.evaluation.report import report, score_rows
from stapes.metrics.wer import per_utterance

REFERENCES = ["the cat sat", "on the mat", "all is well", "one two three four"]
HYPOTHESES = ["the cat sat", "on a mat", "", "won too tree for five"]


@pytest.fixture
def evaluation() -> Evaluation:
    counts = per_utterance(REFERENCES, HYPOTHESES)
    predictions = [
        Prediction(
            id=f"u{number}",
            reference=reference,
            hypothesis=hypothesis,
            ctc=None,
            counts=counts[number],
            duration=1.5,
            capped=number == 3,
            labels={},
            unreadable="no such file" if number == 2 else None,
        )
        for number, (reference, hypothesis) in enumerate(zip(REFERENCES, HYPOTHESES, strict=True))
    ]
    scores = {"wer": 69.231, "cer": 50.0, "substitutions": 5, "deletions": 3, "insertions": 1, "utterances": 4, "capped": 1}
    signatures = {"wer": "wer|norm:slue.v1|n:4", "cer": "cer|norm:slue.v1|n:4"}
    measured = {"intervals": {"wer": [20.0, 101.5]}, "signatures": signatures, "provenance": "task:asr|model:mine"}
    return Evaluation(scores | measured, predictions, "slue")


def shown(evaluation: Evaluation, **options: int) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(report(evaluation, "mine on dev.jsonl", **options))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def test_scores_with_intervals_and_what_does_not_apply_left_out(evaluation: Evaluation):
    text = shown(evaluation)
    assert text.startswith("mine on dev.jsonl\n")
    assert "WER                          │ 69.23 │ 20.00 to 101.50" in text
    assert "CER                          │ 50.00 │  " in text
    assert "cut off by the cap on tokens │     1 │" in text
    assert "CTC head" not in text
    assert "unreadable, scored" not in text
    assert "\nWER: wer|norm:slue.v1|n:4\nCER: cer|norm:slue.v1|n:4\nmade by: task:asr|model:mine\n" in text


def test_the_worst_come_first_and_what_is_right_does_not_come(evaluation: Evaluation):
    text = shown(evaluation)
    order = [
        text.index(heading)
        for heading in ("u3: 5 errors in 4 words, 1.5 s, capped", "u2: 3 errors in 3 words", "u1: 1 error in 3 words")
    ]
    assert order == sorted(order)
    assert "u0" not in text
    assert "unreadable: no such file" in text
    assert "REF: on the mat\nHYP: on   a mat\n          S" in text
    assert "u2" not in shown(evaluation, shown=1)


def test_nothing_wrong_nothing_listed(evaluation: Evaluation):
    right = Evaluation(evaluation.scores, evaluation.predictions[:1], "slue")
    assert "utterances with most errors" not in shown(right)


def test_entities_by_tag(made: Callable[..., Evaluation]):
    rows = [{"text": "on monday in Paris", "entities": [("DATE", "monday"), ("GPE", "Paris")]}]
    text = shown(made({"name": "ner"}, rows, ["on [WHEN monday] in paris"]))
    for name, value in (("NER F1", "66.67"), ("NER precision", "100.00"), ("NER recall", "50.00"), ("WER, mean over", "0.00")):
        assert re.search(rf"│ {name}[ a-z]+│ +{value} │", text), name
    assert "|tags:combined|norm:slue.v1|n:1|data:" in text.replace("\n", "")
    assert "named entities by tag\n" in text
    assert "│ PLACE │   0.00 │      0.00 │   0.00 │                 1 │" in text
    assert "│ WHEN  │ 100.00 │    100.00 │ 100.00 │                 1 │" in text
    assert "u0: 0 errors in 4 words, 1 entity lost, 1.0 s\nREF: on monday in paris\nHYP: on monday in paris" in text


def test_sentiment_by_label(made: Callable[..., Evaluation]):
    rows = [{"text": "well", "sentiment": label} for label in ("Positive", "Negative", "Negative")]
    text = shown(made({"name": "sentiment"}, rows, ["Positive", "Positive", "Negative"]))
    assert "sentiment by label\n" in text
    assert "│ Negative │ 66.67 │    100.00 │  50.00 │                 2 │" in text
    for name, value in (("macro precision", 75), ("macro recall", 75), ("weighted F1", 200 / 3), ("accuracy", 200 / 3)):
        assert re.search(rf"sentiment, {name} +│ {value:.2f} │ +│", text), name
    assert text.rstrip().endswith("u1: Negative taken for Positive, 1.0 s"), "there is no text to align"


def test_translations_have_neither(made: Callable[..., Evaluation]):
    rows = [{"text": "yes", "translations": {"fr": "le chat est là"}}]
    text = shown(made({"name": "translation", "to": "fr"}, rows, ["le chat est ici"]))
    assert "BLEU" in text
    assert "WER" not in text
    assert " by tag" not in text
    assert " by label" not in text


def test_what_a_score_is_made_of_is_called_synthetic_too(made: Callable[..., Evaluation]):
    found = made({"name": "sentiment"}, [{"text": "a", "sentiment": "Neutral", "synthetic": True}], ["Neutral"])
    assert found.scores["signatures"]["sentiment_f1"].endswith("|synthetic:yes")
    found.scores["synthetic"] = 1
    names = [name for name, *_ in score_rows(found)]
    assert names[:2] == ["sentiment, macro F1, synthetic speech", "sentiment, macro precision, synthetic speech"]
    assert all(name.endswith(", synthetic speech") for name in names)
