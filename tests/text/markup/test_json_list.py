"""Entities as JSON: what is written, and what is made of answers that are not well-formed."""

import json
import re

import pytest

from stapes.text.markup.json_list import JSONList
from stapes.types import Entity

JANE = '{"tag": "PERSON", "text": "jane doe"}'
EU = '{"tag": "ORG", "text": "the eu"}'
BOTH = [("PERSON", "jane doe"), ("ORG", "the eu")]


def read(answer: str) -> tuple[list[tuple[str, str]], int]:
    found = JSONList().read(answer)
    assert found.text == "" and {(each.start, each.end) for each in found.entities} <= {(-1, -1)}
    return [(each.label, each.phrase) for each in found.entities], found.repairs


def test_an_answer():
    text = "jane doe and the eu"
    entities = [Entity("ORG", 13, 19, "the eu"), Entity("PERSON", 0, 8, "jane doe")]
    answer = JSONList().write(text, entities)
    assert answer == f"[{JANE}, {EU}]"
    assert json.loads(answer) == [{"tag": tag, "text": phrase} for tag, phrase in BOTH]
    assert read(answer) == (BOTH, 0)
    assert (JSONList().write(text, []), read("[]")) == ("[]", ([], 0))


def test_nested_entities_are_all_written():
    entities = [Entity("PLACE", 4, 6, "uk"), Entity("ORG", 0, 12, "the uk party")]
    assert read(JSONList().write("the uk party", entities)) == ([("ORG", "the uk party"), ("PLACE", "uk")], 0)


def test_a_phrase_needs_no_escapes():
    answer = JSONList().write('the "iron\tlady" \\ \x07 élan', [Entity("PERSON", 0, 24, "")])
    assert answer == '[{"tag": "PERSON", "text": "the \'iron lady\' / élan"}]'
    assert read(answer) == ([("PERSON", "the 'iron lady' / élan")], 0)


@pytest.mark.parametrize(
    ("answer", "entities", "repairs"),
    [
        pytest.param(f"Sure! Here it is: [{JANE}, {EU}] Anything else?", BOTH, 1, id="text around it"),
        pytest.param(f"```json\n[{JANE},\n {EU}]\n```", BOTH, 1, id="a fence around it"),
        pytest.param(f"{JANE}\n{EU}", BOTH, 1, id="no list"),
        pytest.param(f"[{JANE}, {EU}", BOTH, 1, id="cut off behind an object"),
        pytest.param(f"[{JANE}, {EU[:-5]}", [("PERSON", "jane doe"), ("ORG", "the")], 1, id="cut off in a phrase"),
        pytest.param(f"[{JANE}, {EU[:10]}", BOTH[:1], 1, id="cut off in a tag"),
        pytest.param('[{"text":"jane doe","tag":"PERSON"},{"tag":"ORG","text":"the eu"}]', BOTH, 2, id="another form"),
        pytest.param('[{"tag": "person", "text": "jane doe"}, {"tag": "OGR", "text": "the eu"}]', BOTH[:1], 2, id="tags"),
        pytest.param('[{"tag": "GPE", "text": "uk"}, {"tag": "ANIMAL", "text": "dog"}]', [("PLACE", "uk")], 2, id="other tags"),
        pytest.param('[{"tag": "ORG", "text": "  "}, {"tag": "ORG"}, {}]', [], 3, id="no phrase"),
        pytest.param('[{"tag": "ORG", "text": "the \\"eu\\""}]', [("ORG", 'the "eu"')], 1, id="escapes"),
        pytest.param('[{"tag": "ORG", "text": "the \\u00"}]', [("ORG", "the \\u00")], 1, id="broken escapes"),
        pytest.param('[{"tag": 5, "text": null}]', [], 1, id="no strings"),
        pytest.param("[" * 100_000, [], 1, id="deep"),
        pytest.param("jane doe met the eu", [], 1, id="no JSON"),
        pytest.param("", [], 1, id="nothing"),
    ],
)
def test_answers_that_are_mended(answer: str, entities: list[tuple[str, str]], repairs: int):
    assert read(answer) == (entities, repairs)


def test_the_grammar():
    grammar = re.compile(JSONList(["ORG"]).grammar("[a-z']"))
    for answer in ("[]", f"[{EU}]", f"[{EU}, {EU}]"):
        assert grammar.fullmatch(answer), answer
    for answer in (
        "",
        "[ ]",
        EU,
        f"[{EU},{EU}]",
        f"[{JANE}]",
        '[{"tag": "ORG", "text": ""}]',
        '[{"tag": "ORG", "text": " a"}]',
    ):
        assert not grammar.fullmatch(answer), answer


def test_nothing_in_it_is_heard():
    assert JSONList().listen("", f"[{JANE}]") == ("", "")
