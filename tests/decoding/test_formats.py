"""Transcripts as text, JSON and subtitles."""

import itertools
import json
import re
from dataclasses import replace

import pytest

from stapes.decoding.formats import CUE_LINES, FORMATS, LINE_CHARACTERS, SUFFIXES, render
from stapes.decoding.longform import TimedText, Transcript
from stapes.errors import RecipeError
from stapes.types import Entity

SHORT = Transcript(
    "öl & <wine> now",
    [TimedText(0.0, 1.5, "öl & <wine>"), TimedText(3.0, 3.2, ""), TimedText(3661.0, 3662.0004, "now")],
    True,
    None,
)
WORDS = [f"word{number}" for number in range(60)]
LONG = Transcript(" ".join(WORDS), [TimedText(10.0, 35.0, " ".join(WORDS))], False, None)
SILENT = Transcript("", [], False, None)
NAMED = Transcript(
    "we met jane doe in rome",
    [TimedText(0.0, 2.0, "we met jane doe in rome")],
    False,
    None,
    entities=(Entity("PERSON", 7, 15, "jane doe"), Entity("PLACE", 19, 23, "rome")),
)
LISTED = Transcript("we met", [], False, None, entities=(Entity("PERSON", -1, -1, "jane"), Entity("PLACE", -1, -1, "rome")))
FELT = Transcript("we met", [], False, None, sentiment="Positive")


def test_text_is_the_text():
    assert render(SHORT, "text") == "öl & <wine> now"
    assert render(SILENT, "text") == ""


def test_json_is_one_line_with_the_segments_as_they_were_decoded():
    line = render(SHORT, "json", "a.wav")
    assert "\n" not in line
    assert "öl" in line
    assert json.loads(line) == {
        "file": "a.wav",
        "text": "öl & <wine> now",
        "segments": [
            {"start": 0.0, "end": 1.5, "text": "öl & <wine>"},
            {"start": 3.0, "end": 3.2, "text": ""},
            {"start": 3661.0, "end": 3662.0, "text": "now"},
        ],
        "capped": True,
    }


def test_entities_and_sentiment_as_text():
    assert render(NAMED, "text") == "we met [PERSON jane doe] in [PLACE rome]"
    assert render(LISTED, "text") == "we met\n[PERSON jane]\n[PLACE rome]"
    assert render(FELT, "text") == "we met\nPositive"
    assert render(replace(FELT, text=""), "text") == "Positive"
    assert render(replace(LISTED, text=""), "text") == "[PERSON jane]\n[PLACE rome]"
    assert render(replace(NAMED, entities=()), "text") == NAMED.text


def test_entities_are_in_brackets_in_subtitles_each_in_its_segment():
    again = replace(
        NAMED,
        text="we met jane doe in rome rome",
        segments=[*NAMED.segments, TimedText(2.0, 3.0, ""), TimedText(3.0, 4.0, "rome")],
        entities=(*(NAMED.entities or ()), Entity("PLACE", 24, 28, "rome")),
    )
    cues = [cue.split("\n")[2:] for cue in render(again, "srt").split("\n\n")]
    assert cues == [["we met [PERSON jane doe] in [PLACE rome]"], ["[PLACE rome]"]]
    assert render(replace(LISTED, segments=[TimedText(0.0, 1.0, "we met")]), "srt").endswith("\nwe met")


def test_entities_and_sentiment_as_json():
    found = json.loads(render(NAMED, "json"))
    assert found["entities"][0] == {"label": "PERSON", "start": 7, "end": 15, "phrase": "jane doe"}
    assert "sentiment" not in found
    assert json.loads(render(FELT, "json"))["sentiment"] == "Positive"
    assert json.loads(render(replace(NAMED, repairs=2), "json")) == found | {"file": "", "repairs": 2}


def test_subrip():
    assert render(SHORT, "srt") == ("1\n00:00:00,000 --> 00:00:01,500\nöl & <wine>\n\n2\n01:01:01,000 --> 01:01:02,000\nnow")
    assert render(SILENT, "srt") == ""


def test_webvtt():
    assert render(SHORT, "vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nöl &amp; &lt;wine&gt;\n\n01:01:01.000 --> 01:01:02.000\nnow"
    )
    assert render(SILENT, "vtt") == "WEBVTT"


def test_a_long_segment_becomes_cues_that_can_be_read():
    cues = [cue.split("\n") for cue in render(LONG, "srt").split("\n\n")]
    assert len(cues) > 3
    assert [cue[0] for cue in cues] == [str(number) for number in range(1, len(cues) + 1)]
    assert all(len(cue) - 2 <= CUE_LINES and max(map(len, cue[2:])) <= LINE_CHARACTERS for cue in cues)
    assert " ".join(line for cue in cues for line in cue[2:]).split() == WORDS
    times = [re.findall(r"00:00:(\d\d),(\d\d\d)", cue[1]) for cue in cues]
    seconds = [[int(whole) + int(part) / 1000 for whole, part in time] for time in times]
    assert seconds[0][0] == 10.0
    assert seconds[-1][1] == 35.0
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(seconds))
    assert all(0.5 < end - start < 12 for start, end in seconds)


def test_a_word_longer_than_a_line_is_not_lost():
    word = "x" * (3 * LINE_CHARACTERS)
    text = render(Transcript(word, [TimedText(0.0, 1.0, word)], False, None), "vtt")
    assert text.count("x") == len(word)


def test_a_format_that_is_none():
    assert set(SUFFIXES) == set(FORMATS)
    with pytest.raises(RecipeError, match=r"format: unknown format 'vt'; did you mean 'vtt'\?"):
        render(SHORT, "vt")
