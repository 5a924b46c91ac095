"""Labelled text that is spoken: voices are drawn, sound is made once, labels stay, and all of it says that it is synthetic."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_trees import run

from stapes.data.corpora.prepare import prepare
from stapes.data.corpora.spoken_text import Speaking, draw, spoken_text, write_opus
from stapes.data.corpora.voices import Voice
from stapes.data.manifest import read_manifest
from stapes.errors import DataError, RecipeError
from stapes.types import Entity, Utterance

ROWS = [
    {"id": "id1_a/../b", "text": "like i said", "sentiment": "Positive", "duration": 4.63},
    {
        "id": "id1_c",
        "text": "angela merkel said so",
        "entities": [{"label": "PERSON", "start": 0, "end": 13, "text": "angela merkel"}],
    },
    {"id": "id2_d", "text": "... !", "sentiment": "<mixed>"},
    {"id": "id2_e", "text": "bonjour", "language": "fr"},
    {"id": "id3_f", "text": "good night then", "start": 7.5, "audio": "gone.wav"},
]
BOTH = Speaking(("espeak-ng:en-us", "espeak-ng:en-us+f3"), voices_per_text=2)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "fine-tune.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return folder


@pytest.fixture
def espeak() -> None:
    if not shutil.which("espeak-ng"):
        pytest.skip("espeak-ng not installed")


def made(folder: Path) -> dict[Path, int]:
    """Every sound file under a folder, with its time of writing."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.is_file() and path.suffix != ".jsonl"}


def test_rows_are_the_texts_and_their_labels(texts):
    rows = list(spoken_text(texts))
    assert [row.split for row in rows] == ["fine-tune"] * 5
    assert rows[0].utterance.sentiment == "Positive"
    assert rows[1].utterance.entities == (Entity("PERSON", 0, 13, "angela merkel"),)
    assert {(row.utterance.audio, row.utterance.start, row.utterance.duration) for row in rows} == {(Path(), 0.0, 0.0)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a"}', r"dev.jsonl:1: 'text': missing, expected the transcript"),
        ('{"id": "a", "text": "x", "mood": 1}', r"dev.jsonl:1: 'mood': unknown key; known: audio, duration"),
        ("{", r"dev.jsonl:1: not JSON"),
    ],
)
def test_a_bad_line(tmp_path, line, message):
    (tmp_path / "dev.jsonl").write_text(line)
    with pytest.raises(DataError, match=message):
        run("spoken-text", tmp_path / "dev.jsonl")


def test_voices_are_drawn_by_the_id_and_a_new_one_changes_little():
    voices = [Voice("flite", name) for name in ("slt", "rms", "awb")]
    utterances = [Utterance(f"id{number}", Path(), "x", 0.0) for number in range(300)]
    before = [draw(utterance, voices[:2], 1)[0] for utterance in utterances]
    after = [draw(utterance, voices, 1)[0] for utterance in utterances]
    assert 100 < before.count(voices[0]) < 200
    assert all(now == then or now == voices[2] for now, then in zip(after, before, strict=True))
    assert 60 < after.count(voices[2]) < 140
    assert before == [draw(utterance, voices[1::-1], 1)[0] for utterance in utterances]
    assert set(draw(utterances[0], voices, 3)) == set(voices)


def test_only_voices_of_the_language_are_drawn():
    voices = [Voice("flite", "slt"), Voice("espeak-ng", "fr-fr")]
    assert draw(Utterance("a", Path(), "x", 0.0, language="fr"), voices, 2) == [voices[1]]
    assert draw(Utterance("a", Path(), "x", 0.0, language="de"), voices, 2) == []


@pytest.mark.usefixtures("espeak")
def test_texts_become_utterances(texts):
    splits, written = run("spoken-text", texts, speaking=Speaking(("espeak-ng:en-us",)), rename={"fine-tune": "train"})
    first, second, third = splits["train"]
    assert (first.id, first.sentiment, first.speaker, first.language) == ("id1_a/../b", "Positive", "espeak-ng:en-us", "en")
    assert all(found.synthetic and found.start == 0.0 for found in splits["train"])
    assert (second.entities, third.id) == ((Entity("PERSON", 0, 13, "angela merkel"),), "id3_f")
    info = soundfile.info(first.audio)
    assert (info.format, info.subtype, info.samplerate, info.channels) == ("OGG", "OPUS", 16_000, 1)
    assert first.duration == pytest.approx(info.duration, abs=1e-3)
    assert first.audio.parent == texts.parent / "prepared/audio/fine-tune/espeak-ng-en-us"
    assert {row.utterance.id: row.problem for row in written.dropped} == {
        "id2_d": "cannot be spoken: espeak-ng:en-us: no letter that it knows",
        "id2_e": "no voice for its language: fr",
    }
    assert written.reasons == {"cannot be spoken": 1, "no voice for its language": 1}


@pytest.mark.usefixtures("espeak")
def test_several_voices_a_text(texts):
    found = run("spoken-text", texts, speaking=BOTH)[0]["fine-tune"]
    assert {utterance.id for utterance in found if utterance.text == "like i said"} == {
        "id1_a/../b_espeak-ng:en-us",
        "id1_a/../b_espeak-ng:en-us+f3",
    }
    sounds = {utterance.audio.read_bytes() for utterance in found}
    assert len(found) == len(sounds) == 6


@pytest.mark.usefixtures("espeak")
def test_a_text_is_held_out_in_all_its_voices(texts):
    written = prepare("spoken-text", texts, texts.parent / "out", speaking=BOTH, held={"dev": 2}, held_from="fine-tune")
    held, rest = ({utterance.text for utterance in written.splits[name]} for name in ("dev", "fine-tune"))
    assert held
    assert held.isdisjoint(rest)


@pytest.mark.usefixtures("espeak")
def test_what_is_there_is_not_made_again(texts):
    run("spoken-text", texts, speaking=BOTH)
    folder = texts.parent / "prepared"
    before = made(folder)
    lost = sorted(before)[0]
    lost.unlink()
    changed = (texts / "fine-tune.jsonl").read_text().replace("good night then", "good night now")
    (texts / "fine-tune.jsonl").write_text(changed)
    run("spoken-text", texts, speaking=BOTH)
    after = made(folder)
    again = {path for path in after if after[path] != before.get(path)}
    assert lost in again
    assert len(again) == 3  # and the changed text, by both voices
    assert {utterance.text for utterance in read_manifest(folder / "fine-tune.jsonl")} >= {"good night now"}


def test_half_a_sound_never_counts(tmp_path):
    """Samples that libsndfile refuses when the file is open already leave no file behind."""
    write_opus(tmp_path / "voice/a.ogg", np.zeros(1600, dtype=np.float32))
    with pytest.raises(ValueError, match="complex64"):
        write_opus(tmp_path / "voice/b.ogg", np.zeros(1600, dtype=np.complex64))
    assert [path.name for path in (tmp_path / "voice").iterdir()] == ["a.ogg"]


@pytest.mark.usefixtures("espeak")
def test_copying_leaves_the_sound_where_it_is(texts):
    found = run("spoken-text", texts, speaking=BOTH, copy=True)[0]["fine-tune"]
    assert {utterance.audio for utterance in found} == set(made(texts.parent / "prepared"))


@pytest.mark.usefixtures("espeak")
@pytest.mark.parametrize("count", [0, 3])
def test_no_more_voices_than_there_are(texts, count):
    with pytest.raises(RecipeError, match=rf"--voices-per-text: {count}, expected 1 to 2, the number of voices"):
        run("spoken-text", texts, speaking=Speaking(BOTH.voices, count))
