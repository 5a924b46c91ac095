"""Every kind of lost and invented entity, worked out by hand."""

from collections.abc import Callable

import pytest

from stapes.evaluation.evaluate import Evaluation, Prediction
from stapes.evaluation.lost import EntityError, all_entity_errors, by_kind, entity_errors, examples
from stapes.metrics.wer import UtteranceErrors

Pairs = list[tuple[str, str]]
NER = {"name": "ner"}


def prediction(said: str, heard: str, expected: Pairs, found: Pairs) -> Prediction:
    labels = {"reference_entities": expected, "entities": found}
    return Prediction("u", said, heard, None, UtteranceErrors(0, 0, 0, 0), 1.0, False, labels)


SAID = "mr jansen spoke in the european parliament on monday"
LOST: list[tuple[str, str, Pairs, Pairs, list[EntityError]]] = [
    ("found", SAID, [("WHEN", "monday")], [("WHEN", "monday")], []),
    ("not tagged", SAID, [("WHEN", "monday")], [], [EntityError("not_tagged", "WHEN", "monday")]),
    (
        "another tag",
        SAID,
        [("WHEN", "monday")],
        [("PLACE", "monday")],
        [EntityError("other_tag", "WHEN", "monday", "monday", "PLACE")],
    ),
    (
        "less of it",
        SAID,
        [("PERSON", "mr jansen")],
        [("PERSON", "jansen")],
        [EntityError("boundary", "PERSON", "mr jansen", "jansen", "PERSON")],
    ),
    (
        "more than it",
        SAID,
        [("ORG", "european parliament")],
        [("PLACE", "the european parliament")],
        [EntityError("boundary", "ORG", "european parliament", "the european parliament", "PLACE")],
    ),
    (
        "misheard and not tagged",
        SAID.replace("jansen", "johnson"),
        [("PERSON", "mr jansen")],
        [],
        [EntityError("misheard", "PERSON", "mr jansen", "mr johnson")],
    ),
    (
        "misheard and tagged",
        SAID.replace("jansen", "johnson"),
        [("PERSON", "jansen")],
        [("PERSON", "johnson")],
        [EntityError("misheard", "PERSON", "jansen", "johnson", "PERSON")],
    ),
    (
        "one word heard as two",
        SAID.replace("jansen", "jan sen"),
        [("PERSON", "jansen")],
        [],
        [EntityError("misheard", "PERSON", "jansen", "jan sen")],
    ),
    (
        "a word put into it",
        SAID.replace("european parliament", "european uh parliament"),
        [("ORG", "european parliament")],
        [],
        [EntityError("misheard", "ORG", "european parliament", "european uh parliament")],
    ),
    (
        "half of it left out",
        SAID.replace("european ", ""),
        [("ORG", "european parliament")],
        [],
        [EntityError("misheard", "ORG", "european parliament", "parliament")],
    ),
    ("left out", SAID.removesuffix(" on monday"), [("WHEN", "monday")], [], [EntityError("deleted", "WHEN", "monday")]),
    ("nothing heard", "", [("WHEN", "monday")], [], [EntityError("deleted", "WHEN", "monday")]),
    (
        "a word beside it, which is none of it",
        SAID.replace("on monday", "on monday morning"),
        [("WHEN", "monday")],
        [],
        [EntityError("not_tagged", "WHEN", "monday")],
    ),
    (
        "nested, of which the outer is found",
        SAID,
        [("ORG", "european parliament"), ("NORP", "european")],
        [("ORG", "european parliament")],
        [EntityError("not_tagged", "NORP", "european")],
    ),
]


@pytest.mark.parametrize(("heard", "expected", "found", "wanted"), [case[1:] for case in LOST], ids=[case[0] for case in LOST])
def test_lost(heard: str, expected: Pairs, found: Pairs, wanted: list[EntityError]):
    assert entity_errors(prediction(SAID, heard, expected, found), True).lost == wanted


@pytest.mark.parametrize(("heard", "expected", "found", "wanted"), [case[1:] for case in LOST], ids=[case[0] for case in LOST])
def test_invented_are_the_same_from_the_other_side(heard: str, expected: Pairs, found: Pairs, wanted: list[EntityError]):
    assert entity_errors(prediction(heard, SAID, found, expected), True).invented == wanted


def test_of_equal_entities_the_one_that_was_misheard_is_lost():
    """Both are (QUANT, two); the hypothesis has it once, and only where it was heard."""
    said, heard = "two here and two there", "to here and two there"
    (lost,) = entity_errors(prediction(said, heard, [("QUANT", "two")] * 2, [("QUANT", "two")]), True).lost
    assert lost == EntityError("misheard", "QUANT", "two", "to")
    heard = "two here and to there"
    (lost,) = entity_errors(prediction(said, heard, [("QUANT", "two")] * 2, [("QUANT", "two")]), True).lost
    assert lost == EntityError("misheard", "QUANT", "two", "to")
    (lost,) = entity_errors(prediction(said, said, [("QUANT", "two")] * 2, [("QUANT", "two")]), True).lost
    assert lost.kind == "not_tagged"


def test_a_phrase_within_a_word():
    """The corpus may tag "eu" in "the eu's": the word is right if it holds the phrase, with or without its ending."""
    for heard in ("the eu's rules", "the eu rules"):
        assert entity_errors(prediction("the eu's rules", heard, [("ORG", "eu")], []), True).lost == [
            EntityError("not_tagged", "ORG", "eu")
        ]
    assert entity_errors(prediction("the eu's rules", "the use rules", [("ORG", "eu")], []), True).lost == [
        EntityError("misheard", "ORG", "eu", "use")
    ]


def test_a_list_without_a_transcript_is_compared_by_its_phrases():
    expected = [("PERSON", "mr jansen"), ("WHEN", "monday"), ("PLACE", "the hague")]
    found = entity_errors(prediction("", "", expected, [("PERSON", "jansen"), ("PLACE", "monday"), ("ORG", "hag")]), False)
    assert found.lost == [
        EntityError("boundary", "PERSON", "mr jansen", "jansen", "PERSON"),
        EntityError("other_tag", "WHEN", "monday", "monday", "PLACE"),
        EntityError("not_listed", "PLACE", "the hague"),
    ]
    assert [each.kind for each in found.invented] == ["boundary", "other_tag", "not_listed"]


def test_they_are_as_many_as_the_f1_counts(made: Callable[..., Evaluation]):
    rows = [
        {"text": "on monday in Paris and in Paris", "entities": [("DATE", "monday"), ("GPE", "Paris"), ("GPE", "Paris")]},
        {"text": "ten people", "entities": [("CARDINAL", "ten")]},
        {"text": "yes"},
    ]
    evaluation = made(NER, rows, ["on sunday in [PLACE paris] and in [ORG paris]", "ten [PERSON people]", "yes"])
    found, counts = all_entity_errors(evaluation), evaluation.scores["parts"]["ner_f1"]
    assert len(found.lost) == counts["false_negatives"] == 3
    assert len(found.invented) == counts["false_positives"] == 2
    assert by_kind(found.lost) == {"misheard": 1, "other_tag": 1, "not_tagged": 1}
    assert by_kind(found.invented) == {"other_tag": 1, "not_tagged": 1}


def test_a_task_without_entities_loses_none(made: Callable[..., Evaluation]):
    found = all_entity_errors(made({"name": "asr"}, [{"text": "a b"}], ["a"]))
    assert (found.lost, found.invented) == ([], [])


def test_the_most_frequent_examples_of_every_kind_come_first():
    often, once = EntityError("deleted", "WHEN", "monday"), EntityError("deleted", "WHEN", "friday")
    misheard = EntityError("misheard", "PLACE", "ghent", "gent")
    assert examples([once, often, misheard, often], each=1) == [(misheard, 1), (often, 2)]
    assert examples([once, often, misheard, often], each=5) == [(misheard, 1), (often, 2), (once, 1)]
