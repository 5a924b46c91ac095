from hypothesis import given
from hypothesis import strategies as st

from stapes.annotate.truecase import Truecaser


def test_words_get_the_form_they_mostly_have():
    caser = Truecaser.learn(["We met the WTO in Paris.", "They left the WTO, and Paris. The house of the House.", "a house"])
    assert caser("the wto met in paris near the house") == "the WTO met in Paris near the house"


def test_words_that_open_a_sentence_say_nothing():
    caser = Truecaser.learn(["Where is it? Where was it. Where", "Reports say so. Reports end."])
    assert caser("where are reports") == "where are reports"


LETTERS = st.text("aAbB\u00df\u0130\u01c6 .'", max_size=16)  # sharp s, dotted I and dz change length with their case


@given(st.lists(LETTERS, max_size=4), LETTERS)
def test_only_case_changes(learnt, text):
    cased = Truecaser.learn([*learnt, text])(text)
    assert len(cased) == len(text)
    assert cased.lower() == text.lower()
