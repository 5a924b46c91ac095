"""The SLUE score of two folders is that of its four metrics."""

import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from stapes.errors import DataError
from stapes.evaluation.evaluate import Evaluation
from stapes.evaluation.predictions import Predictions, read_predictions
from stapes.evaluation.slue import as_json, report, slue
from stapes.metrics.classification import sentiment_f1
from stapes.metrics.entities import entity_f1
from stapes.metrics.slue import combine
from stapes.metrics.wer import wer


def spoken(count: int, seed: int) -> list[dict]:
    draw = random.Random(seed)
    lines = []
    for number in range(count):
        words = draw.choices("abcdef", k=draw.randint(3, 8))
        heard = " ".join(word for word in words if draw.random() > 0.2)
        lines.append({"id": f"u{number}", "reference": " ".join(words), "hypothesis": heard})
    return lines


def labelled(count: int, seed: int, sentiments: bool) -> list[dict]:
    draw = random.Random(seed)
    lines = spoken(count, seed)
    for line in lines:
        if sentiments:
            line["reference_sentiment"] = draw.choice(["Negative", "Neutral", "Positive"])
            line["sentiment"] = draw.choice([line["reference_sentiment"], "Neutral", None])
        else:
            line["reference_entities"] = [["ORG", word] for word in line["reference"].split()[:2]]
            line["entities"] = [["ORG", word] for word in line["hypothesis"].split()[:2]]
    return lines


@pytest.fixture
def corpora(evaluated: Callable[..., Path]) -> tuple[Predictions, Predictions]:
    folders = evaluated("voxpopuli", labelled(30, 0, False)), evaluated("voxceleb", labelled(40, 1, True))
    return read_predictions(folders[0]), read_predictions(folders[1])


def test_is_computed_from_the_four_metrics(corpora: tuple[Predictions, Predictions]):
    found = slue(*corpora)
    voxpopuli, voxceleb = (list(one.lines.values()) for one in corpora)
    words = [wer([row.reference for row in rows], [row.hypothesis for row in rows]) for rows in (voxpopuli, voxceleb)]
    entities = entity_f1([row.reference_entities for row in voxpopuli], [row.entities for row in voxpopuli])
    sentiment = sentiment_f1([row.reference_sentiment for row in voxceleb], [row.sentiment for row in voxceleb])
    assert (found["voxpopuli_wer"], found["voxceleb_wer"]) == tuple(words)
    assert (found["ner_f1"], found["sentiment_f1"]) == (entities, sentiment)
    assert found["slue"].value == pytest.approx(combine(words[0].value, words[1].value, entities.value, sentiment.value))
    assert found["ner_label_f1"].value >= entities.value
    assert all(score.interval is not None for score in found.values())


def test_json_and_table(corpora: tuple[Predictions, Predictions]):
    found = slue(*corpora, synthetic=True, resamples=200)
    printed = as_json(found)
    assert printed["name"] == "SLUE score (synthetic VoxCeleb)"
    assert printed["slue"] == pytest.approx(found["slue"].value, abs=5e-4)
    assert set(printed["intervals"]) == set(found)
    assert printed["signature"].startswith("SLUE score (synthetic VoxCeleb); voxpopuli_wer wer|")
    console = Console(file=io.StringIO(), width=120)
    console.print(report(found))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    low, high = found["slue"].interval
    assert f"SLUE score (synthetic VoxCeleb)     │ {found['slue'].value:.2f} │ {low:.2f} to {high:.2f}" in text
    assert f"NER F1, combined tags               │ {found['ner_f1'].value:.2f} │" in text


def test_a_corpus_without_its_labels_is_named(corpora: tuple[Predictions, Predictions], evaluated: Callable[..., Path]):
    voxpopuli, voxceleb = corpora
    with pytest.raises(DataError, match="voxceleb: 'reference_entities' for 0 of 40 utterances, expected all of them"):
        slue(voxceleb, voxpopuli)
    lines = labelled(40, 1, True)
    del lines[3]["reference_sentiment"]
    partly = read_predictions(evaluated("partly", lines))
    with pytest.raises(DataError, match="partly: 'reference_sentiment' for 39 of 40 utterances"):
        slue(voxpopuli, partly)
    silent = read_predictions(evaluated("silent", [line | {"reference": ""} for line in labelled(3, 1, True)]))
    with pytest.raises(DataError, match="silent: no WER, expected one beside sentiment_f1; evaluate a task whose answers have"):
        slue(voxpopuli, silent)


def test_entities_with_other_tags_than_the_benchmarks(corpora: tuple[Predictions, Predictions], evaluated: Callable[..., Path]):
    signatures = dict.fromkeys(("ner_f1", "ner_label_f1"), "ner_f1|tags:raw|norm:slue.v1")
    raw = read_predictions(evaluated("raw", labelled(30, 0, False), **signatures))
    with pytest.raises(DataError, match="raw: entities with tags:raw, expected tags:combined, the benchmark's"):
        slue(raw, corpora[1])


def test_a_list_without_a_transcript_has_no_word_error_rate(
    made: Callable[..., Evaluation], corpora: tuple[Predictions, Predictions], tmp_path: Path
):
    rows = [{"text": "in ghent", "entities": [("GPE", "ghent")]}]
    made({"name": "ner", "markup": "json"}, rows, ['[{"tag": "PLACE", "text": "ghent"}]']).save(tmp_path / "listed")
    with pytest.raises(DataError, match="listed: no WER, expected one beside ner_f1, ner_label_f1"):
        slue(read_predictions(tmp_path / "listed"), corpora[1])


def test_synthetic_sound_is_known_by_the_signature(corpora: tuple[Predictions, Predictions], evaluated: Callable[..., Path]):
    said = evaluated("said", labelled(40, 1, True), wer="wer|norm:slue.v1|synthetic:yes")
    assert slue(corpora[0], read_predictions(said), resamples=9)["slue"].parts["name"] == "SLUE score (synthetic VoxCeleb)"
