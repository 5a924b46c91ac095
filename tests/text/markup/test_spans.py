"""Spans follow their letters through a normaliser, and of those that overlap one stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.errors import RecipeError
from stapes.text import normalise
from stapes.text.markup import normalise_marked
from stapes.text.markup.spans import outermost
from stapes.types import Entity


def spans(text: str, *found: tuple[str, str]) -> list[Entity]:
    """Entities (label, phrase) of a text, each phrase where it first occurs."""
    return [Entity(label, text.index(phrase), text.index(phrase) + len(phrase), phrase) for label, phrase in found]


@pytest.mark.parametrize(
    ("text", "phrase", "normalised", "expected"),
    [
        ("In  Brussels, Jane  Doe said", "Jane  Doe", "in brussels jane doe said", "jane doe"),
        ("across Iceland's coast.", "Iceland", "across iceland's coast", "iceland"),
        ("(U.S. troops)", "(U.S.", "u s troops", "u s"),
        ("costs 3.5% more", "3.5%", "costs 3 5 more", "3 5"),
        ("the U.S. troops", "S", "the u s troops", "s"),
        ("Straße\u2019s end, Łódź", " Łódź", "straße's end łódź", "łódź"),
        pytest.param("in İzmir twice", "zmir twice", "in i̇zmir twice", "zmir twice", id="lower case is longer"),
        pytest.param("ΑΣΑ", "ΑΣ", "ασα", "ας"[:1] + "σ", id="the end of a span is not the end of a word"),
        pytest.param("cafe\u0301s", "cafe", "cafés", "café", id="an accent behind the span"),
        pytest.param("हिन्दी में", "में", "हिन्दी में", "में", id="vowel signs"),
    ],
)
def test_known_spans(text: str, phrase: str, normalised: str, expected: str):
    found = normalise_marked(text, spans(text, ("ORG", phrase)), "slue")
    start = normalised.index(expected)
    assert found == (normalised, (Entity("ORG", start, start + len(expected), expected),))


def test_a_span_without_letters_disappears():
    text = "well... [noise] yes"
    assert normalise_marked(text, spans(text, ("ORG", "..."), ("LAW", "yes"), ("ORG", " ")), "slue") == (
        "well noise yes",
        (Entity("LAW", 11, 14, "yes"),),
    )


def test_nothing_but_white_space_moves_without_a_normaliser():
    text = " Mr.  O\u2019Neill,\n10% "
    found = normalise_marked(text, spans(text, ("PERSON", "O\u2019Neill,"), ("QUANT", "\n10% ")), "none")
    assert found == (
        "Mr. O\u2019Neill, 10%",
        (Entity("PERSON", 4, 12, "O\u2019Neill,"), Entity("QUANT", 13, 16, "10%")),
    )


# Letters of four scripts, digits, punctuation, white space; no marks that join the letter before them.
PIECES = st.lists(st.text(alphabet="aBéŁßΣσя日5'’., -\t%["), min_size=1, max_size=9)


@given(PIECES, st.sampled_from(["none", "slue"]))
def test_the_letters_of_each_piece_are_where_its_span_is(pieces: list[str], normaliser: str):
    """The whole is normalised as a whole; each piece, normalised alone, has the same letters, in order and without gaps."""
    clean = normalise.get(normaliser)
    text, start, entities = "".join(pieces), 0, []
    for number, piece in enumerate(pieces):
        entities.append(Entity(str(number), start, start + len(piece), piece))
        start += len(piece)
    whole, moved = normalise_marked(text, entities, normaliser)
    assert whole == clean(text)
    assert all(whole[each.start : each.end] == each.phrase == each.phrase.strip() != "" for each in moved)
    assert "".join(each.phrase for each in moved).replace(" ", "") == whole.replace(" ", "")
    letters = {each.label: each.phrase for each in moved}
    for number, piece in enumerate(pieces):
        # Whether a sigma ends a word is seen in the whole only.
        expected, found = (each.replace("ς", "σ") for each in (clean(piece), letters.get(str(number), "")))
        assert found.replace(" ", "") == expected.replace(" ", "")


@given(st.text(), st.integers(0, 20), st.integers(0, 20))
def test_any_span_of_any_text(text: str, start: int, end: int):
    start, end = sorted((min(start, len(text)), min(end, len(text))))
    for normaliser in ("none", "slue"):
        whole, moved = normalise_marked(text, [Entity("ORG", start, end, text[start:end])], normaliser)
        assert whole == normalise.get(normaliser)(text)
        assert all(whole[each.start : each.end] == each.phrase == each.phrase.strip() != "" for each in moved)


def test_a_normaliser_that_rewrites_words_is_refused():
    with pytest.raises(RecipeError, match=r"normaliser: 'whisper-en' rewrites words.*expected 'none' or 'slue'"):
        normalise_marked("twenty five", [], "whisper-en")
    with pytest.raises(RecipeError, match="did you mean 'slue'"):
        normalise_marked("twenty five", [], "slu")


def test_of_overlapping_spans_the_outer_or_the_first_stays():
    bank, england, of_england = (
        Entity("ORG", 4, 19, "bank of england"),
        Entity("PLACE", 12, 19, "england"),
        Entity("LAW", 9, 19, ""),
    )
    later, crossing = Entity("WHEN", 20, 25, "today"), Entity("WHEN", 15, 25, "land today")
    assert outermost([later, england, bank, of_england]) == [bank, later]
    assert outermost([crossing, bank]) == [bank]
    assert outermost([england, Entity("ORG", 12, 19, "england")]) == [england]
