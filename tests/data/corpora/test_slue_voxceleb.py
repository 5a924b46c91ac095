"""SLUE-VoxCeleb in the layout of its archive: stretches of uncut files, or what the toolkit has cut out of them."""

from pathlib import Path

import pytest
from corpus_trees import run, sound, text

from stapes.data.corpora.prepare import prepare
from stapes.errors import DataError

HEADER = "id\tnormalized_text\tspeaker_id\tsplit\tsentiment\tstart_second\tend_second\n"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "slue-voxceleb"
    rows = [
        "id10059_229vKIGbxrI_00001\tand i i don't believe in god\tid10059\tfine-tune\tNeutral\t0.25\t1.0",
        'id10012_0AXjxNXiEzo_00002\t"like ""i said"" less"\tid10012\tfine-tune\tNegative\t0.0\t0.8',
        "id10012_0AXjxNXiEzo_00003\tuh more\tid10012\tfine-tune\tDisagreement\t0.1\t0.9",
        "id10012_0AXjxNXiEzo_00004\twell\tid10012\tfine-tune\t<mixed>\t0.1\t0.9",
    ]
    text(folder / "slue-voxceleb_fine-tune.tsv", HEADER + "\n".join(rows) + "\n")
    text(folder / "slue-voxceleb_dev.tsv", HEADER + "id10307_yUv37vQWmzE_00001\tnull\tNone\tdev\tPositive\t0.5\t3.5\n")
    text(folder / "slue-voxceleb_test_blind.tsv", "id\tspeaker_id\tsplit\tstart_second\tend_second\nid1_t_1\tid1\ttest\t0\t1\n")
    for row in rows:
        sound(folder / f"fine-tune_raw/{row.split()[0]}.flac", 1.5)
    sound(folder / "dev_raw/id10307_yUv37vQWmzE_00001.flac", 1.0)
    sound(folder / "test_raw/id1_t_1.flac", 1.0)
    return folder


def test_stretches_of_the_uncut_files(archive):
    splits, written = run("slue-voxceleb", archive)
    first, second = splits["train"]
    assert (first.text, first.speaker, first.language) == ("and i i don't believe in god", "id10059", "en")
    assert (first.start, first.duration) == (0.25, 0.75)
    assert second.text == 'like "i said" less'
    assert first.audio == archive / "fine-tune_raw/id10059_229vKIGbxrI_00001.flac"
    assert (first.sentiment, second.sentiment) == ("Neutral", "Negative")
    assert {row.utterance.id: row.problem for row in written.dropped} == {
        "id10012_0AXjxNXiEzo_00003": "mixed sentiment or disagreement, which the benchmark leaves out",
        "id10012_0AXjxNXiEzo_00004": "mixed sentiment or disagreement, which the benchmark leaves out",
        "id10307_yUv37vQWmzE_00001": "reaches beyond the end of its sound file",
        "id1_t_1": "no text",
    }


def test_files_that_the_toolkit_has_cut(archive):
    (archive / "dev_raw/id10307_yUv37vQWmzE_00001.flac").unlink()
    cut = sound(archive / "dev/id10307_yUv37vQWmzE_00001.flac", 0.5)
    (found,) = run("slue-voxceleb", archive)[0]["dev"]
    assert (found.audio, found.start, found.duration, found.speaker) == (cut, 0.0, 0.5, None)


def test_test_set_with_labels_goes_before_the_blind_one(archive):
    text(archive / "slue-voxceleb_test.tsv", HEADER + "id1_t_1\tso there\tid1\ttest\tNegative\t0\t1\n")
    (found,) = run("slue-voxceleb", archive)[0]["test"]
    assert (found.text, found.sentiment) == ("so there", "Negative")


def test_hold_out_by_session_keeps_speakers_whole(archive):
    written = prepare("slue-voxceleb", archive, archive.parent / "out", held={"tune": 1})
    speakers = {name: {found.speaker for found in utterances} for name, utterances in written.splits.items()}
    assert speakers["train"].isdisjoint(speakers["tune"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.25\t1.0", "1.0\t0.25", r"fine-tune.tsv:2: from 1 to 0.25 s, expected 0 <= start_second < end_second"),
        ("0.25\t1.0", "soon\t1.0", r"fine-tune.tsv:2: 'start_second' is 'soon', expected seconds"),
        ("0.25\t1.0", "0.25\tnan", r"fine-tune.tsv:2: 'end_second' is 'nan', expected seconds"),
        ("\tend_second", "\tend", r"fine-tune.tsv:2: 'end_second' is None, expected seconds"),
        ("\tsentiment", "\tmood", r"fine-tune.tsv: columns id, .*, expected sentiment among them"),
        ("\t0.25\t1.0", "", r"fine-tune.tsv:2: more or fewer fields than columns, expected 7 fields"),
    ],
)
def test_tables_that_are_wrong(archive, old, new, message):
    table = archive / "slue-voxceleb_fine-tune.tsv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        run("slue-voxceleb", archive)
