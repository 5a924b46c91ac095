"""What checkpoints are chosen on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stapes.data.cache import encode
from stapes.data.manifest import read_manifest, write_manifest
from stapes.decoding.generate import generate
from stapes.encoders.toy import ToyEncoder
from stapes.errors import DataError, RecipeError
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


def copied(rows: list[Utterance], *files: Path) -> list[HeldOut]:
    """The same utterances in several manifests."""
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(file, rows)
    return [HeldOut(path=str(file)) for file in files]


@pytest.mark.parametrize(
    ("files", "labels"),
    [
        (["one/dev.jsonl"], ["asr"]),
        (["one/dev.jsonl", "two/dev.jsonl"], ["asr(one)", "asr(two)"]),
        (["one/dev.jsonl", "one/tune.jsonl"], ["asr(dev.jsonl)", "asr(tune.jsonl)"]),
        (["one/slue/dev.jsonl", "two/slue/dev.jsonl"], ["asr(one/slue/dev.jsonl)", "asr(two/slue/dev.jsonl)"]),
    ],
)
def test_every_manifest_has_a_label_of_its_own(
    tones: Path, tmp_path: Path, toy_model: Callable[..., SpeechLLM], files: list[str], labels: list[str]
):
    sources = copied(read_manifest(tones / "dev.jsonl")[:1], *(tmp_path / file for file in files))
    validation = Validation.load(sources, 1, ToyEncoder(), TASKS)
    assert [part.label for part in validation.parts] == labels
    if len(labels) > 1:
        found = validation.scores(toy_model(), LISTEN, Decoding(tokens_per_second=1))
        assert {f"{label}.wer" for label in labels} <= set(found)


def test_scores_of_synthetic_sound_say_so(tones: Path, tmp_path: Path, toy_model: Callable[..., SpeechLLM]):
    rows = [replace(row, synthetic=True) for row in read_manifest(tones / "dev.jsonl")[:2]]
    validation = Validation.load(copied(rows, tmp_path / "one/dev.jsonl"), 2, ToyEncoder(), TASKS)
    found = validation.scores(toy_model(), LISTEN, Decoding(tokens_per_second=1))
    assert {"asr(synthetic).wer", "error"} <= set(found)
    assert "wer" not in found


def test_a_manifest_twice_for_one_task(tones: Path):
    with pytest.raises(RecipeError, match=r"data\.dev: .*dev\.jsonl twice for the task 'asr', expected every manifest once"):
        Validation.load([HeldOut(path=str(tones / "dev.jsonl"))] * 2, 1, ToyEncoder(), TASKS)


def test_nothing_to_choose_by_where_no_task_of_the_stage_is_held_out(tones: Path, toy_model: Callable[..., SpeechLLM]):
    validation = load(tones / "dev.jsonl", count=1)
    assert validation.criterion(LISTEN, ["ner"]) is None
    assert validation.criterion(LISTEN, ["ner", "asr"]) == "wer"
    assert validation.criterion(ALIGN, ["ner"]) == "ctc_wer", "which is about the words, whatever the task"
    found = validation.scores(toy_model(), LISTEN, Decoding(tokens_per_second=1), ["ner"])
    assert "wer" in found
    assert "error" not in found
