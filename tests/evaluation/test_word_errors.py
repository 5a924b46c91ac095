"""Errors by word and by duration, against what can be counted by hand."""

from collections import Counter
from collections.abc import Callable

import pytest

from stapes.evaluation.evaluate import Evaluation
from stapes.evaluation.word_errors import WordErrors, aligned_words, duration_bins, word_errors

ASR = {"name": "asr"}


def test_columns_hold_every_word_of_both_sides():
    assert aligned_words("The cat sat.", "the fat cat, sat", "slue") == [
        ("the", "the"),
        (None, "fat"),
        ("cat", "cat"),
        ("sat", "sat"),
    ]
    assert aligned_words("a b", "", "slue") == [("a", None), ("b", None)]
    assert aligned_words("", "a", "none") == [(None, "a")]
    assert aligned_words("", "", "none") == []


def test_errors_by_word(made: Callable[..., Evaluation]):
    rows = [{"text": "the cat sat on the mat"}, {"text": "the cat"}, {"text": "all is well"}]
    found = word_errors(made(ASR, rows, ["the cat sat on a mat", "uh the bat", "is well"]))
    assert found == WordErrors(Counter({("the", "a"): 1, ("cat", "bat"): 1}), Counter(["all"]), Counter(["uh"]))


def test_bins_of_duration_hold_each_utterance_once_and_the_rate_of_their_words(made: Callable[..., Evaluation]):
    rows = [{"text": "a b c d", "duration": seconds} for seconds in (1.0, 1.9, 2.0, 31.0)] + [{"duration": 6.0}]
    found = duration_bins(made(ASR, rows, ["a b c d", "a x", "a b c d e f", "", "x"]).predictions)
    assert [(each.label, each.utterances) for each in found] == [("0 to 2 s", 2), ("2 to 5 s", 1), ("30 s and more", 1)]
    assert [each.wer for each in found] == pytest.approx([100 * 3 / 8, 50, 100])
    assert [(each.reference_words, each.hypothesis_words) for each in found] == [(8, 6), (4, 6), (4, 0)]
    assert found[0].interval == (0.0, 75.0), "of one right and one wrong utterance"
