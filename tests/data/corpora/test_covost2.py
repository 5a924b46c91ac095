"""CoVoST 2 as published, joined with Common Voice, and as the official script cuts it."""

from pathlib import Path

import pytest
from corpus_trees import run, sound, text

from stapes.data.corpora.prepare import prepare
from stapes.errors import DataError

VALIDATED = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent\n"
CUT = "path\tsentence\ttranslation\tclient_id\n"


def clip(number: int) -> str:
    return f"common_voice_en_{number}.mp3"


@pytest.fixture
def english(tmp_path: Path) -> Path:
    """Common Voice's folder of one language, with two published tables; clip 5 lacks its sound, clip 6 its sentence."""
    folder = tmp_path / "covost/en"
    for number in (1, 2, 3, 4, 6):
        sound(folder / f"clips/{clip(number)}", 0.5, 48_000)
    said = {1: 'He said \\"no\\".', 2: "It\u2028rains.", 3: 'A "quoted word.', 4: "Good night.", 5: "Where?"}
    rows = [f"spk{number % 2}\t{clip(number)}\t{sentence}\t2\t0\t\t\t\n" for number, sentence in said.items()]
    text(folder / "validated.tsv", VALIDATED + "".join(rows))
    splits = {1: "train", 2: "train_covost", 3: "dev", 4: "test", 5: "train", 6: "train"}
    for target, words in (("de", "auf deutsch"), ("zh-CN", "\u4e2d\u6587")):
        lines = "".join(f"{clip(number)}\t{words} {number}\t{split}\n" for number, split in splits.items())
        text(folder / f"covost_v2.en_{target}.tsv", "path\ttranslation\tsplit\n" + lines)
    return folder


@pytest.mark.parametrize("around", [False, True])
def test_published_tables_merge_into_one_manifest(english, around):
    splits, written = run("covost2", english.parent if around else english)
    assert {name: [found.id for found in utterances] for name, utterances in splits.items()} == {
        "train": ["common_voice_en_1", "common_voice_en_2"],
        "dev": ["common_voice_en_3"],
        "test": ["common_voice_en_4"],
    }
    first, second = splits["train"]
    assert first.text == 'He said "no".'
    assert first.translations == {"de": "auf deutsch 1", "zh": "\u4e2d\u6587 1"}
    assert (first.speaker, first.language) == ("spk1", "en")
    assert first.duration == pytest.approx(0.5, abs=0.06)  # MP3 is padded to whole frames
    assert second.text == "It\u2028rains."
    assert splits["dev"][0].text == 'A "quoted word.'
    assert {row.utterance.id: row.problem for row in written.dropped} == {
        "common_voice_en_5": "no sound file",
        "common_voice_en_6": "not in validated.tsv",
    }


def test_cut_tables_go_before_the_published_one_and_need_no_validated(english):
    (english / "validated.tsv").unlink()
    (english / "covost_v2.en_zh-CN.tsv").unlink()
    text(english / "covost_v2.en_de.train.tsv", f"{CUT}{clip(1)}\tHi.\tHallo.\tspk1\n{clip(2)}\tBye.\t\tspk0\n")
    text(english / "covost_v2.en_de.dev.tsv", f"{CUT}{clip(3)}\tSo.\tAlso.\tspk1\n")
    splits, _ = run("covost2", english)
    assert [(found.text, found.translations) for found in splits["train"]] == [("Hi.", {"de": "Hallo."}), ("Bye.", {})]
    assert [found.text for found in splits["dev"]] == ["So."]
    assert "test" not in splits


def test_several_languages_share_a_manifest(english):
    folder = english.parent / "sv-SE"
    sound(folder / "clips/common_voice_sv-SE_1.mp3", 0.5, 48_000)
    text(folder / "covost_v2.sv-SE_en.train.tsv", f"{CUT}common_voice_sv-SE_1.mp3\tHej.\tHello.\tspk7\n")
    found = {utterance.id: utterance for utterance in run("covost2", english.parent)[0]["train"]}
    assert len(found) == 3
    swedish = found["common_voice_sv-SE_1"]
    assert (swedish.language, swedish.translations) == ("sv", {"en": "Hello."})


def test_a_clip_that_a_table_has_twice_is_counted(english):
    table = english / "covost_v2.en_de.tsv"
    table.write_text(table.read_text() + f"{clip(1)}\tnoch einmal\ttrain\n")
    splits, written = run("covost2", english)
    assert splits["train"][0].translations["de"] == "auf deutsch 1"
    assert written.reasons["clip written twice in one table"] == 1


def test_speakers_are_held_out_whole(english):
    written = prepare("covost2", english, english.parent / "out", held={"tune": 1})
    assert len(written.splits["tune"]) == len(written.splits["train"]) == 1


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("covost_v2.en_de.tsv", "train_covost", "validation", r"en_de.tsv:3: split 'validation', expected train, train_covost"),
        ("covost_v2.en_de.tsv", "translation", "german", r"en_de.tsv: columns path, german, split, expected translation among"),
        ("covost_v2.en_de.tsv", "\ttrain\n", "\ttrain\tx\n", r"en_de.tsv:2: more fields than columns, or no path, .* 3 fields"),
        (
            "covost_v2.en_zh-CN.tsv",
            "\tdev",
            "\ttest",
            r"zh-CN.tsv:4: clip common_voice_en_3.mp3 in test as .*, expected dev and",
        ),
        ("validated.tsv", "sentence", "text", r"validated.tsv: columns client_id, .*, expected sentence among them"),
    ],
)
def test_tables_that_are_wrong(english, table, old, new, message):
    path = english / table
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        run("covost2", english)


def test_published_tables_need_common_voice(english):
    (english / "validated.tsv").unlink()
    with pytest.raises(DataError, match=r"validated.tsv: no such file, expected the table of Common Voice 4; or run CoVoST's"):
        run("covost2", english)
