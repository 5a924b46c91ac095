"""F1 of entities: by hand, against the toolkit's way of counting, and against what it must not depend on."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes.errors import DataError, RecipeError
from stapes.metrics.entities import entity_f1, label_f1, phrases
from stapes.text.normalise import slue
from stapes.types import Entity

PAIRS = st.tuples(st.sampled_from(["PLACE", "WHEN", "ORG"]), st.sampled_from(["eu", "today", "the eu"]))
CORPORA = st.lists(st.tuples(st.lists(PAIRS, max_size=5), st.lists(PAIRS, max_size=5)), min_size=1, max_size=6)


def sides(corpus):
    return [reference for reference, _ in corpus], [hypothesis for _, hypothesis in corpus]


def test_a_case_done_by_hand():
    references = [[("PLACE", "eu"), ("WHEN", "today"), ("PLACE", "eu")], [], [("ORG", "un")]]
    hypotheses = [[("WHEN", "today"), ("PLACE", "eu")], [("ORG", "un")], [("ORG", "the un")]]
    score = entity_f1(references, hypotheses)
    assert score.value == pytest.approx(100 * 2 * 2 / (4 + 4))
    assert score.parts["precision"] == pytest.approx(50.0)
    assert score.parts["recall"] == pytest.approx(50.0)
    assert [score.parts[f"{kind}s"] for kind in ("true_positive", "false_positive", "false_negative")] == [2, 2, 2]
    assert score.parts["utterance_counts"] == [(2, 0, 1), (0, 1, 0), (0, 1, 1)]
    assert score.parts["per_tag"]["PLACE"] == pytest.approx({"precision": 100.0, "recall": 50.0, "f1": 200 / 3, "reference": 2})
    assert score.parts["per_tag"]["ORG"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "reference": 1}
    assert list(score.parts["per_tag"]) == ["ORG", "PLACE", "WHEN"]
    assert score.signature == "ner_f1|avg:micro|tags:combined|norm:slue.v1|n:3"
    labels = label_f1(references, hypotheses, tag_set="raw", normaliser="none")
    assert labels.value == pytest.approx(100 * 2 * 3 / (4 + 4))
    assert labels.parts["utterance_counts"] == [(2, 0, 1), (0, 1, 0), (1, 0, 0)]
    assert labels.signature == "ner_label_f1|avg:micro|tags:raw|norm:none.v1|n:3"


def numbered(pairs):
    """The toolkit's way: equal pairs are numbered, so that sets can hold them."""
    return {(pair, pairs[:position].count(pair)) for position, pair in enumerate(pairs)}


@settings(max_examples=50)
@given(CORPORA)
def test_agrees_with_sets_of_numbered_pairs(corpus):
    references, hypotheses = sides(corpus)
    expected = [numbered(reference) for reference in references]
    found = [numbered(hypothesis) for hypothesis in hypotheses]
    hits = sum(len(one & other) for one, other in zip(expected, found, strict=True))
    precision = hits / max(1, sum(map(len, found)))
    recall = hits / max(1, sum(map(len, expected)))
    score = entity_f1(references, hypotheses, resamples=0)
    assert score.parts["precision"] == pytest.approx(100 * precision)
    assert score.parts["recall"] == pytest.approx(100 * recall)
    assert score.value == pytest.approx(100 * 2 * precision * recall / (precision + recall) if hits else 0.0)
    assert score.parts["true_positives"] == hits


@settings(max_examples=50)
@given(CORPORA, st.randoms(use_true_random=False))
def test_order_changes_nothing(corpus, order: random.Random):
    shuffled = [(order.sample(reference, len(reference)), order.sample(found, len(found))) for reference, found in corpus]
    first, second = entity_f1(*sides(corpus), resamples=20), entity_f1(*sides(shuffled), resamples=20)
    assert first == second
    order.shuffle(shuffled)
    third = entity_f1(*sides(shuffled), resamples=20)
    assert (third.value, third.interval, third.parts["per_tag"]) == (first.value, first.interval, first.parts["per_tag"])


@settings(max_examples=50)
@given(CORPORA)
def test_label_f1_is_never_below_f1(corpus):
    references, hypotheses = sides(corpus)
    labels, whole = label_f1(references, hypotheses, resamples=0), entity_f1(references, hypotheses, resamples=0)
    assert labels.value >= whole.value
    sizes = [[(tp + fn, tp + fp) for tp, fp, fn in score.parts["utterance_counts"]] for score in (labels, whole)]
    assert sizes[0] == sizes[1]


@settings(max_examples=50)
@given(st.lists(st.lists(PAIRS, max_size=5), min_size=1, max_size=5).filter(any))
def test_everything_found_is_a_hundred_and_a_repeat_is_an_error(references):
    perfect = entity_f1(references, references, resamples=10)
    assert perfect.value == 100.0
    assert perfect.interval == (100.0, 100.0)
    doubled = [utterance + utterance[:1] for utterance in references]
    assert entity_f1(references, doubled, resamples=0).parts["false_positives"] == sum(map(bool, references))
    assert entity_f1(doubled, references, resamples=0).parts["false_negatives"] == sum(map(bool, references))


def test_no_entity_anywhere_is_zero_without_an_interval():
    score = entity_f1([[], []], [[], []])
    assert (score.value, score.interval, score.parts["per_tag"]) == (0.0, None, {})
    assert entity_f1([[], []], [[], [("ORG", "un")]]).interval == (0.0, 0.0)


def test_the_interval_is_that_of_redrawn_utterances():
    draw = random.Random(1)
    tags = ["A", "B", "C"]
    references = [[(draw.choice(tags), draw.choice("xyz")) for _ in range(draw.randrange(4))] for _ in range(60)]
    hypotheses = [[pair if draw.random() < 0.7 else ("A", "w") for pair in utterance] for utterance in references]
    score = entity_f1(references, hypotheses, resamples=4000)
    values = []
    for _ in range(4000):
        rows = draw.choices(score.parts["utterance_counts"], k=60)
        hits, invented, missed = (sum(column) for column in zip(*rows, strict=True))
        values.append(100 * 2 * hits / (2 * hits + invented + missed))
    values.sort()
    assert score.interval == pytest.approx((values[100], values[3900]), abs=1.0)
    assert score.interval[0] < score.value < score.interval[1]


# -- phrases ---------------------------------------------------------------------------------------------------------------


def entities(*labelled: tuple[str, str]) -> list[Entity]:
    return [Entity(label, 0, len(phrase), phrase) for label, phrase in labelled]


def test_tags_are_combined_or_left_and_phrases_normalised():
    found = entities(("GPE", "the  EU."), ("EVENT", "brexit"), ("ORDINAL", "first"), ("PLACE", "London"), ("LAW", "?!"))
    assert phrases(found) == [("PLACE", "the eu"), ("QUANT", "first"), ("PLACE", "london")]
    assert phrases(found, "raw", "none")[:3] == [("GPE", "the EU."), ("EVENT", "brexit"), ("ORDINAL", "first")]
    assert phrases([]) == []


def test_what_is_wrong_with_an_entity_is_said():
    with pytest.raises(DataError, match="entity tag 'PERS'"):
        phrases(entities(("PERS", "x")), "raw")
    with pytest.raises(RecipeError, match="unknown normaliser 'sleu'"):
        phrases([], normaliser="sleu")
    with pytest.raises(RecipeError, match="tag_set: 'all', expected combined or raw"):
        phrases([], "all")


def official(phrase: str) -> str:
    """What the toolkit's preparation makes of an entity's words, in its rules as they are described in entities.py."""
    words = []
    for word in "".join(character for character in phrase if character not in ".,!?;").split():
        word = word[:-1] if word.endswith("'") else word
        *before, last = word.split("'")
        words += [word] if not before or word == "'s" else [*before, f"'{last}"]
    return " ".join(words)


REALISTIC = """eu european union the european union|european people's party|group of the european people's party|o'brien
denis o'brien|three o'clock|ba'athist|cte d'ivoire|zimbabwe's constitution|citizens' energy forum|dieselgate' scandal
over. two five million|over two five million|eur. one two billion|eur one two billion|eur one three. billion|mid. two thousand
mid two thousand|amendment. two hundred and fifty three|amendment two hundred and fifty three|two thousand. and eleven
two thousand and eleven|december. two thousand and nine|today|today.|today!|yesterday?|the  member states|the member states
people's republic of china|peoples republic of china|european public prosecutor's office"""


def test_phrases_are_equal_here_when_they_are_equal_in_the_toolkit():
    realistic = [phrase for line in REALISTIC.splitlines() for phrase in line.split("|")]
    assert official("european people's party.") == "european people 's party"
    equal = {(a, b) for a in realistic for b in realistic if official(a) == official(b)}
    assert {(a, b) for a in realistic for b in realistic if slue(a) == slue(b)} == equal
    assert len(equal) > len(realistic)


def test_where_phrases_differ_from_the_toolkit_is_as_documented():
    assert official("citizens'") == official("citizens") and slue("citizens'") != slue("citizens")
    assert (official("e.g."), slue("e.g.")) == ("eg", "e g")
    assert official("twenty-one") != official("twenty one") and slue("twenty-one") == slue("twenty one")


@pytest.mark.parametrize(
    ("references", "hypotheses", "message"),
    [
        ([], [], "no utterances"),
        ([[]], [[], []], "1 references and 2 hypotheses"),
        ([["ORG"]], [[]], r"\['ORG'\] as utterance 0, expected a list of \(tag, phrase\) pairs"),
        ([[("ORG", "un")], "un"], [[], []], "'un' as utterance 1"),
        ([[("ORG", "un", 1)]], [[]], "as utterance 0"),
    ],
)
@pytest.mark.parametrize("metric", [entity_f1, label_f1])
def test_what_cannot_be_scored_is_named(metric, references, hypotheses, message):
    with pytest.raises(DataError, match=message):
        metric(references, hypotheses)
