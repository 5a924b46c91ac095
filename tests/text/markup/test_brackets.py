"""Entities in brackets: what is written, and what is made of answers that are not well-formed."""

import re

import pytest

from stapes.text.markup.brackets import Brackets
from stapes.text.tags import RAW
from stapes.types import Entity

TEXT = "we met jane doe of the european parliament in iceland's capital"


def entity(label: str, phrase: str, text: str = TEXT) -> Entity:
    start = text.index(phrase)
    return Entity(label, start, start + len(phrase), phrase)


def read(answer: str, markup: Brackets | None = None) -> tuple[str, list[tuple[str, str]], int]:
    found = (markup or Brackets()).read(answer)
    return found.text, [(each.label, each.phrase) for each in found.entities], found.repairs


def test_an_answer():
    entities = [entity("PLACE", "iceland"), entity("PERSON", "jane doe"), entity("ORG", "european parliament")]
    answer = "we met [PERSON jane doe] of the [ORG european parliament] in [PLACE iceland]'s capital"
    assert Brackets().write(TEXT, entities) == answer
    found = Brackets().read(answer)
    assert (found.text, found.repairs) == (TEXT, 0)
    assert found.entities == tuple(sorted(entities, key=lambda each: each.start))


def test_of_nested_entities_the_outer_is_written():
    entities = [entity("NORP", "european"), entity("ORG", "the european parliament"), entity("PERSON", "jane")]
    assert Brackets().write(TEXT, entities) == (
        "we met [PERSON jane] doe of [ORG the european parliament] in iceland's capital"
    )


def test_brackets_in_a_text_become_round():
    text = "he [the chair]  said [sic]"
    answer = Brackets().write(text, [entity("PERSON", "[the chair]", text)])
    assert answer == "he [PERSON (the chair)] said (sic)"
    assert read(answer) == ("he (the chair) said (sic)", [("PERSON", "(the chair)")], 0)


@pytest.mark.parametrize(
    ("answer", "text", "entities", "repairs"),
    [
        pytest.param("met [PERSON jane do", "met jane do", [("PERSON", "jane do")], 1, id="cut off in an entity"),
        pytest.param("met jane [PERS", "met jane", [], 1, id="cut off in a tag"),
        pytest.param(
            "[PERSON jane met [ORG the eu] too",
            "jane met the eu too",
            [("PERSON", "jane met"), ("ORG", "the eu")],
            1,
            id="never closed",
        ),
        pytest.param("jane doe] met ]", "jane doe met", [], 2, id="closings too many"),
        pytest.param("[ORG the [PLACE uk] party] met", "the uk party met", [("ORG", "the uk party")], 1, id="nested"),
        pytest.param("[ORG [PLACE uk] party]", "uk party", [("ORG", "uk party")], 1, id="nested at the start"),
        pytest.param("[FOO the [PLACE uk] party]", "the uk party", [("PLACE", "uk")], 1, id="nested in an unknown tag"),
        pytest.param("a [PERSON] b [PERSON ] c [] d", "a b c d", [], 3, id="empty"),
        pytest.param("[person jane] met", "jane met", [("PERSON", "jane")], 1, id="lower case"),
        pytest.param("[PERSN jane] met", "jane met", [("PERSON", "jane")], 1, id="misspelt"),
        pytest.param("[PERSON: jane] met", "jane met", [("PERSON", "jane")], 1, id="with a colon"),
        pytest.param("[GPE brussels] and", "brussels and", [("PLACE", "brussels")], 1, id="a raw tag"),
        pytest.param("[EVENT easter] and", "easter and", [], 1, id="a discarded tag"),
        pytest.param("[ANIMAL a dog] and", "a dog and", [], 1, id="unknown"),
        pytest.param("x [jane doe] and[ doe]", "x jane doe and doe", [], 2, id="no tag"),
        pytest.param("[ PERSON jane ] and", "jane and", [("PERSON", "jane")], 1, id="spaces within"),
        pytest.param("  we  met [PERSON   jane]\n", "we met jane", [("PERSON", "jane")], 0, id="white space"),
        pytest.param("[[[", "", [], 3, id="openings only"),
        pytest.param("", "", [], 0, id="nothing"),
    ],
)
def test_answers_that_are_mended(answer: str, text: str, entities: list[tuple[str, str]], repairs: int):
    assert read(answer) == (text, entities, repairs)


def test_a_tag_that_could_be_two_is_none():
    raw = Brackets(RAW)
    assert read("[RDINAL first]", raw) == ("first", [], 1)
    assert read("[CARDINA first]", raw) == ("first", [("CARDINAL", "first")], 1)


def test_the_grammar():
    grammar = re.compile(Brackets(["ORG", "PLACE"]).grammar("[a-z']"))
    for answer in ("", "a b", "[ORG the eu]'s", "in[PLACE uk][ORG x y]"):
        assert grammar.fullmatch(answer), answer
    for answer in (" a", "a  b", "[ORG]", "[ORG ]", "[ORG a ]", "[LAW a]", "a]", "[ORG a [PLACE b]]", "A", "5"):
        assert not grammar.fullmatch(answer), answer
