"""The manifest: what is read is what was written, and every way to get it wrong has its message."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from stapes.data.manifest import data_digest, read_manifest, write_manifest
from stapes.errors import DataError
from stapes.types import Entity, Utterance

GOOD = {"id": "a", "audio": "a.wav", "text": "hello world", "duration": 1.5}

FULL = Utterance(
    id="äß_1",
    audio=Path("sub/a.wav"),
    text="angela merkel said “ja”",
    duration=2.25,
    start=0.5,
    speaker="0042",
    language="en",
    entities=(Entity("PERSON", 0, 13, "angela merkel"),),
    raw_text="Angela Merkel said “ja”.",
    raw_entities=(Entity("PERSON", 0, 13, "Angela Merkel"),),
    translations={"de": "angela merkel sagte ja"},
    sentiment="Neutral",
    kind="speech",
    synthetic=True,
)


def line(**changes: object) -> str:
    return json.dumps({key: value for key, value in {**GOOD, **changes}.items() if value is not ...})


@pytest.fixture
def write(tmp_path):
    (tmp_path / "a.wav").touch()

    def write(*lines: str | bytes) -> Path:
        path = tmp_path / "train.jsonl"
        path.write_bytes(b"".join((text.encode() if isinstance(text, str) else text) + b"\n" for text in lines))
        return path

    return write


def entities(start: int, end: int, text: str) -> list[dict[str, object]]:
    return [{"label": "ORG", "start": start, "end": end, "text": text}]


BAD_LINES = {
    "not json": ('{"id": "a"', "not JSON (EOF while parsing an object at column 10), expected one JSON object a line"),
    "python": ("{'id': 'a'}", "not JSON (key must be a string at column 2), expected one JSON object a line"),
    "an array": ("[]", "[], expected a JSON object"),
    "not utf-8": (b'{"id": "\xff"}', "not JSON (invalid unicode code point at column 9), expected one JSON object a line"),
    "no id": (line(id=...), "'id': missing, expected a value for this key"),
    "empty id": (line(id=""), "'id': '', expected a string that is not empty"),
    "number as id": (line(id=7), "'id': 7, expected a string"),
    "number as speaker": (line(speaker=7), "'speaker': 7, expected a string"),
    "misspelt key": (line(durations=1), "'durations': unknown key; did you mean 'duration'?"),
    "no duration": (line(duration=...), "'duration': missing, expected a value for this key"),
    "zero duration": (line(duration=0), "'duration': 0, expected more than 0"),
    "negative duration": (line(duration=-1.5), "'duration': -1.5, expected more than 0"),
    "infinite duration": (line(duration=float("inf")), "'duration': inf, expected a finite number"),
    "duration as text": (line(duration="1.5"), "'duration': '1.5', expected a number"),
    "negative start": (line(start=-0.1), "'start': -0.1, expected at least 0"),
    "no text": (
        line(text=...),
        '\'text\': missing, expected the transcript; for sound without speech say "kind": "non-speech"',
    ),
    "blank text": (
        line(text="  "),
        "'text': ' ', expected the transcript; for sound without speech say \"kind\": \"non-speech\"",
    ),
    "words in noise": (line(kind="non-speech"), "'text': 'hello world', expected no words where kind is 'non-speech'"),
    "synthetic as text": (line(synthetic="yes"), "'synthetic': 'yes', expected true or false"),
    "unknown kind": (line(kind="noise"), "'kind': 'noise', expected 'speech' or 'non-speech'"),
    "missing sound": (
        line(audio="b.wav"),
        "'audio': 'b.wav', expected a file; there is no {folder}/b.wav; paths are relative to the manifest's folder",
    ),
    "folder as sound": (
        line(audio="."),
        "'audio': '.', expected a file; there is no {folder}; paths are relative to the manifest's folder",
    ),
    "entity off by one": (
        line(entities=entities(1, 6, "hello")),
        "'entities[0]': text[1:6] is 'ello ', expected 'hello'; offsets are characters of text, the end excluded",
    ),
    "entity beyond the end": (
        line(entities=entities(6, 99, "world")),
        "'entities[0]': start 6, end 99, expected start < end <= 11, the length of text",
    ),
    "empty entity": (
        line(entities=entities(3, 3, "")),
        "'entities[0]': start 3, end 3, expected start < end <= 11, the length of text",
    ),
    "raw entity without raw text": (
        line(raw_entities=entities(0, 5, "hello")),
        "'raw_entities[0]': start 0, end 5, expected start < end <= 0, the length of raw_text",
    ),
    "entity without label": (
        line(entities=[{"start": 0, "end": 5, "text": "hello"}]),
        "'entities[0].label': missing, expected a value for this key",
    ),
    "misspelt entity key": (
        line(entities=[{"label": "ORG", "begin": 0, "start": 0, "end": 5, "text": "hello"}]),
        "'entities[0].begin': unknown key; known: end, label, start, text",
    ),
    "fractional offset": (
        line(entities=[{"label": "ORG", "start": 0.5, "end": 5, "text": "hello"}]),
        "'entities[0].start': 0.5, expected an integer",
    ),
    "entities as an object": (line(entities={"ORG": "hello"}), "'entities': {{'ORG': 'hello'}}, expected a list"),
    "translation that is a list": (line(translations={"de": ["hallo"]}), "'translations.de': ['hallo'], expected a string"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_line(write, tmp_path, name):
    bad, message = BAD_LINES[name]
    path = write(line(id="first"), bad, line(id="last"))
    with pytest.raises(DataError) as error:
        read_manifest(path)
    assert str(error.value) == f"{path}:2: {message.format(folder=tmp_path)}"


def test_the_first_bad_line_is_named_and_the_others_counted(write):
    path = write(line(), line(id="b", duration=0), line(), line(id=""), line(id="c"), "{")
    with pytest.raises(DataError, match=r"train.jsonl:2: 'duration': 0, .*; and 3 more bad lines \(3, 4, 6\)$"):
        read_manifest(path)


def test_many_bad_lines_are_not_all_listed(write):
    with pytest.raises(DataError, match=r"and 8 more bad lines \(2, 3, 4, 5, 6, ...\)$"):
        read_manifest(write(*["{}"] * 9))


def test_duplicate_id_names_the_first_line(write):
    path = write(line(), "", line(id="b"), line())
    with pytest.raises(DataError) as error:
        read_manifest(path)
    assert str(error.value) == f"{path}:4: 'id': 'a' again, expected ids to be unique; line 1 has it"


@pytest.mark.parametrize("content", [(), ("", "  ")])
def test_empty(write, content):
    with pytest.raises(DataError, match="no utterances in it, expected one JSON object a line"):
        read_manifest(write(*content))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl: no such file, expected a manifest"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="a folder, expected a manifest"):
        read_manifest(tmp_path)


def test_what_people_write(write):
    """Windows line ends, a byte-order mark, blank lines, an integer as duration, nulls, unknown language codes."""
    path = write(b"\xef\xbb\xbf" + line(duration=2, speaker=None).encode() + b"\r", "", line(id="b", language="gsw"))
    first, second = read_manifest(path)
    assert (first.duration, first.speaker, first.source) == (2.0, None, f"{path}:1")
    assert (second.language, second.source) == ("gsw", f"{path}:3")


def test_non_speech_may_have_no_text(write):
    with_text, without = read_manifest(write(line(text="", kind="non-speech"), line(id="b", text=..., kind="non-speech")))
    assert with_text.text == without.text == ""


def test_sound_need_not_be_there_when_told(write):
    assert read_manifest(write(line(audio="gone.wav")), check_audio=False)[0].audio.name == "gone.wav"


def test_written_is_read(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.wav").touch()
    plain = Utterance("b", tmp_path / "sub/a.wav", "", 1.0, kind="non-speech", entities=())
    full = replace(FULL, audio=tmp_path / "sub/a.wav")
    write_manifest(tmp_path / "m.jsonl", [full, plain])
    assert [replace(found, source="") for found in read_manifest(tmp_path / "m.jsonl")] == [full, plain]


def test_synthetic_is_written_only_where_it_is_true(tmp_path):
    """Manifests from before there was such a key keep their digest."""
    utterances = [Utterance("a", tmp_path / "a.wav", "x", 1.0), Utterance("b", tmp_path / "a.wav", "x", 1.0, synthetic=True)]
    write_manifest(tmp_path / "m.jsonl", utterances)
    written = [json.loads(text) for text in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert [found.get("synthetic", "left out") for found in written] == ["left out", True]
    assert [found.synthetic for found in read_manifest(tmp_path / "m.jsonl", check_audio=False)] == [False, True]


def test_sound_below_the_manifest_is_relative_and_other_sound_absolute(tmp_path):
    inside, outside = tmp_path / "data/clips/a.wav", tmp_path / "elsewhere/b.wav"
    utterances = [Utterance("a", inside, "x", 1.0), Utterance("b", outside, "x", 1.0)]
    write_manifest(tmp_path / "data/m.jsonl", utterances)
    written = [json.loads(text)["audio"] for text in (tmp_path / "data/m.jsonl").read_text().splitlines()]
    assert written == ["clips/a.wav", str(outside)]


def test_a_failed_write_leaves_the_old_manifest_and_nothing_else(tmp_path):
    def utterances():
        yield Utterance("new", tmp_path / "a.wav", "x", 1.0)
        raise KeyboardInterrupt

    path = tmp_path / "m.jsonl"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_manifest(path, utterances())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_digest_is_of_the_data_and_not_of_its_place_or_order():
    other = Utterance("b", Path("b.wav"), "x", 1.0)
    digest = data_digest([FULL, other])
    assert digest == data_digest([other, replace(FULL, audio=Path("/moved/a.flac"), source="m.jsonl:1", duration=2.2501)])
    changes = [{"id": "c"}, {"text": "y"}, {"duration": 2.3}, {"start": 0.6}, {"entities": ()}, {"entities": None}]
    changes += [{"translations": {}}, {"sentiment": None}, {"raw_text": None}, {"synthetic": False}]
    digests = {data_digest([replace(FULL, **change), other]) for change in changes}
    assert len(digests | {digest}) == len(changes) + 1
    assert data_digest([other]) != digest
