"""Folders of `stapes evaluate`, read back strictly."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stapes.errors import DataError
from stapes.evaluation.evaluate import Evaluation, Prediction
from stapes.evaluation.predictions import finished, predictions_of, read_predictions
from stapes.metrics.wer import UtteranceErrors

LINE = {"id": "u1", "reference": "the eu", "hypothesis": "the u", "errors": 1, "substitutions": 1, "duration": 2.5}
LABELS = {
    "reference_entities": [["PLACE", "eu"], ["WHEN", "today"]],
    "entities": [],
    "reference_sentiment": "mixed",
    "sentiment": None,
    "reference_translation": "die EU",
    "translation": "du",
}


def test_what_is_written_is_read(evaluated: Callable[..., Path]):
    folder = evaluated("run", [LINE | LABELS, {"id": "u0", "reference": "", "hypothesis": ""}], "whisper-en")
    found = read_predictions(folder)
    assert list(found.lines) == ["u1", "u0"]
    assert found.normaliser == "whisper-en"
    assert found.signature == "task:asr|norm:whisper-en.v1|n:2"
    assert found.folder == folder
    first, second = found.lines.values()
    assert first.reference_entities == (("PLACE", "eu"), ("WHEN", "today"))
    assert (first.entities, first.sentiment, first.translation) == ((), None, "du")
    assert (second.reference_entities, second.reference_sentiment, second.reference_translation) == (None, None, None)


def test_what_an_evaluation_saves_is_read(tmp_path: Path):
    predictions = [Prediction("a", "so be it", "so it", None, UtteranceErrors(0, 1, 0, 3), 1.0, False)]
    Evaluation({"wer": 33.3, "signature": "norm:none.v1|n:1"}, predictions, "none").save(tmp_path)
    found = read_predictions(str(tmp_path))
    assert found.normaliser == "none"
    assert found.lines["a"].hypothesis == "so it"


def test_of_every_task_what_is_saved_is_what_was_in_memory(made: Callable[..., Evaluation], tmp_path: Path):
    rows = [
        {"text": "on monday in ghent", "entities": [("DATE", "monday")], "sentiment": "mixed", "translations": {"fr": "oui"}}
    ]
    answers = {"asr": "on monday", "ner": "on [WHEN monday]", "sentiment": "?", "asr+sentiment": "on\nNeutral"}
    for task, answer in answers.items():
        evaluation = made({"name": task}, rows, [answer], unreadable={0: "no such file"})
        evaluation.scores["signature"] = f"task:{task}|norm:{evaluation.normaliser}.v1|n:1"
        evaluation.save(tmp_path / task)
        assert predictions_of(evaluation, str(tmp_path / task)) == read_predictions(tmp_path / task)
        assert finished(tmp_path / task, evaluation.scores["signature"]) is None, "a sound was not heard"


def test_finished_is_what_is_whole_and_the_same(evaluated: Callable[..., Path]):
    folder = evaluated("run", [LINE])
    signature = "task:asr|norm:slue.v1|n:1"
    assert finished(folder, signature) == read_predictions(folder)
    assert finished(folder, f"{signature}|synthetic:yes") is None
    assert finished(folder / "nope", signature) is None
    (folder / "predictions.jsonl").write_text('{"id": "u1", "refer')
    assert finished(folder, signature) is None


@pytest.mark.parametrize(
    ("signature", "synthetic"),
    [("norm:slue.v1|synthetic:yes|n:1", True), ("norm:slue.v1|n:1", False), ("model:not-synthetic:yes|norm:slue.v1", False)],
)
def test_synthetic_sound_is_in_the_signature(evaluated: Callable[..., Path], signature: str, synthetic: bool):
    folder = evaluated("run", [LINE])
    (folder / "scores.json").write_text(json.dumps({"signature": signature}))
    assert read_predictions(folder).synthetic is synthetic


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": ""}, r"predictions\.jsonl:2: 'id': '', expected a string that is not empty"),
        ({"reference": None}, r"predictions\.jsonl:2: 'reference': None, expected a string"),
        ({"hypothesis": 3}, r"predictions\.jsonl:2: 'hypothesis': 3, expected a string"),
        ({"entities": [["PLACE"]]}, r"predictions\.jsonl:2: 'entities\[0\]\[1\]': missing"),
        ({"entities": [["PLACE", "eu", 3]]}, r"predictions\.jsonl:2: 'entities\[0\]': \['PLACE', 'eu', 3\]"),
        ({"entities": None}, r"predictions\.jsonl:2: 'entities': missing, expected what was answered, beside 'reference_ent"),
        ({"translation": None}, r"predictions\.jsonl:2: 'translation': missing, expected what was answered"),
        ({"reference_sentiment": "angry"}, r"predictions\.jsonl:2: 'reference_sentiment': sentiment 'angry', expected a label"),
        ({"id": "u0"}, r"predictions\.jsonl:2: 'id': 'u0' again, expected ids to be unique"),
    ],
)
def test_a_bad_line_is_named(evaluated: Callable[..., Path], change: dict, message: str):
    with pytest.raises(DataError, match=message):
        read_predictions(evaluated("run", [LINE | {"id": "u0"}, LINE | LABELS | change]))


def test_a_missing_key_and_what_is_no_json(evaluated: Callable[..., Path]):
    folder = evaluated("run", [{"id": "u1", "reference": "a"}])
    with pytest.raises(DataError, match=r"predictions\.jsonl:1: 'hypothesis': missing"):
        read_predictions(folder)
    (folder / "predictions.jsonl").write_text("\n" + json.dumps(LINE) + "\n{...}\n")
    with pytest.raises(DataError, match=r"predictions\.jsonl:3: not JSON"):
        read_predictions(folder)
    (folder / "predictions.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"predictions\.jsonl: no utterances in it"):
        read_predictions(folder)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ("{", r"scores\.json: not JSON"),
        ("[]", r"scores\.json: no signature"),
        ('{"wer": 3}', r"scores\.json: no signature"),
        ('{"signature": "task:asr|n:3"}', r"scores\.json: signature 'task:asr\|n:3', expected one that names a normaliser"),
        ('{"signature": "norm:mine.v1"}', r"scores\.json: signature 'norm:mine\.v1'"),
    ],
)
def test_scores_without_a_signature(evaluated: Callable[..., Path], scores: str, message: str):
    folder = evaluated("run", [LINE])
    (folder / "scores.json").write_text(scores)
    with pytest.raises(DataError, match=message):
        read_predictions(folder)


@pytest.mark.parametrize("name", ["scores.json", "predictions.jsonl"])
def test_a_folder_that_is_no_evaluation(evaluated: Callable[..., Path], name: str):
    folder = evaluated("run", [LINE])
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name}: no such file, expected a folder that `stapes evaluate` wrote"):
        read_predictions(folder)
