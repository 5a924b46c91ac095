import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.annotate.align import Alignment, words

RAW = "Therefore, by the end of 2008, the Council's members (the WTO) met."
TEXT = "therefore by the end of two thousand and eight the council's members the wto met."


@pytest.mark.parametrize(
    ("phrase", "mapped"),
    [
        ("2008", "two thousand and eight"),
        ("the end of 2008", "the end of two thousand and eight"),
        ("Council", "council"),
        ("Council's", "council's"),
        ("WTO", "wto"),
        ("WTO)", "wto"),
    ],
)
def test_a_span_is_found_in_the_other_spelling(phrase, mapped):
    start = RAW.index(phrase)
    found = Alignment(RAW, TEXT).map(start, start + len(phrase))
    assert found is not None and TEXT[slice(*found)] == mapped


def test_a_part_of_what_was_replaced_as_a_whole_has_no_place():
    start = TEXT.index("thousand")
    assert Alignment(TEXT, RAW).map(start, start + len("thousand")) is None


def test_what_was_left_out_and_what_holds_no_word_have_no_place():
    assert Alignment("he said um paris", "he said paris").map(8, 10) is None
    assert Alignment("a, b", "a b").map(1, 3) is None


@given(st.lists(st.sampled_from(["ab", "cd", "ef", "gh"]), min_size=1, max_size=8), st.data())
def test_texts_that_differ_in_case_and_punctuation_alone_map_word_for_word(spelled, data):
    source, target = ", ".join(word.upper() for word in spelled) + ".", " ".join(spelled)
    here, there = words(source), words(target)
    first = data.draw(st.integers(0, len(here) - 1))
    last = data.draw(st.integers(first, len(here) - 1))
    assert Alignment(source, target).map(here[first][1], here[last][2]) == (there[first][1], there[last][2])
