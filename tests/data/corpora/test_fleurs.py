"""FLEURS in the layout of its repository: a folder a language, sentences joined by their numbers."""

from pathlib import Path

import pytest
from corpus_trees import run, sound, text

from stapes.data.corpora.prepare import prepare
from stapes.errors import DataError


def line(sentence: int, file: str, raw: str) -> str:
    return f"{sentence}\t{file}\t{raw}\t{raw.lower()}\t{' '.join(raw)} |\t8000\tMALE\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "fleurs"
    tables = {
        "en_us/train": [(5, "100.wav", 'A "quoted word.'), (5, "101.wav", 'A "quoted word.'), (6, "102.wav", "Only here.")],
        "de_de/train": [(5, "200.wav", "Ein \u201eWort\u201c.")],
        "cmn_hans_cn/train": [(5, "300.wav", "\u4e00\u4e2a\u8bcd")],
        "de_de/dev": [(6, "201.wav", "Im anderen Teil.")],
    }
    for place, rows in tables.items():
        language, split = place.split("/")
        text(root / f"data/{place}.tsv", "".join(line(*row) for row in rows))
        for _, file, _ in rows:
            sound(root / f"data/{language}/audio/{split}/{file}")
    return root


@pytest.mark.parametrize("given", ["", "data"])
def test_sentences_are_joined_over_languages_within_a_split(repository, given):
    splits, written = run("fleurs", repository / given)
    found = {utterance.id: utterance for utterance in splits["train"]}
    assert set(found) == {"5_en_100", "5_en_101", "6_en_102", "5_de_200", "5_zh_300"}
    german, chinese = "Ein \u201eWort\u201c.", "\u4e00\u4e2a\u8bcd"
    assert found["5_en_100"].text == found["5_en_101"].text == 'A "quoted word.'
    assert found["5_en_100"].translations == found["5_en_101"].translations == {"de": german, "zh": chinese}
    assert found["5_zh_300"].translations == {"en": 'A "quoted word.', "de": german}
    assert (found["5_zh_300"].language, found["5_zh_300"].duration) == ("zh", 0.5)
    assert found["6_en_102"].translations == splits["dev"][0].translations == {}
    assert not written.dropped


def test_one_language(repository):
    assert {name: len(found) for name, found in run("fleurs", repository / "data/de_de")[0].items()} == {"train": 1, "dev": 1}


def test_sound_unpacked_beside_the_table(repository):
    folder = repository / "data/de_de"
    (folder / "audio/train").rename(folder / "train")
    assert run("fleurs", folder)[0]["train"][0].audio == folder / "train/200.wav"


def test_sentences_are_held_out_in_all_their_languages(repository):
    written = prepare("fleurs", repository, repository / "out", held={"tune": 1}, held_from="train")
    assert [found.id for found in written.splits["tune"]] == ["6_en_102"]


def test_a_sound_that_is_missing_is_counted(repository):
    (repository / "data/en_us/audio/train/101.wav").unlink()
    assert run("fleurs", repository)[1].reasons == {"no sound file": 1}


def test_a_line_that_is_wrong(repository):
    table = repository / "data/en_us/train.tsv"
    table.write_text(table.read_text() + "7\t103.wav\tNo more.\n")
    with pytest.raises(DataError, match=r"en_us/train.tsv:4: 3 fields, expected 7: id, file, raw_transcription"):
        run("fleurs", repository)
