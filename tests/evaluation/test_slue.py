"""The SLUE score of two folders is that of its four metrics."""

import io
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from stapes.errors import DataError, RecipeError
from stapes.evaluation.evaluate import Evaluation
from stapes.evaluation.predictions import Predictions, read_predictions
from stapes.evaluation.slue import VOXCELEB, VOXPOPULI, as_json, joined, report, slue, tasks_for
from stapes.metrics.classification import sentiment_f1
from stapes.metrics.entities import entity_f1
from stapes.metrics.slue import combine
from stapes.metrics.wer import wer
from stapes.tasks import TASKS


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
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert rows[0] == ["SLUE score (synthetic VoxCeleb)", f"{found['slue'].value:.2f}", f"{low:.2f} to {high:.2f}"]
    assert [row[0] for row in rows[1:4]] == [
        "WER, SLUE-VoxPopuli",
        "WER, synthetic SLUE-VoxCeleb",
        "NER F1, combined tags, SLUE-VoxPopuli",
    ]
    assert rows[3][1] == f"{found['ner_f1'].value:.2f}"


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


@pytest.mark.parametrize(
    ("rate", "signature", "found"),
    [
        ("wer", "wer|norm:none|style:written", "norm:none|style:written"),
        ("wer", "wer|norm:whisper-en.v1", "norm:whisper-en|style:spoken"),
        ("ner_f1", "ner_f1|tags:combined|norm:none|style:written", "norm:none|style:written"),
    ],
)
def test_words_that_are_compared_otherwise(
    corpora: tuple[Predictions, Predictions], evaluated: Callable[..., Path], rate: str, signature: str, found: str
):
    other = read_predictions(evaluated("other", labelled(30, 0, False), **{rate: signature}))
    with pytest.raises(DataError, match=re.escape(f"words with {found}, expected norm:slue|style:spoken, the benchmark's")):
        slue(other, corpora[1])


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
    named = evaluated("named", labelled(30, 0, False), ner_f1="ner_f1|tags:combined|norm:slue.v1|synthetic:yes")
    assert slue(read_predictions(named), corpora[1], resamples=9)["slue"].parts["synthetic"] == ("VoxPopuli",)


# -- what a corpus needs, and where it is found ------------------------------------------------------------------------

SPOKEN = {"id", "reference", "hypothesis"}


def test_two_evaluations_are_joined_by_id(corpora: tuple[Predictions, Predictions], evaluated: Callable[..., Path]):
    lines = labelled(40, 1, True)
    words = [{key: line[key] for key in SPOKEN} for line in lines]
    labels = [line | {"reference": "", "hypothesis": ""} for line in reversed(lines)]
    apart = read_predictions(evaluated("asr", words)), read_predictions(evaluated("sentiment", labels, "none"))
    wanted = slue(*corpora, resamples=50)
    for two in (apart, apart[::-1]):
        assert slue(corpora[0], joined(VOXCELEB, two), resamples=50) == wanted
    assert joined(VOXCELEB, corpora[1:]) is corpora[1]
    # Words are measured as their own evaluation says, though the other has words too.
    as_they_are = read_predictions(evaluated("none", words, "none", cer=None))
    both = joined(VOXCELEB, (corpora[1], as_they_are))
    assert both.signatures == as_they_are.signatures | {"sentiment_f1": corpora[1].signatures["sentiment_f1"]}
    # What is synthetic in either is so in both.
    spoken = (
        read_predictions(evaluated("asr2", words, wer="wer|norm:slue.v1|synthetic:yes")),
        read_predictions(evaluated("sentiment2", labels, "none", sentiment_f1="sentiment_f1|synthetic:yes")),
    )
    for two in ((apart[0], spoken[1]), (spoken[1], apart[0]), (spoken[0], apart[1])):
        assert slue(corpora[0], joined(VOXCELEB, two), resamples=0)["slue"].parts["synthetic"] == ("VoxCeleb",)


def test_evaluations_that_cannot_be_joined(corpora: tuple[Predictions, Predictions], evaluated: Callable[..., Path]):
    _, voxceleb = corpora
    words = [{key: line[key] for key in SPOKEN} for line in labelled(39, 1, True)]
    with pytest.raises(DataError, match=r"asr: 1 ids in this or in .*voxceleb alone \('u39'\)"):
        joined(VOXCELEB, [read_predictions(evaluated("asr", words)), voxceleb])
    with pytest.raises(DataError, match="SLUE-VoxCeleb: 2 evaluations, 2 of them with 'reference_sentiment'"):
        joined(VOXCELEB, [voxceleb, voxceleb])
    with pytest.raises(DataError, match="SLUE-VoxPopuli: 2 evaluations, 0 of them with 'reference_entities'"):
        joined(VOXPOPULI, [voxceleb, voxceleb])


def test_sentiments_alone_say_what_is_missing(corpora: tuple[Predictions, Predictions], evaluated: Callable[..., Path]):
    labels = [line | {"reference": "", "hypothesis": ""} for line in labelled(40, 1, True)]
    alone = read_predictions(evaluated("sentiment", labels, "none"))
    with pytest.raises(DataError, match=r"no WER, expected one beside sentiment_f1; .*may be in two evaluations: name both"):
        slue(corpora[0], alone)


@pytest.mark.parametrize(
    ("tasks", "voxpopuli", "voxceleb"),
    [
        (["asr", "ner", "sentiment"], ["asr", "ner"], ["asr", "sentiment"]),
        (["sentiment", "asr+sentiment", "asr+ner", "ner", "asr"], ["asr", "ner"], ["asr", "sentiment"]),
        (["asr", "asr+ner", "asr+sentiment"], ["asr", "asr+ner"], ["asr", "asr+sentiment"]),
        (["asr+ner", "asr+sentiment", "sentiment"], ["asr+ner"], ["asr+sentiment"]),
        (["ner", "asr+ner", "asr+sentiment"], ["ner"], ["asr+sentiment"]),
        (["ner:json", "asr+ner", "asr+sentiment"], ["asr+ner"], ["asr+sentiment"]),
        (["asr", "ner:json"], ["asr", "ner"], None),
        (["ner", "sentiment"], ["ner"], None),
        (["ner:json", "asr+sentiment"], None, ["asr+sentiment"]),
    ],
)
def test_what_a_model_is_asked(tasks: list[str], voxpopuli: list[str] | None, voxceleb: list[str] | None):
    known = {}
    for name, _, markup in (task.partition(":") for task in tasks):
        known[name] = TASKS.build({"name": name} | ({"markup": markup} if markup else {}))
    for corpus, expected in ((VOXPOPULI, voxpopuli), (VOXCELEB, voxceleb)):
        if expected is None:
            with pytest.raises(RecipeError, match=f"expected asr and {corpus.alone}, or {corpus.joint}".replace("+", r"\+")):
                tasks_for(corpus, known)
        else:
            assert tasks_for(corpus, known) == expected
