from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.annotate.backends.base import Answer
from stapes.annotate.label import Plan, apply
from stapes.annotate.quality import Rates, compare, count, total
from stapes.annotate.reading import Reading, Reads
from stapes.errors import DataError
from stapes.types import Entity, Utterance


def labels(*pairs: tuple[str, str]) -> Answer:
    return Answer({"entities": [{"tag": tag, "phrase": phrase} for tag, phrase in pairs]})


@pytest.fixture
def compared(said):
    """Five utterances, one without an answer: worked out by hand in the tests."""
    human = [
        said("in london and paris on monday", ("GPE", "london"), ("GPE", "paris"), ("DATE", "monday"), name="a"),
        said("the eu and the us", ("GPE", "eu"), name="b"),
        said("the olympic games", ("EVENT", "olympic games"), name="c"),
        said("last monday", ("DATE", "last monday"), name="d"),
        said("nobody answers", name="e"),
    ]
    answers = {
        "a": labels(("GPE", "london"), ("PLANET", "paris"), ("DATE", "tuesday")),
        "b": labels(("ORG", "eu"), ("LOC", "US")),
        "c": labels(("EVENT", "olympic games")),
        "d": labels(("DATE", "monday")),
        "e": Answer(failure="refused"),
    }
    plan = Plan("ner", Reading("text"))
    return compare(apply(human, plan, answers), human, "ner")


def test_rates_of_every_stage_and_tag_set(compared):
    assert (compared.utterances, compared.unanswered) == (4, 1)
    # Right: london, and in raw tags the olympic games, which the benchmark discards. Filter 1 drops tuesday, filter 2 the
    # planet.
    assert compared.rates == {
        ("before", "combined"): Rates(1, 5, 4),
        ("after filter 1", "combined"): Rates(1, 4, 4),
        ("after filter 2", "combined"): Rates(1, 3, 4),
        ("before", "raw"): Rates(2, 5, 4),
        ("after filter 1", "raw"): Rates(2, 4, 4),
        ("after filter 2", "raw"): Rates(2, 3, 4),
    }
    assert compared.per_tag.keys() == compared.rates.keys()
    assert all(total(compared.per_tag[stage]) == rates for stage, rates in compared.rates.items())
    dates = [compared.per_tag[stage, "raw"]["DATE"] for stage in ("before", "after filter 1", "after filter 2")]
    assert dates == [Rates(0, 2, 2), Rates(0, 1, 2), Rates(0, 1, 2)]
    planets = [stage for stage, tag_set in compared.per_tag if "PLANET" in compared.per_tag[stage, tag_set]]
    assert planets == ["before", "after filter 1"] * 2
    assert compared.per_tag["after filter 2", "combined"]["PLACE"] == Rates(1, 1, 2)
    assert compared.per_tag["after filter 2", "raw"]["LOC"] == Rates(0, 1, 0)
    assert "EVENT" not in compared.per_tag["after filter 2", "combined"]


def lost(answer: Answer, human: Utterance, reads: Reads = "text") -> list[tuple[str, str, bool | None]]:
    plan = Plan("ner", Reading.learn(reads, [human]))
    found = compare(apply([human], plan, {human.id: answer}), [human], "ner").rejected
    return [(each["reason"], each["phrase"], each["lost"]) for each in found]


def test_a_rejected_label_is_lost_if_people_have_it(said):
    human = said("there he met under secretary obama in the end", ("LAW", "under"), ("PERSON", "obama"))
    answer = labels(("law", "Under"), ("GPE", "the"), ("PERSON", "obama"), ("PERSON", "obama"), ("PERSON", "paris"))
    assert lost(answer, human) == [
        ("stop words only", "Under", True),
        ("stop words only", "the", False),
        ("claimed more often than it occurs", "obama", False),  # people have one, and one is kept
        ("not in the transcript", "paris", False),
    ]


def test_a_label_is_lost_as_often_as_people_have_it(said):
    human = said("there", ("GPE", "there"))
    assert lost(labels(*[("GPE", "there")] * 2), human) == [
        ("stop words only", "there", True),
        ("claimed more often than it occurs", "there", False),
    ]


def test_what_was_read_in_the_raw_text_is_sought_among_peoples_raw_entities(said):
    raw = (Entity("GPE", 4, 6, "EU"),)
    human = said("we met", raw_text="We, EU, met.", raw_entities=raw)
    assert lost(labels(("GPE", "EU")), human, "raw") == [("cannot be mapped to the text", "EU", True)]


def test_what_people_did_not_label_is_neither_lost_nor_not(said):
    rows = [said("he met", name="a"), said("he met", name="b")]
    answers = {"a": labels(("GPE", "he")), "b": labels(("GPE", "he"))}
    found = compare(apply(rows, Plan("ner", Reading("text")), answers), rows[:1], "ner")
    assert [(each["id"], each["stage"], each["lost"]) for each in found.rejected] == [("a", 2, False), ("b", 2, None)]


def test_errors_say_what_was_wrong_and_where(compared):
    found = [(each["id"], each["kind"], each["human"], each["annotator"]) for each in compared.errors]

    def label(tag: str, phrase: str) -> dict[str, str]:
        return {"tag": tag, "phrase": phrase}

    assert found == [
        ("a", "missed", label("GPE", "paris"), None),
        ("a", "missed", label("DATE", "monday"), None),
        ("b", "other tag", label("GPE", "eu"), label("ORG", "eu")),
        ("b", "invented", None, label("LOC", "us")),
        ("d", "other words", label("DATE", "last monday"), label("DATE", "monday")),
    ]
    assert compared.errors[0]["text"] == "in london and paris on monday"


def test_percentages():
    assert (Rates(3, 1, 2).precision, Rates(3, 1, 2).recall) == (75.0, 60.0)
    assert Rates(3, 1, 2).f1 == pytest.approx(66.6667, abs=1e-4)
    assert (Rates(0, 0, 0).precision, Rates(0, 0, 0).recall, Rates(0, 0, 0).f1) == (0.0, 0.0, 0.0)


PAIRS = st.lists(st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from("xyz")), max_size=5), min_size=3, max_size=3)


@given(PAIRS, PAIRS)
def test_counts_are_those_of_numbered_sets(references, hypotheses):
    """As the official toolkit counts: equal entities are numbered, then sets are intersected."""

    def numbered(pairs):
        seen: Counter = Counter()
        for pair in pairs:
            seen[pair] += 1
            yield (*pair, seen[pair])

    sides = list(zip(map(set, map(numbered, references)), map(set, map(numbered, hypotheses)), strict=True))
    found = total(count(references, hypotheses))
    assert found.hits == sum(len(expected & there) for expected, there in sides)
    assert found.invented == sum(len(there - expected) for expected, there in sides)
    assert found.missed == sum(len(expected - there) for expected, there in sides)


def test_sentiments(said):
    human = [said(f"{n}", name=f"{n}", sentiment=found) for n, found in enumerate(["Positive", "Neutral", "mixed", "Negative"])]
    claimed = ["Positive", "Negative", "Neutral", "awful"]
    answers = {f"{n}": Answer({"sentiment": claim}) for n, claim in enumerate(claimed)}
    found = compare(apply(human, Plan("sentiment", Reading("text")), answers), human, "sentiment")
    assert found.rates["before", "sentiment"] == Rates(2, 2, 2)
    assert found.rates["after filter 2", "sentiment"] == Rates(2, 1, 2)
    assert found.macro_f1["after filter 2"] == pytest.approx((100 + 200 / 3 + 0) / 3)
    assert [(each["id"], each["kind"]) for each in found.errors] == [("1", "other tag"), ("3", "missed")]


def test_nothing_to_compare_with_is_an_error(said):
    rows = [said("text", name="a")]
    found = apply(rows, Plan("ner", Reading("text")), {"a": labels()})
    for human in ([said("text", name="b")], [said("text", name="a", entities=None)]):
        with pytest.raises(DataError, match="--quality: no utterance of these ids is labelled"):
            compare(found, human, "ner")
