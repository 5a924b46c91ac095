"""Folders of `stapes evaluate`, read back strictly."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stapes.errors import DataError
from stapes.evaluation.evaluate import Evaluation, Prediction
from stapes.evaluation.predictions import finished, predictions_of, read_predictions, setting
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
    assert found.signatures["wer"] == "wer|norm:whisper-en.v1"
    assert setting(found.signatures["wer"], "norm") == "whisper-en"
    assert setting(found.signatures["ner_f1"], "tags") == "combined"
    assert found.folder == folder
    first, second = found.lines.values()
    assert first.reference_entities == (("PLACE", "eu"), ("WHEN", "today"))
    assert (first.entities, first.sentiment, first.translation) == ((), None, "du")
    assert (second.reference_entities, second.reference_sentiment, second.reference_translation) == (None, None, None)


def test_what_an_evaluation_saves_is_read(tmp_path: Path):
    predictions = [Prediction("a", "so be it", "so it", None, UtteranceErrors(0, 1, 0, 3), 1.0, False)]
    measured = {"signatures": {"wer": "wer|norm:none.v1|n:1"}, "provenance": "task:asr|model:mine"}
    Evaluation({"wer": 33.3} | measured, predictions, "none").save(tmp_path)
    found = read_predictions(str(tmp_path))
    assert {"signatures": found.signatures, "provenance": found.provenance} == measured
    assert found.lines["a"].hypothesis == "so it"


def test_of_every_task_what_is_saved_is_what_was_in_memory(made: Callable[..., Evaluation], tmp_path: Path):
    rows = [
        {"text": "on monday in ghent", "entities": [("DATE", "monday")], "sentiment": "mixed", "translations": {"fr": "oui"}}
    ]
    answers = {"asr": "on monday", "ner": "on [WHEN monday]", "sentiment": "?", "asr+sentiment": "on\nNeutral"}
    for task, answer in answers.items():
        evaluation = made({"name": task}, rows, [answer], unreadable={0: "no such file"})
        evaluation.save(tmp_path / task)
        assert predictions_of(evaluation, str(tmp_path / task)) == read_predictions(tmp_path / task)
        wanted = evaluation.scores["provenance"], evaluation.utterances, evaluation.normaliser
        assert finished(tmp_path / task, *wanted) is None, "a sound was not heard"
        heard = made({"name": task}, rows, [answer])
        heard.save(tmp_path / task)
        assert finished(tmp_path / task, *wanted) == predictions_of(heard, str(tmp_path / task))


def test_finished_is_what_is_whole_and_the_same(made: Callable[..., Evaluation], tmp_path: Path):
    evaluation, folder = made({"name": "asr"}, [{"text": "a b"}, {"text": "c"}], ["a b", "c"]), tmp_path / "run"
    evaluation.save(folder)
    (first, second), made_by = evaluation.utterances, evaluation.scores["provenance"]
    assert finished(folder, made_by, [first, second], "slue") == read_predictions(folder)
    assert finished(folder, f"{made_by}|beams:4", [first, second], "slue") is None
    assert finished(folder, made_by, [first, second], "none") is None
    assert finished(folder, made_by, [first], "slue") is None
    assert finished(folder, made_by, [first, replace(second, text="d")], "slue") is None
    assert finished(folder, made_by, [first, replace(second, synthetic=True)], "slue") is None
    assert finished(folder / "nope", made_by, [first, second], "slue") is None
    lines = (folder / "predictions.jsonl").read_text().splitlines(keepends=True)
    for cut in (lines[0], lines[0] + '{"id": "u1", "refer'):
        (folder / "predictions.jsonl").write_text(cut)
        assert finished(folder, made_by, [first, second], "slue") is None


@pytest.mark.parametrize(
    ("signature", "synthetic"),
    [
        ("wer|norm:slue.v1|synthetic:yes|n:1", True),
        ("wer|norm:slue.v1|n:1", False),
        ("comet|norm:slue.v1|model:not-synthetic:yes", False),
    ],
)
def test_synthetic_sound_is_in_the_signature(evaluated: Callable[..., Path], signature: str, synthetic: bool):
    assert read_predictions(evaluated("run", [LINE], wer=signature)).synthetic is synthetic


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
        ("[]", r"scores\.json: no signatures of scores"),
        ('{"wer": 3}', r"scores\.json: no signatures of scores"),
        ('{"signatures": {"wer": 3}}', r"scores\.json: no signatures of scores"),
        ('{"signatures": {"wer": "wer|norm:mine.v1"}}', r"scores\.json: signature 'wer\|norm:mine\.v1', expected norm: .*slue"),
        ('{"signatures": {"ner_f1": "ner_f1|tags:mine"}}', r"signature 'ner_f1\|tags:mine', expected tags: combined or raw"),
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


def test_tags_of_another_set_than_was_scored(evaluated: Callable[..., Path]):
    raw = LINE | LABELS | {"reference_entities": [["GPE", "eu"]], "entities": [["LAW", "eu"]]}
    with pytest.raises(DataError, match=r"jsonl:1: 'reference_entities': tag 'GPE', expected tags of the set 'combined'"):
        read_predictions(evaluated("run", [raw]))
    found = read_predictions(evaluated("raw", [raw], ner_f1="ner_f1|tags:raw|norm:slue.v1"))
    assert found.lines["u1"].reference_entities == (("GPE", "eu"),)


def test_a_setting_that_a_signature_lacks():
    with pytest.raises(DataError, match=r"scores\.json: signature 'bleu\|n:3', expected one with tok:\.\.\.; evaluate again"):
        setting("bleu|n:3", "tok")
