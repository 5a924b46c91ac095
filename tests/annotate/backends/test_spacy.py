import asyncio

import pytest

from stapes.annotate.backends.base import Question
from stapes.annotate.backends.spacy import SpacyBackend, trimmed


@pytest.mark.parametrize(
    ("tag", "phrase", "start", "left"),
    [
        ("GPE", "the European Union", 14, "European Union"),
        ("ORG", "The Guardian's", 14, "Guardian"),
        ("ORG", "a House", 12, "House"),
        ("ORG", "Theatre", 10, "Theatre"),
        ("DATE", "the last year", 10, "the last year"),
        ("NORP", "the Europeans'", 14, "Europeans"),
        ("ORG", "the ", 14, ""),
    ],
)
def test_phrases_are_trimmed_to_what_slue_has(tag, phrase, start, left):
    assert trimmed(tag, 10, phrase) == (start, left)


@pytest.mark.weights
def test_spacy_finds_entities_and_says_where(pack):
    pytest.importorskip("spacy")
    pack("en-core-web-md")
    backend = SpacyBackend(progress=False)
    text = "On Monday the Council of Europe thanked Angela Merkel's government for 10 kilometres."
    answer = asyncio.run(backend.ask(Question("a", text)))
    assert answer.labels is not None
    found = {(each["tag"], each["phrase"]) for each in answer.labels["entities"]}
    assert found == {
        ("DATE", "Monday"),
        ("ORG", "Council of Europe"),
        ("PERSON", "Angela Merkel"),
        ("QUANTITY", "10 kilometres"),
    }
    assert all(text.startswith(each["phrase"], each["start"]) for each in answer.labels["entities"])
    assert backend.settings["revision"].startswith("5244c8d07d10")
