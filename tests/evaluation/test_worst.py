"""The order of the worst utterances, and what is said of each, for every task."""

from collections.abc import Callable

from stapes.evaluation.evaluate import Evaluation
from stapes.evaluation.word_errors import has_words
from stapes.evaluation.worst import numbers, texts, worst


def test_words_by_errors_then_by_rate(made: Callable[..., Evaluation]):
    rows = [{"text": text} for text in ("a b c d", "a b", "x", "a b c", "")]
    found = made({"name": "asr"}, rows, ["a b z z", "z z", "x", "a b z", "z z z"], capped=[0], unreadable={3: "no such file"})
    assert has_words(found)
    assert worst(found, 10) == [4, 1, 0, 3]
    assert worst(found, 2) == [4, 1]
    assert numbers(found, 0) == "2 errors in 4 words, 1.0 s, capped"
    assert numbers(found, 3) == "1 error in 3 words, 1.0 s, unreadable: no such file"


def test_entities_count_as_words_do(made: Callable[..., Evaluation]):
    rows = [{"text": "on monday", "entities": [("DATE", "monday")]}, {"text": "on friday", "entities": [("DATE", "friday")]}]
    found = made({"name": "ner"}, rows, ["on [PLACE monday]", "in [WHEN friday]"])
    assert worst(found, 10) == [0, 1]
    assert numbers(found, 0) == "0 errors in 2 words, 1 entity lost, 1 entity invented, 1.0 s"
    assert numbers(found, 1) == "1 error in 2 words, 1.0 s"


def test_a_list_of_entities_has_no_words(made: Callable[..., Evaluation]):
    rows = [{"text": "on monday in may", "entities": [("DATE", "monday"), ("DATE", "may")]}]
    found = made({"name": "ner", "markup": "json"}, rows, ["[]"])
    assert not has_words(found)
    assert worst(found, 10) == [0]
    assert numbers(found, 0) == "2 entities lost, 1.0 s"
    assert texts(found, 0) == [("said", "on monday in may")]


def test_sentiment(made: Callable[..., Evaluation]):
    rows = [{"text": "well", "sentiment": label} for label in ("Positive", "Negative", "Neutral")]
    found = made({"name": "sentiment"}, rows, ["Positive", "Positive", "what?"])
    assert worst(found, 10) == [1, 2]
    assert [numbers(found, position) for position in range(3)] == [
        "1.0 s",
        "Negative taken for Positive, 1.0 s",
        "Neutral taken for no label, 1.0 s",
    ]


def test_translations_by_chrf(made: Callable[..., Evaluation]):
    rows = [{"text": "yes", "translations": {"fr": text}} for text in ("le chat est là", "bonjour à tous", "merci bien")]
    found = made({"name": "translation", "to": "fr"}, rows, ["le chat est ici", "xyz", "merci bien"])
    assert not has_words(found)
    assert worst(found, 10) == [1, 0]
    assert numbers(found, 1) == "chrF2 0.0, 1.0 s"
    assert texts(found, 0) == [("said", "yes"), ("reference", "le chat est là"), ("hypothesis", "le chat est ici")]
