"""An evaluation: every utterance, in order, scored as jiwer scores it, with its intervals and its signature."""

import importlib.metadata
import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import stapes
from stapes.api import Stapes
from stapes.data.manifest import data_digest, read_manifest
from stapes.errors import AudioError, DataError, MissingDependency, RecipeError
from stapes.evaluation.evaluate import evaluate
from stapes.metrics.signature import facts
from stapes.metrics.translation import COMET_MODEL
from stapes.metrics.wer import cer, sentence_mean_wer, wer
from stapes.model import SpeechLLM
from stapes.recipe import Decoding
from stapes.tasks import TASKS
from stapes.types import Utterance

RATES = {"wer", "wer_sentence_mean", "cer", "wer_whisper_en", "ctc_wer"}
MEASURED = {"intervals", "parts", "signatures", "provenance"}
COUNTS = {"substitutions", "deletions", "insertions", "reference_words", "utterances", "capped"}


@pytest.fixture(scope="module")
def model(tone_run: Path) -> Stapes:
    return stapes.load(tone_run, device="cpu")


@pytest.fixture
def rows(tones: Path) -> list[Utterance]:
    return read_manifest(tones / "dev.jsonl")


def test_scores_are_those_of_what_was_predicted(model: Stapes, rows: list[Utterance]):
    # A model that gets everything right would tell little: what was said in the first one is said to be something else.
    rows = [replace(rows[0], text=f"{rows[0].text} x"), *rows[1:]]
    found = model.evaluate(rows)
    assert set(found.scores) == RATES | COUNTS | MEASURED
    references = [row.text for row in rows]
    hypotheses = [prediction.hypothesis for prediction in found.predictions]
    assert [(each.id, each.reference, each.duration) for each in found.predictions] == [
        (row.id, row.text, row.duration) for row in rows
    ]
    assert hypotheses == [transcript.text for transcript in model.transcribe([row.audio for row in rows])]
    words, scores = wer(references, hypotheses), found.scores
    assert 0 < scores["wer"] < 60, "a model that hears most of it tells most"
    assert scores["wer"] == pytest.approx(words.value, abs=1e-3)
    assert scores["cer"] == pytest.approx(cer(references, hypotheses).value, abs=1e-3)
    assert scores["wer_whisper_en"] == pytest.approx(wer(references, hypotheses, normaliser="whisper-en").value, abs=1e-3)
    assert scores["wer_sentence_mean"] == pytest.approx(sentence_mean_wer(references, hypotheses).value, abs=1e-3)
    heard = [prediction.ctc or "" for prediction in found.predictions]
    assert scores["ctc_wer"] == pytest.approx(wer(references, heard).value, abs=1e-3)
    assert {name: scores[name] for name in ("substitutions", "deletions", "insertions")} == {
        name: words.parts[name] for name in ("substitutions", "deletions", "insertions")
    }
    assert sum(prediction.errors for prediction in found.predictions) == sum(words.parts["utterance_errors"])
    assert set(scores["intervals"]) == RATES
    assert all(low <= scores[rate] <= high for rate, (low, high) in scores["intervals"].items())
    assert scores["intervals"]["wer"] == pytest.approx(words.interval, abs=1e-3)


def test_signatures_say_what_was_measured_and_nothing_of_what_made_it(model: Stapes, rows: list[Utterance]):
    found, other = (model.evaluate(rows, normaliser="none", beams=beams) for beams in (2, 1))
    assert found.scores["signatures"] == other.scores["signatures"]
    assert found.scores["provenance"] != other.scores["provenance"]
    data = f"n:6|data:{data_digest(rows)[:16]}"
    jiwer = f"jiwer:{importlib.metadata.version('jiwer')}"
    assert set(found.scores["signatures"]) == RATES
    assert found.scores["signatures"]["wer"] == found.scores["signatures"]["ctc_wer"] == f"wer|norm:none.v1|{jiwer}|{data}"
    assert found.scores["signatures"]["wer_sentence_mean"] == f"wer_sentence_mean|norm:none.v1|{jiwer}|{data}"
    synthetic = model.evaluate([replace(row, synthetic=True) for row in rows], limit=2)
    assert all(signature.endswith("|synthetic:yes") for signature in synthetic.scores["signatures"].values())
    assert facts(found.scores["provenance"]) == {
        "stapes": stapes.__version__,
        "task": "asr",
        "model": f"run@{model.digest[:12]}",
        "beams": "2",
        "ctc_weight": "0.5",
        "no_repeat_ngram": "0",
        "length_penalty": "1.0",
        "tokens_per_second": "8.0",
        "markup_bonus": "0.0",
        "tokens_spare": "10",
        "dtype": "float32",
    }
    assert found.normaliser == "none"
    with pytest.raises(RecipeError, match=r"unknown normaliser 'slu'; did you mean 'slue'\?"):
        model.evaluate(rows, normaliser="slu")


@pytest.mark.skipif(importlib.util.find_spec("comet") is not None, reason="unbabel-comet is installed")
def test_comet_is_for_translations_and_is_asked_for_before_the_work(toy_model: Callable[..., SpeechLLM], rows: list[Utterance]):
    model = toy_model()
    with pytest.raises(RecipeError, match="comet: the task 'asr', expected a translation"):
        evaluate(model, rows, Decoding(), comet=COMET_MODEL)
    model.tasks["translation.fr"] = TASKS.build({"name": "translation", "to": "fr"})
    rows = [replace(row, translations={"fr": "bonjour"}) for row in rows]
    with pytest.raises(MissingDependency, match=r"COMET: an optional package is missing; run `pip install 'stapes\[comet\]'`"):
        evaluate(
            model,
            rows,
            Decoding(),
            task="translation.fr",
            comet=COMET_MODEL,
            on_progress=lambda seconds: pytest.fail("decoded"),
        )


def test_batches_change_nothing(model: Stapes, rows: list[Utterance]):
    seconds: list[float] = []
    alone = model.evaluate(rows, batch_seconds=1.0, on_progress=seconds.append)
    assert len(seconds) == len(rows)
    assert sum(seconds) == pytest.approx(sum(row.duration for row in rows))
    assert alone == model.evaluate(rows)


def test_what_cannot_be_read_counts_as_unheard_and_is_reported(model: Stapes, rows: list[Utterance], tmp_path: Path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(rows[2].audio.read_bytes()[:2000])
    changed = [replace(row, audio=broken) if number == 2 else row for number, row in enumerate(rows)]
    told: list[AudioError] = []
    whole, found = model.evaluate(rows), model.evaluate(changed, on_unreadable=told.append)
    assert found.scores["unreadable"] == 1
    assert found.scores["utterances"] == len(rows)
    assert [str(error) for error in told] == [found.predictions[2].unreadable]
    assert str(told[0]).startswith(f"{rows[2].source}: {broken}: ")
    assert found.predictions[2].hypothesis == found.predictions[2].ctc == ""
    assert found.predictions[2].counts.deletions == len(rows[2].text.split())
    others = [number for number in range(len(rows)) if number != 2]
    assert [found.predictions[number] for number in others] == [whole.predictions[number] for number in others]


def test_what_has_no_labels_for_the_task_is_left_out_and_counted(toy_model: Callable[..., SpeechLLM], rows: list[Utterance]):
    model, options = toy_model(tasks=[{"name": "sentiment"}]), Decoding(tokens_per_second=4)
    some = [replace(row, sentiment="Neutral") if number % 3 else row for number, row in enumerate(rows)]
    labelled = [row for row in some if row.sentiment]
    found, alone = evaluate(model, some, options), evaluate(model, labelled, options)
    assert (found.scores["utterances"], found.scores["left_out"]) == (len(labelled), 2)
    assert alone.scores == {name: value for name, value in found.scores.items() if name != "left_out"}
    assert found.predictions == alone.predictions and found.utterances == labelled
    with pytest.raises(DataError, match="6 of 6 utterances have no labels for the task 'sentiment', expected labels"):
        evaluate(model, rows, options)


def test_what_the_ctc_head_heard_is_compared_as_the_answer_is(model: Stapes, rows: list[Utterance]):
    """With capitals in the references, a normaliser that keeps them makes errors of all that was heard."""
    shouted = [replace(row, text=row.text.upper()) for row in rows]
    plain, strict = (model.evaluate(shouted, normaliser=name).scores["ctc_wer"] for name in ("slue", "none"))
    assert plain < 60 < 100 <= strict


def test_a_model_without_a_ctc_head_has_no_score_of_one(toy_model: Callable[..., SpeechLLM], rows: list[Utterance]):
    found = evaluate(toy_model(ctc=None), rows, Decoding())
    assert set(found.scores) == (RATES - {"ctc_wer"}) | COUNTS | MEASURED
    assert set(found.scores["intervals"]) == RATES - {"ctc_wer"}
    assert {prediction.ctc for prediction in found.predictions} == {None}
    assert "model:" not in found.scores["provenance"]


def test_the_english_normaliser_is_for_english(toy_model: Callable[..., SpeechLLM], rows: list[Utterance]):
    model = toy_model()
    assert "wer_whisper_en" not in evaluate(model, [replace(rows[0], language="de"), *rows[1:]], Decoding()).scores
    assert "wer_whisper_en" in evaluate(model, [replace(row, language="en-GB") for row in rows], Decoding()).scores
    # it takes "uh" for a filler: not one word is left to compare with
    assert "wer_whisper_en" not in evaluate(model, [replace(row, text="uh") for row in rows[:1]], Decoding()).scores


def test_words_put_into_non_speech_are_insertions(model: Stapes, rows: list[Utterance]):
    silent = replace(rows[0], text="", kind="non-speech")
    found = model.evaluate([silent, rows[1]])
    first = found.predictions[0]
    assert first.hypothesis
    assert first.counts.insertions == first.errors == len(first.hypothesis.split())
    assert found.scores["insertions"] >= first.errors


@pytest.mark.parametrize("texts", [[], [""], ["...", "?!"]])
def test_references_without_words_are_refused_before_the_work(
    toy_model: Callable[..., SpeechLLM], rows: list[Utterance], texts: list[str]
):
    asked = [replace(row, text=text) for row, text in zip(rows, texts, strict=False)]
    with pytest.raises(DataError, match=f"evaluation: {len(texts)} utterances without a word"):
        evaluate(toy_model(), asked, Decoding(), on_progress=lambda seconds: pytest.fail("decoded"))


def test_results_on_disk(model: Stapes, rows: list[Utterance], tmp_path: Path):
    found = model.evaluate(rows)
    found.save(tmp_path / "results/dev")
    assert json.loads((tmp_path / "results/dev/scores.json").read_text()) == found.scores
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in (tmp_path / "results/dev/predictions.jsonl").read_text().splitlines()
    ]
    assert [line["id"] for line in lines] == [row.id for row in rows]
    keys = ["id", "reference", "hypothesis", "ctc", "errors", "substitutions", "deletions", "insertions", "reference_words"]
    assert list(lines[0]) == [*keys, "duration", "capped"]
    assert sum(line["errors"] for line in lines) == sum(
        found.scores[kind] for kind in ("substitutions", "deletions", "insertions")
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        found.save(tmp_path / "file")
