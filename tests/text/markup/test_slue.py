"""SLUE's special characters: what is written, and what is made of answers that are not well-formed."""

import re

import pytest

from stapes.text.markup.slue import CHARACTERS, Slue
from stapes.text.tags import COMBINED
from stapes.types import Entity

TEXT = "jane doe said in ireland's capital"
ENTITIES = (Entity("PERSON", 0, 8, "jane doe"), Entity("PLACE", 17, 24, "ireland"))


def read(answer: str) -> tuple[str, list[tuple[str, str]], int]:
    found = Slue().read(answer)
    return found.text, [(each.label, each.phrase) for each in found.entities], found.repairs


def test_an_answer():
    answer = "$ jane doe ] said in % ireland ]'s capital"
    assert Slue().write(TEXT, ENTITIES) == answer
    found = Slue().read(answer)
    assert (found.text, found.entities, found.repairs) == (TEXT, ENTITIES, 0)


def test_every_combined_tag_has_a_character_of_its_own():
    assert set(CHARACTERS) == set(COMBINED)
    for tag in COMBINED:
        answer = Slue().write("a b", [Entity(tag, 0, 1, "a")])
        assert read(answer) == ("a b", [(tag, "a")], 0)
    assert len({*CHARACTERS.values(), "]"}) == 8


def test_special_characters_in_a_text_become_spaces():
    text = "AT&T pays 10% [more]!"
    answer = Slue().write(text, [Entity("ORG", 0, 4, "AT&T"), Entity("QUANT", 10, 13, "10%"), Entity("LAW", 20, 21, "!")])
    assert answer == "# AT T ] pays ^ 10 ] [more"
    assert read(answer) == ("AT T pays 10 [more", [("ORG", "AT T"), ("QUANT", "10")], 0)


@pytest.mark.parametrize(
    ("answer", "text", "entities", "repairs"),
    [
        pytest.param("met $ jane do", "met jane do", [("PERSON", "jane do")], 1, id="cut off in an entity"),
        pytest.param("met $", "met", [], 1, id="cut off behind a character"),
        pytest.param(
            "$ jane met # the eu ] too",
            "jane met the eu too",
            [("PERSON", "jane met"), ("ORG", "the eu")],
            1,
            id="never closed",
        ),
        pytest.param("jane ] met", "jane met", [], 1, id="a closing too many"),
        pytest.param("# the % uk ] party ] met", "the uk party met", [("ORG", "the uk party")], 1, id="nested"),
        pytest.param("a $ ] b $] c", "a b c", [], 2, id="empty"),
        pytest.param("$jane] met", "jane met", [("PERSON", "jane")], 1, id="spaces forgotten"),
        pytest.param("x y%", "x y", [], 1, id="a character alone"),
    ],
)
def test_answers_that_are_mended(answer: str, text: str, entities: list[tuple[str, str]], repairs: int):
    assert read(answer) == (text, entities, repairs)


def test_tags_outside_the_inventory_are_taken_out():
    found = Slue(["PERSON"]).read("$ jane ] in % ireland ]")
    assert (found.text, [each.label for each in found.entities], found.repairs) == ("jane in ireland", ["PERSON"], 1)


def test_the_grammar():
    grammar = re.compile(Slue(["ORG", "QUANT"]).grammar("[a-z']"))
    for answer in ("", "a b", "# the eu ]'s", "in^ uk ]# x y ]"):
        assert grammar.fullmatch(answer), answer
    for answer in (" a", "#", "# ]", "# a]", "#a ]", "$ a ]", "a ]", "# a ^ b ] ]"):
        assert not grammar.fullmatch(answer), answer
