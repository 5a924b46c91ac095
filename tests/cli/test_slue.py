"""`stapes slue`: a table or one JSON object."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Run = Callable[..., Result]

VOXPOPULI = [
    {"id": "a", "reference": "the eu today", "hypothesis": "the eu to day"}
    | {"reference_entities": [["PLACE", "eu"], ["WHEN", "today"]], "entities": [["PLACE", "eu"], ["WHEN", "to day"]]},
    {"id": "b", "reference": "thank you", "hypothesis": "thank you", "reference_entities": [], "entities": []},
]
VOXCELEB = [
    {
        "id": "a",
        "reference": "i loved it",
        "hypothesis": "i love it",
        "reference_sentiment": "Positive",
        "sentiment": "Positive",
    },
    {"id": "b", "reference": "well", "hypothesis": "well", "reference_sentiment": "mixed", "sentiment": "Negative"},
]


@pytest.fixture
def folders(evaluated: Callable[..., Path]) -> tuple[Path, Path]:
    return evaluated("voxpopuli", VOXPOPULI), evaluated("voxceleb", VOXCELEB)


def test_json_of_a_case_done_by_hand(stapes: Run, folders: tuple[Path, Path]):
    result = stapes("slue", *folders, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    # Words: 2 errors in 5, and 1 in 4. Entities: 1 of 2, and 1 wrong. Sentiment: Positive 100, Neutral and Negative 0.
    assert found["name"] == "SLUE score"
    assert (found["voxpopuli_wer"], found["voxceleb_wer"]) == (40.0, 25.0)
    assert (found["ner_f1"], found["ner_label_f1"], found["sentiment_f1"]) == (50.0, 100.0, 33.333)
    assert found["slue"] == pytest.approx((67.5 + 50 + 100 / 3) / 3, abs=5e-4)
    assert set(found["intervals"]) == {"slue", "voxpopuli_wer", "voxceleb_wer", "ner_f1", "ner_label_f1", "sentiment_f1"}


def test_a_table_names_synthetic_sound(stapes: Run, folders: tuple[Path, Path]):
    result = stapes("slue", *folders, "--synthetic", "--seed", "1")
    assert result.exit_code == 0, result.stderr
    assert "SLUE score (synthetic VoxCeleb)" in result.stdout
    assert "50.28" in result.stdout
    assert stapes("slue", *folders).stdout.count("synthetic") == 0


def test_a_corpus_without_labels(stapes: Run, one_line: Callable[[Result], str], folders: tuple[Path, Path]):
    message = one_line(stapes("slue", *folders[::-1], "--json"))
    assert message.startswith(f"{folders[1]}: 'reference_entities' for 0 of 2 utterances, expected all of them")
