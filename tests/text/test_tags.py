"""SLUE's labels: the 18 entity tags of its tables each have one place, and sentiments are three."""

import pytest

from stapes.errors import DataError
from stapes.text import tags

RAW = ["CARDINAL", "DATE", "EVENT", "FAC", "GPE", "LANGUAGE", "LAW", "LOC", "MONEY", "NORP", "ORDINAL", "ORG", "PERCENT"]
RAW += ["PERSON", "PRODUCT", "QUANTITY", "TIME", "WORK_OF_ART"]


def test_every_tag_is_combined_or_discarded():
    assert len(RAW) == 18
    found = {tag: tags.combined(tag) for tag in RAW}
    assert {tag for tag, name in found.items() if name is None} == {"FAC", "EVENT", "WORK_OF_ART", "PRODUCT", "LANGUAGE"}
    assert {tag for tag, name in found.items() if name == "WHEN"} == {"DATE", "TIME"}
    assert {tag for tag, name in found.items() if name == "QUANT"} == {"CARDINAL", "ORDINAL", "QUANTITY", "MONEY", "PERCENT"}
    assert {tag for tag, name in found.items() if name == "PLACE"} == {"GPE", "LOC"}
    for tag in ("NORP", "ORG", "LAW", "PERSON"):
        assert found[tag] == tag
    assert len(tags.COMBINED) == 7


def test_a_combined_tag_stays_what_it_is():
    assert [tags.combined(tag) for tag in tags.COMBINED] == list(tags.COMBINED)


def test_sentiments():
    written = ["Negative", "Neutral", "Positive", "mixed", "<mixed>", "Disagreement", "positive"]
    assert [tags.sentiment(label) for label in written] == ["Negative", "Neutral", "Positive", *["Neutral"] * 3, "Positive"]


def test_what_is_no_label_of_slue():
    with pytest.raises(DataError, match=r"a\.jsonl:7: entity tag 'PERS', expected a tag of SLUE; did you mean 'PERSON'\?"):
        tags.combined("PERS", "a.jsonl:7")
    with pytest.raises(DataError, match="sentiment 'angry', expected a label of SLUE; known: Negative, Neutral, Positive"):
        tags.sentiment("angry")
