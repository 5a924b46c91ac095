"""Every corpus that can be prepared, on a small tree in the layout in which it is published."""

from pathlib import Path

import pytest
from corpus_trees import run, sound, text

from stapes.data.corpora import CORPORA
from stapes.data.corpora.base import Row
from stapes.errors import DataError, RecipeError
from stapes.types import Entity


def slue(folder: Path) -> Path:
    """Columns, entity format, ``None`` and the folders as in the official archive; the test set is blind."""
    header = "id\traw_text\tnormalized_text\tspeaker_id\tsplit\traw_ner\tnormalized_ner\n"
    one = "20131007-0900-PLENARY-19-en_20131007-21:26:04_7"
    two = "20090203-0900-PLENARY-11-en_20090203-19:30:15_2"
    rows = f"{one}\t\tas article twenty one says.\tNone\tfine-tune\t[]\t[['LAW', 3, 18]]\n"
    spans = "[['LOC', 9, 6]]"
    rows += f'{two}\t"He said ""Europe"" first."\the said \'europe\' first.\t28113\tfine-tune\t{spans}\t{spans}\n'
    text(folder / "slue-voxpopuli_fine-tune.tsv", header + rows)
    text(folder / "slue-voxpopuli_dev.tsv", header + "d_1\tNone\tno entities here\tNone\tdev\tNone\tNone\n")
    text(folder / "slue-voxpopuli_test_blind.tsv", "id\tspeaker_id\tsplit\nt_1\tNone\ttest\n")
    for name, seconds in ((f"fine-tune/{one}", 0.5), (f"fine-tune/{two}", 0.75), ("dev/d_1", 1.0), ("test/t_1", 1.0)):
        sound(folder / f"{name}.ogg", seconds)
    return folder


def test_slue_voxpopuli(tmp_path):
    splits, written = run("slue-voxpopuli", slue(tmp_path / "slue-voxpopuli"))
    assert set(splits) == {"train", "dev"}
    first, second = splits["train"]
    assert first.text == "as article twenty one says."
    assert (first.speaker, first.raw_text, first.raw_entities, first.duration) == (None, None, None, 0.5)
    assert first.entities == (Entity("LAW", 3, 21, "article twenty one"),)
    assert second.raw_text == 'He said "Europe" first.'
    assert (second.speaker, second.raw_entities, second.duration) == ("28113", (Entity("LOC", 9, 15, "Europe"),), 0.75)
    assert splits["dev"][0].entities == ()
    assert [(row.utterance.id, row.problem) for row in written.dropped] == [("t_1", "no text")]


def test_slue_voxpopuli_with_the_labels_of_the_test_set(tmp_path):
    source = slue(tmp_path / "slue-voxpopuli")
    text(
        source / "slue-voxpopuli_test.tsv",
        "id\traw_text\tnormalized_text\tspeaker_id\tsplit\traw_ner\tnormalized_ner\n"
        "t_1\tThe EU.\tthe eu.\t7\ttest\t[['GPE', 4, 2]]\t[['GPE', 4, 2]]\n",
    )
    splits, written = run("slue-voxpopuli", source)
    (found,) = splits["test"]
    assert (found.text, found.entities, found.duration) == ("the eu.", (Entity("GPE", 4, 6, "eu"),), 1.0)
    assert not written.dropped


def test_slue_voxpopuli_table_without_what_is_needed(tmp_path):
    source = slue(tmp_path / "slue-voxpopuli")
    table = source / "slue-voxpopuli_dev.tsv"
    table.write_text(table.read_text() + "d_2\tNone\n")
    with pytest.raises(DataError, match=r"dev.tsv:3: more or fewer fields than columns, expected 7 fields"):
        run("slue-voxpopuli", source)
    table.write_text(table.read_text().replace("normalized_text", "text"))
    with pytest.raises(DataError, match=r"dev.tsv: columns id, raw_text, text, .* expected normalized_text among them"):
        run("slue-voxpopuli", source)


def test_slue_voxpopuli_converted_to_wav(tmp_path):
    source = slue(tmp_path / "slue-voxpopuli")
    (source / "dev/d_1.ogg").unlink()
    sound(source / "dev/d_1.wav")
    assert run("slue-voxpopuli", source)[0]["dev"][0].audio.name == "d_1.wav"


def test_slue_voxpopuli_with_unreadable_entities(tmp_path):
    source = slue(tmp_path / "slue-voxpopuli")
    table = source / "slue-voxpopuli_dev.tsv"
    table.write_text(table.read_text().replace("dev\tNone\tNone", "dev\tNone\tLOC 3"))
    with pytest.raises(DataError, match=r"dev.tsv:2: entities 'LOC 3', expected a list of \[tag, start, length\]"):
        run("slue-voxpopuli", source)


def test_slue_voxpopuli_entity_outside_its_text_is_dropped(tmp_path):
    source = slue(tmp_path / "slue-voxpopuli")
    table = source / "slue-voxpopuli_fine-tune.tsv"
    table.write_text(table.read_text().replace("['LAW', 3, 18]", "['LAW', 23, 18]"))
    splits, written = run("slue-voxpopuli", source)
    assert len(splits["train"]) == 1
    assert written.reasons["entity outside its text"] == 1


@pytest.mark.parametrize("given", ["", "LibriSpeech", "LibriSpeech/dev-clean"])
def test_librispeech(tmp_path, given):
    chapter = tmp_path / "download/LibriSpeech/dev-clean/84/121123"
    text(chapter / "84-121123.trans.txt", "84-121123-0000 GO DO YOU HEAR\n84-121123-0001 BUT IN LESS THAN FIVE MINUTES\n")
    for name, seconds in (("84-121123-0000", 0.5), ("84-121123-0001", 0.25)):
        sound(chapter / f"{name}.flac", seconds)
    splits, _ = run("librispeech", tmp_path / "download" / given)
    assert list(splits) == ["dev-clean"]
    assert [(found.id, found.text, found.speaker, found.duration) for found in splits["dev-clean"]] == [
        ("84-121123-0000", "go do you hear", "84", 0.5),
        ("84-121123-0001", "but in less than five minutes", "84", 0.25),
    ]


def test_ljspeech(tmp_path):
    source = tmp_path / "LJSpeech-1.1"
    text(
        source / "metadata.csv", 'LJ001-0007|the "42-line Bible" of 1455,|the "forty-two-line Bible" of fourteen fifty-five,\n'
    )
    sound(source / "wavs/LJ001-0007.wav", rate=22_050)
    ((found,),) = run("ljspeech", source)[0].values()
    assert found.text == 'the "forty-two-line Bible" of fourteen fifty-five,'
    assert (found.raw_text, found.duration) == ('the "42-line Bible" of 1455,', 0.5)


@pytest.mark.parametrize("given", ["", "cmu_us_bdl_arctic"])
def test_cmu_arctic(tmp_path, given):
    for voice in ("bdl",) if given else ("bdl", "slt"):
        folder = tmp_path / f"arctic/cmu_us_{voice}_arctic"
        text(folder / "etc/txt.done.data", '( arctic_a0001 "Author of the danger trail, Philip Steels, etc." )\n')
        sound(folder / "wav/arctic_a0001.wav")
    found = run("cmu-arctic", tmp_path / "arctic" / given)[0]["train"]
    assert [utterance.id for utterance in found] == ["bdl-arctic_a0001"] + ([] if given else ["slt-arctic_a0001"])
    assert (found[0].text, found[0].speaker) == ("Author of the danger trail, Philip Steels, etc.", "bdl")


def test_speechocean762(tmp_path):
    source = tmp_path / "speechocean762"
    for split, name in (("train", "000010011"), ("test", "000030012")):
        path = f"WAVE/SPEAKER{name[1:5]}/{name}.WAV"
        text(source / split / "wav.scp", f"{name}\t{path}\n")
        text(source / split / "text", f"{name}\tWE CALL IT BEAR\n")
        text(source / split / "utt2spk", f"{name}\t{name[1:5]}\n")
        sound(source / path)
    splits, _ = run("speechocean762", source)
    assert set(splits) == {"train", "test"}
    assert (splits["train"][0].text, splits["train"][0].speaker) == ("we call it bear", "0001")


def test_kaldi_segments_and_commands(tmp_path):
    source = tmp_path / "kaldi"
    long = sound(source / "long.wav", 3.0)
    text(source / "data/wav.scp", f"long {long}\npipe sox x.sph -t wav - |\n")
    text(source / "data/text", "long-a Hello there\nlong-b General\npipe nothing\nlost nowhere\n")
    text(source / "data/segments", "long-a long 0.5 1.25\nlong-b long 2.0 9.0\n")
    splits, written = run("kaldi", source)
    ((found,),) = splits.values()
    assert (found.id, found.start, found.duration, found.text) == ("long-a", 0.5, 0.75, "Hello there")
    assert {row.utterance.id: row.problem for row in written.dropped} == {
        "long-b": "reaches beyond the end of its sound file",
        "pipe": "wav.scp has a command, not a file",
        "lost": "not in wav.scp",
    }


def test_folder(tmp_path):
    source = tmp_path / "recordings"
    for name in ("visit.wav", "monday/note.flac", "dev/x.ogg", ".trash/gone.wav", "silent.wav", "foreign.wav", "wordless.wav"):
        sound(source / name)
    text(source / "visit.txt", "Good morning,\nDoctor. \n")
    text(source / "monday/note.txt", "\ufeffÄrztin")
    text(source / "dev/x.txt", "held apart")
    text(source / "silent.txt", " \n")
    (source / "foreign.txt").write_bytes(b"\xe9t\xe9")
    text(source / "visit_2.txt", "its sound has another name")
    text(source / ".trash/old.txt", "hidden")
    splits, written = run("folder", source)
    assert {found.id: found.text for found in splits["train"]} == {"visit": "Good morning, Doctor.", "monday/note": "Ärztin"}
    assert [found.id for found in splits["dev"]] == ["dev/x"]
    assert {row.utterance.id: row.problem for row in written.dropped} == {
        "silent": "no text",
        "foreign": "transcript foreign.txt: byte 0 is not UTF-8",
        "wordless": "no transcript wordless.txt beside it",
        "visit_2": "no sound beside visit_2.txt",
    }


def test_noise(tmp_path):
    sound(tmp_path / "noise/free-sound/rain.wav")
    ((found,),) = run("noise", tmp_path / "noise")[0].values()
    assert (found.id, found.text, found.kind) == ("free-sound/rain", "", "non-speech")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_csv(tmp_path, separator):
    sound(tmp_path / "my/clips/a.wav", 2.0)
    lines = [
        ("audio", "text", "speaker", "start", "mood", "split"),
        ("clips/a.wav", f'"Yes{separator} ""now""."', "mary", "", "glad", ""),
        ("clips/a.wav", "No.", "", "1.25", "sad", "dev"),
        ("clips/a.wav", "", "", "1.5", "", ""),
        ("", "No sound.", "", "", "", ""),
    ]
    source = text(tmp_path / "my/clips.csv", "\r\n".join(separator.join(line) for line in lines))
    splits, written = run("csv", source)
    (first,), (second,) = splits["train"], splits["dev"]
    assert (first.id, first.text, first.speaker, first.duration) == ("clips/a", f'Yes{separator} "now".', "mary", 2.0)
    assert (second.id, second.start, second.duration, second.speaker) == ("clips/a-1.250", 1.25, 0.75, None)
    assert [row.problem for row in written.dropped] == ["no text", "no audio"]


def test_csv_folder_is_a_split_a_table(tmp_path):
    sound(tmp_path / "my/a.wav")
    for name in ("train.csv", "dev.tsv"):
        text(tmp_path / "my" / name, ("audio,text\na.wav,x" if name.endswith("csv") else "audio\ttext\na.wav\tx"))
    assert set(run("csv", tmp_path / "my")[0]) == {"train", "dev"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,text\na.wav,x", r"no column 'audio' among path, text; rename the column that holds it"),
        ("audio,text,speakr\na.wav,x,y", r"unknown column 'speakr'; did you mean 'speaker'\?"),
        (
            "audio,text\na.wav,Hello, world",
            r"clips.csv:2: more fields than columns, expected as many; put texts .* into quotes",
        ),
        ("audio,text,start\na.wav,x,soon", r"clips.csv:2: 'start' is 'soon', expected seconds"),
    ],
)
def test_csv_that_is_wrong(tmp_path, table, message):
    sound(tmp_path / "my/a.wav")
    with pytest.raises(DataError, match=message):
        run("csv", text(tmp_path / "my/clips.csv", table))


def test_csv_that_is_not_utf8(tmp_path):
    (tmp_path / "clips.csv").write_bytes(b"audio,text\na.wav,\xe9t\xe9")
    with pytest.raises(DataError, match="byte 17 is not UTF-8"):
        run("csv", tmp_path / "clips.csv")


def test_jsonl(tmp_path):
    source = tmp_path / "shared"
    sound(source / "clips/a.wav")
    text(source / "fine-tune.jsonl", '{"id": "a", "audio": "clips/a.wav", "text": "x", "duration": 0.5}\n')
    text(source / "dropped.jsonl", '{"id": "b", "problem": "no sound file"}\n')
    splits, _ = run("jsonl", source, rename={"fine-tune": "train"})
    assert splits["train"][0].audio == source / "clips/a.wav"
    assert set(run("jsonl", source / "fine-tune.jsonl")[0]) == {"fine-tune"}


def test_jsonl_with_a_bad_line(tmp_path):
    source = text(tmp_path / "shared/train.jsonl", '{"id": "a", "audio": "a.wav", "text": "x", "duration": 0}\n')
    with pytest.raises(DataError, match=r"train.jsonl:1: 'duration': 0"):
        run("jsonl", source)


@pytest.mark.parametrize("corpus", CORPORA)
def test_what_is_not_the_corpus(tmp_path, corpus):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: not this corpus, expected .+"):
        run(corpus, tmp_path / "empty")
    with pytest.raises(DataError, match=r"none: no such file or folder, expected .+"):
        run(corpus, tmp_path / "none")
    assert not (tmp_path / "prepared").exists()


def test_unknown_corpus(tmp_path):
    with pytest.raises(RecipeError, match=r"unknown corpus 'librispech'; did you mean 'librispeech'\?"):
        run("librispech", tmp_path)


def test_rows_know_where_they_come_from(tmp_path):
    sound(tmp_path / "noise/a.wav")
    (row,) = CORPORA["noise"](tmp_path / "noise")
    assert isinstance(row, Row)
    assert row.utterance.audio == tmp_path / "noise/a.wav"
