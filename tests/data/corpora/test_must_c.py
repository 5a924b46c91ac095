"""MuST-C in the layout of its archives: whole talks, and the segments of each pair."""

from pathlib import Path

import pytest
from corpus_trees import run, sound, text

from stapes.data.corpora.prepare import prepare
from stapes.errors import DataError


def pair(root: Path, target: str, split: str, segments: list[tuple[str, float, float, str, str]]) -> Path:
    """Segments: talk, offset, duration, transcript, translation."""
    folder = root / f"en-{target}/data/{split}"
    lines = [
        f"- {{duration: {duration:.6f}, offset: {offset:.6f}, rW: 2, uW: 0, speaker_id: spk.{talk}, wav: ted_{talk}.wav}}"
        for talk, offset, duration, _, _ in segments
    ]
    text(folder / f"txt/{split}.yaml", "\n".join(lines) + "\n")
    text(folder / f"txt/{split}.en", "".join(f"{segment[3]}\n" for segment in segments))
    text(folder / f"txt/{split}.{target}", "".join(f"{segment[4]}\n" for segment in segments))
    for talk in {segment[0] for segment in segments}:
        sound(folder / f"wav/ted_{talk}.wav", 4.0)
    return folder / "txt"


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    root = tmp_path / "must-c"
    pair(root, "de", "train", [("1", 0.5, 1.0, "Hello.", "Hallo."), ("1", 1.5, 2.0, "Well,\u2028then.", "Also\x85gut.")])
    pair(root, "fr", "train", [("1", 0.5, 1.0, "Hello.", "Bonjour."), ("1", 1.5, 1.25, "Well,", "Bien,")])
    pair(root, "de", "tst-COMMON", [("9", 0.0, 3.0, "The end.", "Das Ende.")])
    return root


def test_segments_that_are_the_same_merge_and_others_stay(talks):
    splits, written = run("must-c", talks)
    assert set(splits) == {"train", "tst-COMMON"}
    hello, then, well = splits["train"]
    assert hello.translations == {"de": "Hallo.", "fr": "Bonjour."}
    assert (hello.start, hello.duration, hello.speaker, hello.language) == (0.5, 1.0, "spk.1", "en")
    assert hello.audio == talks / "en-de/data/train/wav/ted_1.wav"
    assert (then.id, then.duration, then.translations) == ("ted-1_1.500_2.000", 2.0, {"de": "Also\x85gut."})
    assert (well.id, well.duration, well.translations) == ("ted-1_1.500_1.250", 1.25, {"fr": "Bien,"})
    assert splits["tst-COMMON"][0].translations == {"de": "Das Ende."}
    assert not written.dropped


def test_only_a_newline_ends_a_line(talks):
    """Talks have separators of Unicode in them, which str.splitlines would take for ends of lines."""
    assert run("must-c", talks)[0]["train"][1].text == "Well,\u2028then."


def test_one_pair_alone(talks):
    found = run("must-c", talks / "en-fr")[0]["train"]
    assert [utterance.translations for utterance in found] == [{"fr": "Bonjour."}, {"fr": "Bien,"}]


def test_a_stretch_that_two_pairs_write_down_otherwise_is_there_twice(talks):
    pair(talks, "fr", "train", [("1", 0.5, 1.0, "Hallo?", "Allo\u0301?")])
    found = {utterance.id: utterance for utterance in run("must-c", talks)[0]["train"]}
    assert found["ted-1_0.500_1.000"].text == "Hello."
    assert (found["ted-1_0.500_1.000_fr"].text, found["ted-1_0.500_1.000_fr"].translations) == ("Hallo?", {"fr": "Allo\u0301?"})


def test_segments_that_cannot_be_used_are_counted(talks):
    segments = [("1", 0.5, 1.0, "Hello.", "Hallo."), ("1", 0.5, 1.0, "Hello.", "Hallo!"), ("1", 3.0, 2.0, "Late.", "")]
    pair(talks, "de", "train", [*segments, ("1", 2.0, 1.0, "", "leer"), ("1", 2.5, 1.0, "No German.", "")])
    splits, written = run("must-c", talks / "en-de")
    assert [(found.text, found.translations) for found in splits["train"]] == [("Hello.", {"de": "Hallo."}), ("No German.", {})]
    assert written.reasons == {
        "segment written twice in one pair": 1,
        "reaches beyond the end of its sound file": 1,
        "no text": 1,
    }


def test_talks_are_held_out_whole(talks):
    segments = [(str(talk), 0.5 * part, 0.5, f"{talk} {part}", "x") for talk in range(4) for part in range(3)]
    pair(talks, "de", "train", segments)
    written = prepare("must-c", talks / "en-de", talks / "out", held={"tune": 3}, held_from="train")
    assert len({found.speaker for found in written.splits["tune"]}) == 1
    assert len(written.splits["tune"]) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.de", "Hallo.\n", r"train.de: 1 lines, expected 2, as many as the YAML beside it has segments"),
        ("train.en", None, r"train.en: no such file, expected a line for each segment"),
        ("train.yaml", "- {wav: a}\n- {wav: [}", r"train.yaml:2: not YAML, expected a list of segments"),
        ("train.yaml", "wav: a", r"train.yaml: dict, expected a list of segments"),
        (
            "train.yaml",
            "- {wav: a.wav, offset: 1}\n- {}",
            r"train.yaml: segment 1: \{'wav': 'a.wav', .*expected wav, and offset",
        ),
        (
            "train.yaml",
            "- {wav: a.wav, offset: -1, duration: 2}\n- {}",
            r"segment 1: offset -1.0, duration 2.0, expected 0 or more, and more than 0",
        ),
    ],
)
def test_files_that_are_wrong(talks, name, content, message):
    path = talks / "en-de/data/train/txt" / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        run("must-c", talks)
