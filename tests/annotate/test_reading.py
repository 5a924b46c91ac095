import pytest

from stapes.annotate.reading import Reading, mapped
from stapes.errors import DataError
from stapes.types import Entity


@pytest.fixture
def both(said):
    raw = "In 2008, the EU met."
    return said("in two thousand and eight the eu met", ("GPE", "eu"), ("DATE", "two thousand and eight"), raw_text=raw)


def test_each_reading_shows_its_text_and_its_entities(both):
    shown = {kind: Reading.learn(kind, [both]) for kind in ("text", "raw", "truecased")}
    assert shown["text"].text(both) == both.text
    assert shown["raw"].text(both) == both.raw_text
    assert shown["truecased"].text(both) == "in two thousand and eight the EU met"
    phrases = {kind: [entity.phrase for entity in reading.entities(both)] for kind, reading in shown.items()}
    assert phrases == {
        "text": ["two thousand and eight", "eu"],
        "raw": ["2008", "EU"],
        "truecased": ["two thousand and eight", "EU"],
    }


def test_raw_entities_of_people_are_taken_as_they_are(said):
    found = said("the eu met", ("GPE", "eu"), raw_text="The EU met.", raw_entities=(Entity("ORG", 4, 6, "EU"),))
    assert Reading.learn("raw", [found]).entities(found) == [Entity("ORG", 4, 6, "EU")]


def test_an_utterance_without_raw_text_is_read_with_capitals(both, said):
    reading = Reading.learn("raw", [both])
    alone = said("the eu left")
    assert not reading.is_raw(alone)
    assert reading.text(alone) == "the EU left"


def test_a_text_with_capitals_is_one_that_a_person_wrote(said):
    written = said("Then Jane left Paris", ("PERSON", "Jane"))  # how the first word is written says nothing of it
    reading = Reading.learn("raw", [written])
    assert reading.is_raw(written)
    assert reading.text(written) == "Then Jane left Paris"
    assert [entity.phrase for entity in reading.entities(written)] == ["Jane"]
    assert reading.text(said("jane saw paris")) == "Jane saw Paris"


@pytest.mark.parametrize("kind", ["raw", "truecased"])
def test_capitals_have_to_be_learnt_from_something(said, kind):
    with pytest.raises(DataError, match=rf"--reads {kind}: no utterance is written with capitals.*--case-from"):
        Reading.learn(kind, [said("text")])


def test_entities_without_a_place_are_left_out():
    entities = [Entity("CARDINAL", 0, 3, "two"), Entity("GPE", 13, 18, "paris")]
    assert mapped(entities, "two thousand paris", "2000, Paris") == (Entity("GPE", 6, 11, "Paris"),)
