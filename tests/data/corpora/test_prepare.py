"""Measuring, dropping, holding out, renaming, copying: what every corpus goes through."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stapes.data.corpora.hold_out import GROUPS, hold_out, speaker
from stapes.data.corpora.prepare import prepare
from stapes.data.manifest import read_manifest
from stapes.errors import DataError
from stapes.types import Utterance


@pytest.fixture
def recordings(tmp_path):
    """Twenty utterances of four speakers, as a table."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    lines = ["audio,text,speaker"]
    for index in range(20):
        soundfile.write(folder / f"{index:02}.wav", np.full(800 + index, 0.1), 16_000)
        lines.append(f"{index:02}.wav,number {index},speaker {index % 4}")
    (folder / "all.csv").write_text("\n".join(lines))
    return folder / "all.csv"


def ids(path: Path) -> list[str]:
    return [utterance.id for utterance in read_manifest(path)]


def sessions(*sizes: int) -> list[Utterance]:
    names = [f"s{index}_{part}" for index, size in enumerate(sizes) for part in range(size)]
    return [Utterance(name, Path(f"{name}.wav"), "x", 1.0) for name in names]


def test_hold_out_takes_whole_sessions_in_a_fixed_order():
    utterances = sessions(*[5] * 20)
    rest, held = hold_out(utterances, 12)
    assert len(held) == 15
    assert len(rest) == 85
    assert not {found.id.split("_")[0] for found in rest} & {found.id.split("_")[0] for found in held}
    # The order of SHA-256 is part of the contract: another one would put training data into an old hold-out.
    assert {found.id.split("_")[0] for found in held} == {"s13", "s7", "s8"}


def test_hold_out_does_not_depend_on_the_order_of_the_data():
    utterances = sessions(3, 1, 4, 1, 5, 9, 2, 6)
    held = hold_out(utterances, 8)[1]
    assert {found.id for found in hold_out(utterances[::-1], 8)[1]} == {found.id for found in held}


def test_hold_out_grows_by_whole_groups_when_more_is_asked_for():
    utterances = sessions(*[3] * 30)
    small, large = ({found.id for found in hold_out(utterances, amount)[1]} for amount in (10, 30))
    assert small < large


def test_hold_out_by_share():
    assert len(hold_out(sessions(*[1] * 40), 0.1)[1]) == 4


@pytest.mark.parametrize("sizes", [(10,), (50, 50), (1, 1)])
def test_hold_out_refuses_what_would_take_too_much(sizes):
    with pytest.raises(DataError, match=r"hold-out: .* would be held out, expected about \d+; hold out by a smaller group"):
        hold_out(sessions(*sizes), 5)


def test_hold_out_by_speaker_needs_speakers():
    with pytest.raises(DataError, match="s0_0: no speaker"):
        hold_out(sessions(4), 1, speaker)


def test_groups_are_what_they_are_called():
    utterance = Utterance("en-b-c_d", Path("x/y.wav"), "", 1.0, speaker="mary", language="en")
    assert {name: group(utterance) for name, group in GROUPS.items()} == {
        "session": "en-b-c",
        "prompt": "b-c_d",
        "speaker": "mary",
        "folder": "x",
        "utterance": "en-b-c_d",
    }


@pytest.mark.parametrize(("name", "language"), [("fr-a", "en"), ("a", "en"), ("en-a", None)])
def test_hold_out_by_prompt_needs_a_language_in_front(name, language):
    utterances = [Utterance(name, Path("a.wav"), "x", 1.0, language=language)]
    with pytest.raises(DataError, match=rf"{name}: (language en|no language), expected an id that begins with its language"):
        hold_out(utterances, 1, GROUPS["prompt"])


def test_a_prompt_is_held_out_in_all_its_languages(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(1600, 0.1), 16_000)
    lines = [
        {"id": f"{language}-p{number}", "audio": "a.wav", "text": "x", "duration": 0.1, "language": language}
        for language in ("en", "es", "fr")
        for number in range(20)
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps(line | {"translations": {"de": "y"}}) for line in lines))
    written = prepare("jsonl", tmp_path / "train.jsonl", tmp_path / "out", held={"dev": 0.1}, held_by="prompt")
    assert {name: len(found) for name, found in written.splits.items()} == {"train": 54, "dev": 6}
    prompts = {name: {utterance.id[3:] for utterance in found} for name, found in written.splits.items()}
    assert prompts["train"].isdisjoint(prompts["dev"])
    assert written.splits["dev"][0].translations == {"de": "y"}


def test_held_splits_are_written_and_apart(recordings, tmp_path):
    prepare("csv", recordings, tmp_path / "out", held={"dev": 0.2, "tune": 3})
    parts = [ids(tmp_path / f"out/{name}.jsonl") for name in ("train", "dev", "tune")]
    assert [len(part) for part in parts] == [13, 4, 3]
    assert sorted(name for part in parts for name in part) == [f"{index:02}" for index in range(20)]


def test_held_by_speaker(recordings, tmp_path):
    written = prepare("csv", recordings, tmp_path / "out", held={"dev": 5}, held_by="speaker")
    assert len({found.speaker for found in written.splits["dev"]}) == 1
    assert len({found.speaker for found in written.splits["train"]}) == 3


def test_durations_are_those_of_the_sound(recordings, tmp_path):
    prepare("csv", recordings, tmp_path / "out")
    durations = [found.duration for found in read_manifest(tmp_path / "out/train.jsonl")]
    assert durations == pytest.approx([(800 + index) / 16_000 for index in range(20)], abs=1e-4)


def test_what_cannot_be_used_is_dropped_counted_and_listed(recordings, tmp_path):
    folder = recordings.parent
    (folder / "03.wav").unlink()
    (folder / "04.wav").write_bytes(b"not a sound")
    (folder / "05.wav").write_bytes(b"")
    recordings.write_text(recordings.read_text().replace("number 6", "") + "\n07.wav,again,\n08.wav,typo,,\n")
    recordings.write_text(recordings.read_text().replace("audio,text,speaker", "audio,text,speaker,kind"))
    written = prepare("csv", recordings, tmp_path / "out")
    assert written.reasons == {"no sound file": 1, "unreadable sound": 2, "no text": 1, "id used twice": 2}
    listed = [json.loads(line) for line in (tmp_path / "out/dropped.jsonl").read_text().splitlines()]
    assert listed[0] == {"id": "03", "split": "train", "audio": str(folder / "03.wav"), "problem": "no sound file"}
    assert len(ids(tmp_path / "out/train.jsonl")) == 20 - 4


def test_an_old_list_of_dropped_rows_does_not_stay(recordings, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/dropped.jsonl").write_text("{}")
    prepare("csv", recordings, tmp_path / "out")
    assert not (tmp_path / "out/dropped.jsonl").exists()


def test_nothing_usable_is_an_error(recordings, tmp_path):
    for path in recordings.parent.glob("*.wav"):
        path.unlink()
    with pytest.raises(DataError, match=r"none of 20 utterances can be used \(20 no sound file\)"):
        prepare("csv", recordings, tmp_path / "out")


def test_copied_sound_makes_the_folder_movable(recordings, tmp_path):
    prepare("csv", recordings, tmp_path / "out", copy=True)
    (tmp_path / "out").rename(tmp_path / "moved")
    recordings.parent.rename(tmp_path / "gone")
    first = read_manifest(tmp_path / "moved/train.jsonl")[0]
    assert first.audio == tmp_path / "moved/audio/00.wav"
    assert first.audio.read_bytes() == (tmp_path / "gone/00.wav").read_bytes()


def test_copied_sound_from_elsewhere_keeps_apart(tmp_path):
    lines = []
    for index, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", np.full(1600, 0.1 * index), 16_000)
        lines.append(json.dumps({"id": name, "audio": str(tmp_path / name / "a.wav"), "text": "x", "duration": 0.1}))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/train.jsonl").write_text("\n".join(lines))
    prepare("jsonl", tmp_path / "lists", tmp_path / "out", copy=True)
    for found in read_manifest(tmp_path / "out/train.jsonl"):
        assert found.audio.is_relative_to(tmp_path / "out/audio")
        assert found.audio.read_bytes() == (tmp_path / found.id / "a.wav").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rename": {"trian": "a"}}, r"rename: no split 'trian'; did you mean 'train'\?"),
        ({"held": {"train": 3}}, "hold-out: the corpus already has a split 'train'"),
        ({"held": {"dev": 3}, "held_from": "test"}, "hold-out: no split 'test' to take 'dev' from; known: train"),
        ({"rename": {"train": "dropped"}}, "split: 'dropped', expected a name that can be a manifest's"),
        ({"rename": {"train": "../train"}}, "split: '../train', expected a name that can be a manifest's"),
    ],
)
def test_impossible_wishes(recordings, tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        prepare("csv", recordings, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
