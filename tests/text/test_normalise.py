import re
import unicodedata

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.errors import RecipeError
from stapes.text import normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "hello world"),
        ("  two\twords\n", "two words"),
        ("It\u2019s the citizens\u02bc turn, rock \uff07n\uff07 roll", "it's the citizens' turn rock 'n' roll"),
        ("get 'em ' now", "get 'em ' now"),
        ("he said \u2018no\u2019", "he said no'"),
        ("10% of 3.5 e.g. well-known snake_case", "10 of 3 5 e g well known snake case"),
        ("Café", "café"),
        ("CAFE\u0301", "café"),
        ("Łódź, Straße — ΑΒΓ", "łódź straße αβγ"),
        ("हिन्दी में", "हिन्दी में"),
        ("one 1\ufe0f\u20e3 heart \u2764\ufe0f", "one 1 heart"),
        ("\u0301alone", "alone"),
        ("", ""),
        ("?!…", ""),
    ],
)
def test_slue_of_known_texts(text, expected):
    assert normalise.slue(text) == expected


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_slue_of_ascii_is_its_one_line_definition(text):
    assert normalise.slue(text) == " ".join(re.sub(r"[^a-z0-9']", " ", text.lower()).split())


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_both_paths_of_slue_agree(text):
    """A letter outside ASCII at the end sends the text through the general path."""
    assert normalise.slue(text + " é") == (normalise.slue(text) + " é").strip()


@given(st.text())
def test_slue_applied_twice_changes_nothing_and_keeps_only_words(text):
    once = normalise.slue(text)
    assert normalise.slue(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert all(c.isalnum() or c in "' " or unicodedata.category(c) in ("Mn", "Mc") for c in once)
    assert "  " not in once and once == once.strip()


def test_none_collapses_white_space_only():
    assert normalise.get("none")(" Mr.  O\u2019Neill,\n10% ") == "Mr. O\u2019Neill, 10%"


def test_whisper_english_rewrites_numbers_contractions_and_titles():
    text = "Um, Mr. Smith doesn't owe [laughs] twenty-five dollars."
    assert normalise.get("whisper-en")(text) == "mister smith does not owe $25"


def test_whisper_english_has_no_spelling_map_and_says_so():
    assert normalise.get("whisper-en")("colour") == "colour"
    assert "no-spelling-map" in normalise.version("whisper-en")


def test_whisper_basic_keeps_accents():
    assert normalise.get("whisper-basic")("Où est-il (rires) ?") == "où est il"


def test_bare_is_what_jiwer_makes_of_a_text():
    text = "  Well—don't, e.g. the  CO2-tax (10%)! "
    rules = jiwer.Compose([jiwer.ToLowerCase(), jiwer.RemovePunctuation(), jiwer.Strip(), jiwer.RemoveMultipleSpaces()])
    assert normalise.get("bare")(text) == rules(text) == "welldont eg the co2tax 10"


@pytest.mark.parametrize("name", normalise.NORMALISERS)
def test_every_normaliser_has_a_version_and_strips(name):
    assert normalise.version(name).startswith("v1")
    assert normalise.get(name)("  one  word ") == normalise.get(name)("one word")
    assert normalise.get(name)(" ") == ""


def test_unknown_name_offers_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'slue'"):
        normalise.get("sleu")
    with pytest.raises(RecipeError, match="known: bare, none, slue, whisper-basic, whisper-en"):
        normalise.version("zzz")
