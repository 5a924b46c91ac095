"""What checkpoints are chosen on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stapes.data.cache import encode
from stapes.data.manifest import read_manifest, write_manifest
from stapes.decoding.generate import generate
from stapes.encoders.toy import ToyEncoder
from stapes.errors import DataError
from stapes.evaluation.probe import probe
from stapes.metrics.wer import wer
from stapes.model import SpeechLLM
from stapes.recipe import Decoding, HeldOut, Stage
from stapes.tasks.asr import ASR
from stapes.training.validation import Validation
from stapes.types import Padded, Utterance

LISTEN = Stage(name="listen", losses={"next_token": 1.0, "ctc": 0.3})
ALIGN = Stage(name="align", losses={"ctc": 1.0})
TASKS = {"asr": ASR()}


def load(manifest: Path, count: int = 100, cache: bool = True) -> Validation:
    found = Validation.load([HeldOut(path=str(manifest))], count, ToyEncoder(), TASKS)
    found.attach(ToyEncoder(), cache)
    return found


def test_the_same_part_of_a_manifest_every_time(tones: Path):
    first, second = load(tones / "train.jsonl", 7), load(tones / "train.jsonl", 7)
    assert len(first.parts[0].utterances) == 7
    assert first.parts == second.parts
    assert len(load(tones / "train.jsonl", 99).parts[0].utterances) == 16


def test_what_cannot_be_judged_is_left_out(tones: Path, tmp_path: Path):
    row = read_manifest(tones / "dev.jsonl")[0]
    long = Utterance("long", row.audio, "a", 31.0)
    noise = Utterance("noise", row.audio, "", 1.0, kind="non-speech")
    write_manifest(tmp_path / "m.jsonl", [long, row, noise])
    assert [found.id for found in load(tmp_path / "m.jsonl").parts[0].utterances] == [row.id]
    write_manifest(tmp_path / "none.jsonl", [long, noise])
    with pytest.raises(DataError, match="no utterance with a transcript, expected at least one to choose checkpoints on"):
        load(tmp_path / "none.jsonl")


def test_scores_are_those_of_the_whole_model(tones: Path, toy_model: Callable[..., SpeechLLM]):
    """All utterances in one batch, scored here, against validation's own batches; from the cache and without."""
    model, decoding = toy_model(), Decoding(tokens_per_second=4)
    rows = read_manifest(tones / "dev.jsonl")
    frames = Padded.from_rows(encode(model.encoder, rows).rows())
    texts = [row.text for row in rows]
    hypotheses = generate(model, frames, [row.duration for row in rows], decoding)
    expected = wer(texts, [hypothesis.text for hypothesis in hypotheses], resamples=0)
    ctc = wer(texts, [hypothesis.ctc_text or "" for hypothesis in hypotheses], resamples=0)
    listening = probe(model, frames.rows(), texts)
    for cache in (True, False):
        found = load(tones / "dev.jsonl", cache=cache).scores(model, LISTEN, decoding)
        assert found["wer"] == pytest.approx(expected.value)
        assert found["ctc_wer"] == pytest.approx(ctc.value)
        assert found["insertions"] == expected.parts["insertions"]
        assert found["loss_right_audio"] == pytest.approx(listening.right, rel=1e-3)


def test_a_stage_is_judged_by_what_it_trains(tones: Path, toy_model: Callable[..., SpeechLLM]):
    validation = load(tones / "dev.jsonl")
    assert validation.criterion(LISTEN) == "wer"
    assert validation.criterion(ALIGN) == "ctc_wer"
    assert set(validation.scores(toy_model(), ALIGN, Decoding())) == {"ctc_wer"}
    without_head = validation.scores(toy_model(ctc=None), LISTEN, Decoding(tokens_per_second=1))
    assert "ctc_wer" not in without_head
    assert {"wer", "substitutions", "deletions", "insertions", "loss_silence"} <= set(without_head)
