import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.annotate.filter import LIKENESS, STOP_WORDS, filter_entities, locate, meaningless
from stapes.annotate.prompt import TAGS, Claim
from stapes.types import Entity, Utterance

TEXT = "the rohingya left london on monday and the european union met in london, where barroso's union spoke."


def found_in(text: str, *claims: Claim, read: str | None = None, is_raw: bool = False, **fields: str):
    utterance = Utterance("a", "a.wav", text, 1.0, **fields)  # type: ignore[arg-type]
    return filter_entities(utterance, claims, text if read is None else read, is_raw)


@pytest.mark.parametrize(
    ("claimed", "phrase"),
    [
        ("london", "london"),
        ("London", "london"),
        (" european union ", "european union"),
        ("european-union", "european union"),
        ("Rohinga", "rohingya"),
        ("european unions", "european union"),
    ],
)
def test_a_phrase_is_found_and_repaired(claimed, phrase):
    (entity,) = found_in(TEXT, Claim("GPE", claimed)).entities
    assert entity.phrase == phrase == TEXT[entity.start : entity.end]


@pytest.mark.parametrize("phrase", ["paris", "lon", "eu", "europe", "the council", "london monday", "unin"])
def test_what_is_not_there_is_rejected(phrase):
    found = found_in(TEXT, Claim("GPE", phrase))
    assert found.entities == ()
    assert [(each.stage, each.reason, each.phrase) for each in found.rejected] == [(1, "not in the transcript", phrase)]


@pytest.mark.parametrize(
    ("tag", "phrase", "reason"),
    [
        ("PLANET", "london", "unknown tag"),
        ("", "london", "unknown tag"),
        ("GPE", " - ", "no letter or digit"),
        ("GPE", "the", "stop words only"),
        ("GPE", "on", "stop words only"),
    ],
)
def test_what_means_nothing_is_rejected_by_the_second_filter(tag, phrase, reason):
    found = found_in(f"{TEXT} - so he", Claim(tag, phrase), Claim("DATE", "monday"))
    assert [(each.stage, each.reason) for each in found.rejected] == [(2, reason)]
    assert [entity.phrase for entity in found.entities] == ["monday"]
    assert [len(stage) for stage in found.stages] == [2, 2, 1]


@pytest.mark.parametrize(("tag", "phrase"), [("PLANET", "paris"), ("", "paris"), ("GPE", "under"), ("GPE", ""), ("GPE", " ? ")])
def test_what_is_absent_is_the_first_filters_though_it_means_nothing(tag, phrase):
    found = found_in(TEXT, Claim(tag, phrase), Claim("DATE", "monday"))
    assert meaningless(Claim(tag, phrase)) is not None
    assert [(each.stage, each.reason) for each in found.rejected] == [(1, "not in the transcript")]
    assert found.stages == ([(tag, phrase), ("DATE", "monday")], [("DATE", "monday")], [("DATE", "monday")])


@pytest.mark.parametrize(("tag", "known"), [("gpe", "GPE"), ("Work of Art", "WORK_OF_ART"), (" PLACE ", "PLACE")])
def test_tags_are_known_whatever_their_case(tag, known):
    assert [entity.label for entity in found_in(TEXT, Claim(tag, "london")).entities] == [known]


@pytest.mark.parametrize("phrase", ["who", "us", "may", "one", "second"])
def test_short_words_that_are_names_too_are_no_stop_words(phrase):
    assert meaningless(Claim("ORG", phrase)) is None


def test_repeated_phrases_take_successive_occurrences():
    found = found_in(TEXT, *[Claim("GPE", "london")] * 3)
    starts = [entity.start for entity in found.entities]
    assert starts == [TEXT.index("london"), TEXT.rindex("london")]
    assert [each.reason for each in found.rejected] == ["claimed more often than it occurs"]


def test_a_phrase_within_another_goes_where_it_stands_alone():
    entities = found_in(TEXT, Claim("ORG", "union"), Claim("GPE", "european union")).entities
    assert [(entity.phrase, entity.start) for entity in entities] == [
        ("european union", TEXT.index("european")),
        ("union", TEXT.rindex("union")),
    ]


def test_an_annotator_that_says_where_is_believed_where_that_is_true():
    second = TEXT.rindex("london")
    assert [entity.start for entity in found_in(TEXT, Claim("GPE", "london", second)).entities] == [second]
    assert [entity.start for entity in found_in(TEXT, Claim("GPE", "london", 3)).entities] == [TEXT.index("london")]
    assert found_in(TEXT, Claim("GPE", "pean", TEXT.index("pean"))).entities == ()
    nested = found_in(TEXT, Claim("GPE", "european union", TEXT.index("european")), Claim("ORG", "union", TEXT.index("union")))
    assert [each.reason for each in nested.rejected] == ["overlaps another"]


def test_before_the_filters_a_phrase_is_as_it_was_claimed_and_after_them_as_it_is():
    found = found_in(TEXT, Claim("NORP", "Rohinga"), Claim("GPE", "paris"))
    assert found.stages == (
        [("NORP", "Rohinga"), ("GPE", "paris")],
        [("NORP", "rohingya")],
        [("NORP", "rohingya")],
    )
    assert found.repaired == 1


RAW, SAID = "In 2008, the EU met.", "in two thousand and eight the eu met"


def test_what_was_found_in_the_raw_text_is_mapped_to_the_text():
    claims = [Claim("GPE", "EU", RAW.index("EU")), Claim("DATE", "2008"), Claim("GPE", "UN")]
    found = found_in(SAID, *claims, read=RAW, is_raw=True, raw_text=RAW)
    assert [(entity.label, entity.phrase) for entity in found.entities] == [("DATE", "two thousand and eight"), ("GPE", "eu")]
    assert [(entity.label, entity.phrase) for entity in found.raw_entities or ()] == [("DATE", "2008"), ("GPE", "EU")]
    assert [each.reason for each in found.rejected] == ["not in the transcript"]
    assert found.stages[0] == [("GPE", "eu"), ("DATE", "two thousand and eight"), ("GPE", "UN")]


def test_what_cannot_be_mapped_is_rejected_or_counted():
    unsaid = found_in("we met", Claim("GPE", "EU"), read="We, the EU, met.", is_raw=True, raw_text="We, the EU, met.")
    assert [each.reason for each in unsaid.rejected] == ["cannot be mapped to the text"]
    unwritten = found_in(SAID, Claim("CARDINAL", "two thousand"), Claim("GPE", "eu"), raw_text=RAW)
    assert [entity.phrase for entity in unwritten.raw_entities or ()] == ["EU"]
    assert unwritten.unmapped == 1


WORDS = st.sampled_from(
    ["london", "the", "european", "union", "monday", "of", "two", "barroso", "Rohinga", "o'neill", "m'bala"]
)
PHRASES = st.lists(WORDS, max_size=4).map(" ".join) | st.text(string.printable, max_size=12)
CLAIMS = st.lists(st.builds(Claim, st.sampled_from([*TAGS, "PLACE", "planet", ""]), PHRASES, st.none() | st.integers(-2, 60)))
TEXTS = st.lists(WORDS, min_size=1, max_size=14).map(" ".join)


@given(TEXTS, CLAIMS)
def test_whatever_is_claimed_what_is_kept_is_in_the_transcript(text, claims):
    found = found_in(text, *claims)
    assert len(found.entities) + len(found.rejected) == len(claims)
    assert [len(stage) for stage in found.stages][::2] == [len(claims), len(found.entities)]
    assert all(entity.start < entity.end and text[entity.start : entity.end] == entity.phrase for entity in found.entities)
    assert all(entity.label in {*TAGS, "PLACE"} for entity in found.entities)
    assert all(set(entity.phrase.split()) - STOP_WORDS for entity in found.entities)
    for earlier, later in zip(found.entities, found.entities[1:], strict=False):
        assert earlier.end <= later.start
    for entity in found.entities:  # nothing begins or ends within a word
        assert not (text[: entity.start][-1:].isalnum() and entity.phrase[0].isalnum())
        assert not (text[entity.end :][:1].isalnum() and entity.phrase[-1].isalnum())


@given(TEXTS, st.data())
def test_true_claims_are_all_kept(text, data):
    """The words of a text, claimed in any order, take just the places of those words."""
    spelled = text.split()
    found = locate([Claim("GPE", word) for word in data.draw(st.permutations(spelled))], text)
    spans = sorted(each.span for each in found if each.span is not None)
    assert [text[slice(*span)] for span in spans] == spelled


@given(TEXTS, CLAIMS)
def test_filtering_what_was_kept_keeps_it(text, claims):
    once = found_in(text, *claims).entities
    again = found_in(text, *[Claim(entity.label, entity.phrase, entity.start) for entity in once])
    assert again.entities == once and again.rejected == ()


@pytest.mark.parametrize(("claimed", "there", "alike"), [("barroso", "baroso", True), ("ireland", "iceland", False)])
def test_where_the_threshold_lies(claimed, there, alike):
    from difflib import SequenceMatcher

    assert (SequenceMatcher(None, claimed, there).ratio() >= LIKENESS) == alike
    assert (found_in(f"so {there} left", Claim("GPE", claimed)).entities == (Entity("GPE", 3, 3 + len(there), there),)) == alike
