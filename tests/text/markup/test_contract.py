"""What every markup in the table promises, whatever it is given."""

import itertools
import re
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stapes.errors import DataError, RecipeError
from stapes.text.markup import MARKUPS, Markup, normalise_marked
from stapes.text.tags import COMBINED, RAW
from stapes.types import Entity

INVENTORIES = [
    ("brackets", tuple(COMBINED)),
    ("brackets", RAW),
    ("slue", tuple(COMBINED)),
    ("json", tuple(COMBINED)),
    ("json", RAW),
]
BUILT: list[Markup] = [MARKUPS.build({"name": name, "tags": tags}) for name, tags in INVENTORIES]
BY_NAME: dict[str, Markup] = {name: MARKUPS.build({"name": name}) for name in MARKUPS}

# Answers, well-formed and not: pieces of every markup, in any order, and anything at all.
# fmt: off
FRAGMENTS = ["[", "]", " ", "  ", "\n", "jane", "é", "O'N", "5%", "[PERSON ", "[person ", "[PERSN ", "[FOO ", "[ORG x]"]
FRAGMENTS += ["PLACE", "$", "$ ", " ]", "! ", "& mon ]", '{"tag": "', '", "text": "', '"}', ", ", "[{", "}]", "\\", '\\"']
FRAGMENTS += ["\\u00", "{", '{"tag": "ORG", "text": "the eu"}']
# fmt: on
ANSWERS = st.one_of(st.text(), st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))


@st.composite
def marked(draw: st.DrawFn, alphabet: str, labels: Sequence[str]) -> tuple[str, list[Entity]]:
    """A text and spans of it that are not empty; they may overlap."""
    text = draw(st.text(alphabet=alphabet, max_size=30))
    ends = st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(sorted).filter(lambda pair: pair[0] < pair[1])
    pairs = draw(st.lists(ends, max_size=4)) if text else []
    return text, [Entity(draw(st.sampled_from(labels)), start, end, text[start:end]) for start, end in pairs]


def words_of(markup: Markup) -> str:
    """The largest class of words."""
    return rf"[^\s{re.escape(markup.reserved)}]"


def heard(markup: Markup, chunks: Sequence[str]) -> str:
    state, spoken = "", ""
    for chunk in chunks:
        state, letters = markup.listen(state, chunk)
        spoken += letters
    return spoken


def test_the_table():
    assert set(MARKUPS) == {"brackets", "slue", "json"}
    assert all(markup.name == name and markup.tags == tuple(COMBINED) for name, markup in BY_NAME.items())
    assert [name for name, markup in BY_NAME.items() if markup.scores_sound] == ["brackets", "slue"]


@given(answer=ANSWERS)
@example("0[ [")
def test_anything_can_be_read_and_what_is_read_is_consistent(answer: str):
    for markup in BUILT:
        found = markup.read(answer)
        assert found.text == " ".join(found.text.split())
        assert all(each.label in markup.tags for each in found.entities)
        if markup.scores_sound:
            assert all(found.text[each.start : each.end] == each.phrase == each.phrase.strip() != "" for each in found.entities)
            order = [offset for each in found.entities for offset in (each.start, each.end)]
            assert order == sorted(order)


@given(answer=ANSWERS)
@example("")
@example("[ORG the eu]'s x[LAW act]y")
@example("# the eu ]'s x! act ]y")
@example('[{"tag": "ORG", "text": "the eu"}, {"tag": "LAW", "text": "act"}]')
@example("[PERSON ]")
@example("$ ] a")
@example("a  b [ORG x ] c")
def test_nothing_is_mended_exactly_where_the_answer_is_well_formed(answer: str):
    for markup in BUILT:
        well_formed = re.fullmatch(markup.grammar(words_of(markup)), " ".join(answer.split())) is not None
        assert (markup.read(answer).repairs == 0) == well_formed


@given(case=marked("ab'é []$%]\"\\{}!\t5", [*COMBINED, *RAW]))
def test_whatever_is_written_is_well_formed(case: tuple[str, list[Entity]]):
    for markup in BUILT:
        answer = markup.write(*case)
        assert re.fullmatch(markup.grammar(words_of(markup)), answer)
        assert markup.read(answer).repairs == 0


@given(case=marked("ab'é  5\t{}", list(COMBINED)))
def test_what_is_written_is_read_again(case: tuple[str, list[Entity]]):
    """Text without the markup's characters; of entities that overlap, those that begin within another are not asked for."""
    for markup in BY_NAME.values():
        text, entities = normalise_marked(*case, "none")
        apart: list[Entity] = []
        for entity in sorted(entities, key=lambda each: each.start):
            if not apart or entity.start >= apart[-1].end:
                apart.append(entity)
        found = markup.read(markup.write(text, apart))
        if markup.scores_sound:
            assert (found.text, list(found.entities)) == (text, apart)
        else:
            assert found.text == ""
            assert found.entities == tuple(Entity(each.label, -1, -1, each.phrase) for each in apart)


@example("a[  b[", [])
@given(answer=ANSWERS, cuts=st.lists(st.integers(0, 40)))
def test_listening_gives_the_words_that_reading_gives(answer: str, cuts: list[int]):
    for markup in BUILT:
        places = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
        spoken = heard(markup, [answer[start:end] for start, end in itertools.pairwise(places)])
        assert spoken.strip() == markup.read(answer).text
        assert spoken == heard(markup, list(answer))


def test_labels_are_combined_unless_the_inventory_has_them():
    text = "in brussels at the olympics"
    entities = [Entity("GPE", 3, 11, "brussels"), Entity("EVENT", 15, 27, "the olympics")]
    assert BY_NAME["brackets"].write(text, entities) == "in [PLACE brussels] at the olympics"
    assert BY_NAME["slue"].write(text, entities) == "in % brussels ] at the olympics"
    raw = MARKUPS.build({"name": "json", "tags": RAW})
    assert raw.write(text, entities) == '[{"tag": "GPE", "text": "brussels"}, {"tag": "EVENT", "text": "the olympics"}]'
    with pytest.raises(DataError, match=r"entity tag 'PERS'.*did you mean 'PERSON'"):
        BY_NAME["brackets"].write(text, [Entity("PERS", 3, 11, "brussels")])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "brackets", "tags": ["PERSONS"]}, r"markup.tags: 'PERSONS', expected a tag of SLUE; did you mean 'PERSON'\?"),
        ({"name": "json", "tags": ["ORG", "ORG"]}, "expected one tag or more, each once"),
        ({"name": "json", "tags": []}, "expected one tag or more"),
        ({"name": "slue", "tags": ["PERSON", "GPE"]}, "markup.tags: 'GPE', expected a tag with a character: LAW, .*brackets"),
    ],
)
def test_inventories_that_there_are_not(config: dict[str, object], message: str):
    with pytest.raises(RecipeError, match=message):
        MARKUPS.build(config)
