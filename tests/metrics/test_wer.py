import importlib.metadata
import random
from statistics import fmean

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.errors import DataError, RecipeError
from stapes.metrics import bootstrap
from stapes.metrics.wer import UtteranceErrors, alignment, cer, per_utterance, sentence_mean_wer, wer

SENTENCES = st.lists(st.sampled_from(["a", "b", "c", "don't", "é"]), max_size=8).map(" ".join)
CORPORA = st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=6).filter(lambda pairs: any(r for r, _ in pairs))


def edit_distance(reference: list[str], hypothesis: list[str]) -> int:
    """Levenshtein distance by the textbook's table."""
    table = [list(range(len(hypothesis) + 1))]
    for row, expected in enumerate(reference, start=1):
        table.append([row])
        for column, found in enumerate(hypothesis, start=1):
            above, left, diagonal = table[row - 1][column], table[row][column - 1], table[row - 1][column - 1]
            table[row].append(min(above + 1, left + 1, diagonal + (expected != found)))
    return table[-1][-1]


def test_counts_of_a_case_done_by_hand():
    score = wer(["The cat sat.", "", "so be it then"], ["a cat sat down", "um", "so it"])
    assert score.value == pytest.approx(100 * 5 / 7)
    assert score.parts == {
        "substitutions": 1,
        "deletions": 2,
        "insertions": 2,
        "hits": 4,
        "reference_words": 7,
        "utterance_errors": [2, 1, 2],
        "utterance_words": [3, 0, 4],
    }
    assert score.signature == f"wer|norm:slue.v1|jiwer:{importlib.metadata.version('jiwer')}|n:3"


def test_characters_of_a_case_done_by_hand():
    score = cer(["Kitten.", "a b"], ["sitting", "ab"])
    assert score.value == pytest.approx(100 * 4 / 9)
    assert score.parts["substitutions"] == 2
    assert score.parts["insertions"] == score.parts["deletions"] == 1
    assert score.parts["reference_characters"] == 9
    assert score.parts["utterance_characters"] == [6, 3]
    assert score.signature.startswith("cer|norm:slue.v1|")


@given(CORPORA)
def test_agrees_with_the_textbook_and_with_jiwers_totals(pairs):
    references, hypotheses = [r for r, _ in pairs], [h for _, h in pairs]
    score = wer(references, hypotheses, resamples=0)
    assert score.parts["utterance_errors"] == [edit_distance(r.split(), h.split()) for r, h in pairs]
    theirs = jiwer.process_words(references, hypotheses)
    assert score.value == pytest.approx(100 * theirs.wer)
    for part in ("substitutions", "deletions", "insertions", "hits"):
        assert score.parts[part] == getattr(theirs, part)
    characters = cer(references, hypotheses, resamples=0)
    assert characters.parts["utterance_errors"] == [edit_distance(list(r), list(h)) for r, h in pairs]
    assert characters.value == pytest.approx(100 * jiwer.process_characters(references, hypotheses).cer)


@given(CORPORA, st.randoms(use_true_random=False))
def test_order_of_utterances_changes_nothing(pairs, order: random.Random):
    shuffled = list(pairs)
    order.shuffle(shuffled)
    first, second = (wer([r for r, _ in p], [h for _, h in p], resamples=50) for p in (pairs, shuffled))
    assert first.value == second.value
    assert first.interval == second.interval


@given(CORPORA)
def test_identical_texts_have_no_errors(pairs):
    texts = [r for r, _ in pairs]
    score = wer(texts, texts, resamples=20)
    assert score.value == 0.0
    assert score.interval == (0.0, 0.0)
    assert score.parts["hits"] == score.parts["reference_words"]


@given(CORPORA)
def test_added_words_are_insertions_and_lost_words_are_deletions(pairs):
    texts = [r for r, _ in pairs]
    longer = wer(texts, [f"zebra {text}" for text in texts], resamples=0).parts
    assert (longer["substitutions"], longer["deletions"], longer["insertions"]) == (0, 0, len(texts))
    silent = wer(texts, [""] * len(texts), resamples=0)
    assert silent.value == 100.0
    assert silent.parts["deletions"] == silent.parts["reference_words"]


def test_the_interval_is_the_bootstraps_over_utterances_and_holds_the_value():
    words = random.Random(0)
    references = [" ".join(words.choices("abcdefgh", k=words.randint(1, 20))) for _ in range(100)]
    hypotheses = [" ".join(word for word in text.split() if words.random() > 0.2) for text in references]
    score = wer(references, hypotheses, resamples=200, seed=7)
    assert score.interval is not None and score.interval[0] < score.value < score.interval[1]
    errors, lengths = score.parts["utterance_errors"], score.parts["utterance_words"]
    assert score.interval == bootstrap.interval(errors, lengths, resamples=200, seed=7)


def test_the_normaliser_is_applied_to_both_and_named():
    references, hypotheses = ["It\u2019s Twenty-One"], ["it's twenty one!"]
    assert wer(references, hypotheses).value == 0.0
    raw = wer(references, hypotheses, normaliser="none")
    assert raw.value == 150.0
    assert "|norm:none.v1|" in raw.signature
    assert wer(["it is 21"], ["It's twenty one."], normaliser="whisper-en").value == 0.0
    with pytest.raises(RecipeError, match="unknown normaliser 'whisper'"):
        wer(references, hypotheses, normaliser="whisper")


def test_the_mean_over_sentences_has_an_interval_of_its_own():
    score = sentence_mean_wer(["The cat sat.", "", "so be it then"], ["a cat sat down", "um", "so it"], resamples=500)
    assert score.value == pytest.approx((200 / 3 + 50) / 2)
    assert score.parts["utterance_rates"] == pytest.approx([200 / 3, None, 50.0])
    assert score.interval == pytest.approx((50.0, 200 / 3))
    assert score.signature == f"wer_sentence_mean|norm:slue.v1|jiwer:{importlib.metadata.version('jiwer')}|n:2"
    assert sentence_mean_wer(["a"], ["b"], resamples=0).interval is None
    with pytest.raises(DataError, match=r"wer_sentence_mean: none of the 2 references holds a word.*1 inserted words"):
        sentence_mean_wer(["", "!"], ["a", ""])


@given(CORPORA)
def test_the_mean_over_sentences_is_jiwers_of_each(pairs):
    rates = [100 * jiwer.wer(reference, hypothesis) for reference, hypothesis in pairs if reference]
    references, hypotheses = [r for r, _ in pairs], [h for _, h in pairs]
    assert sentence_mean_wer(references, hypotheses, resamples=0).value == pytest.approx(fmean(rates))


def test_without_resamples_there_is_no_interval():
    assert wer(["a"], ["b"], resamples=0).interval is None


def test_per_utterance_lets_every_reference_be_empty():
    first, second = per_utterance(["", ""], ["a b", ""])
    assert first == UtteranceErrors(substitutions=0, deletions=0, insertions=2, reference_words=0)
    assert (first.rate, second.rate) == (float("inf"), 0.0)


def test_alignment_shows_every_operation():
    assert alignment("So the cat sat", "the bat sat, down").splitlines() == [
        "REF: so the cat sat ****",
        "HYP: ** the bat sat down",
        "      D       S        I",
    ]
    assert alignment("the same", "The same.").splitlines() == ["REF: the same", "HYP: the same"]
    wrapped = alignment("one two three four five six", "one two three four five six", line_width=20)
    assert wrapped.count("REF:") > 1 and max(map(len, wrapped.splitlines())) <= 20


@pytest.mark.parametrize(
    ("references", "hypotheses", "message"),
    [
        (["a"], ["a", "b"], "1 references and 2 hypotheses"),
        ([], [], "no utterances"),
        (["", "?!"], ["a b", ""], "none of the 2 references holds a word after normaliser 'slue'.*2 inserted words"),
        ("a b", "a b", "a single string"),
    ],
)
def test_what_cannot_be_scored_is_named(references, hypotheses, message):
    with pytest.raises(DataError, match=message):
        wer(references, hypotheses)
