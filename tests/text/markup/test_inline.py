"""Following an answer letter by letter."""

from stapes.text.markup.brackets import Brackets
from stapes.text.markup.slue import Slue


def test_words_are_spoken_as_soon_as_they_are_words():
    markup = Brackets()
    state, spoken = "", []
    for chunk in (" we", " met [PER", "SON", " jane doe]", "'s", " dog"):
        state, letters = markup.listen(state, chunk)
        spoken.append(letters)
    assert spoken == [" we", " met", "", " jane doe", "'s", " dog"]


def test_what_may_be_markup_waits():
    brackets, slue = Brackets(), Slue()
    assert brackets.listen("", " met [PER") == (" [PER", " met")
    assert brackets.listen(" [PER", "SON j") == ("", " j")
    assert brackets.listen(" [jan", "e ") == (" [jane ", "")
    assert brackets.listen(" [jane ", "d") == ("", " jane d"), "a word behind a bracket that is no tag"
    assert slue.listen("", "ireland ") == (" ", "ireland")
    assert slue.listen(" ", "]'s") == ("", "'s")
    assert slue.listen(" ", "] is") == ("", " is")
