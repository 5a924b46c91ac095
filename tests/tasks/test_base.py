"""What every task promises, checked on each task of the table in each style."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapes.errors import RecipeError
from stapes.tasks import TASKS, Result, Task, find_task, key_of
from stapes.types import Entity, Utterance

CONFIGS: dict[str, dict[str, Any]] = {
    "asr": {"name": "asr"},
    "asr.written": {"name": "asr", "style": "written"},
    "ner": {"name": "ner"},
    "ner.written": {"name": "ner", "style": "written"},
    "ner slue": {"name": "ner", "markup": "slue"},
    "ner json": {"name": "ner", "markup": "json"},
    "ner raw": {"name": "ner", "tags": "raw"},
    "sentiment": {"name": "sentiment"},
    "translation.fr": {"name": "translation", "to": "fr"},
    "asr+ner": {"name": "asr+ner"},
    "asr+ner.written": {"name": "asr+ner", "style": "written"},
    "asr+ner raw": {"name": "asr+ner", "tags": "raw"},
    "asr+sentiment": {"name": "asr+sentiment"},
}
SPOKEN, WRITTEN = "jane doe met ten people in brussels", "Jane Doe met 10 people, in Brussels."
ROW = Utterance(
    id="u",
    audio=Path("u.wav"),
    text=SPOKEN,
    duration=2.0,
    raw_text=WRITTEN,
    entities=(Entity("PERSON", 0, 8, "jane doe"), Entity("CARDINAL", 13, 16, "ten"), Entity("GPE", 27, 35, "brussels")),
    raw_entities=(Entity("PERSON", 0, 8, "Jane Doe"), Entity("CARDINAL", 13, 15, "10"), Entity("GPE", 27, 35, "Brussels")),
    sentiment="mixed",
    translations={"fr": "Jane Doe a rencontré dix personnes à Bruxelles."},
)
LISTED = '[{"tag": "PERSON", "text": "jane doe"}, {"tag": "QUANT", "text": "ten"}, {"tag": "PLACE", "text": "brussels"}]'
TARGETS = {
    "asr": SPOKEN,
    "asr.written": WRITTEN,
    "ner": "[PERSON jane doe] met [QUANT ten] people in [PLACE brussels]",
    "ner.written": "[PERSON Jane Doe] met [QUANT 10] people, in [PLACE Brussels].",
    "ner slue": "$ jane doe ] met ^ ten ] people in % brussels ]",
    "ner json": LISTED,
    "ner raw": "[PERSON jane doe] met [CARDINAL ten] people in [GPE brussels]",
    "sentiment": "Neutral",
    "translation.fr": "Jane Doe a rencontré dix personnes à Bruxelles.",
    "asr+ner": f"{SPOKEN}\n{LISTED}",
    "asr+ner.written": f"{WRITTEN}\n"
    '[{"tag": "PERSON", "text": "Jane Doe"}, {"tag": "QUANT", "text": "10"}, {"tag": "PLACE", "text": "Brussels"}]',
    "asr+ner raw": f"{SPOKEN}\n{LISTED.replace('QUANT', 'CARDINAL').replace('PLACE', 'GPE')}",
    "asr+sentiment": f"{SPOKEN}\nNeutral",
}


@pytest.fixture(params=CONFIGS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def task(name: str) -> Task:
    return TASKS.build(CONFIGS[name])


def test_targets(name: str, task: Task):
    assert task.key == name.split()[0]
    assert task.has_target(ROW)
    assert task.target(ROW) == TARGETS[name]


def test_a_right_answer_scores_as_high_as_can_be(task: Task):
    """Read from the target, scored against the labels themselves; and a wrong one scores lower."""
    rows = [replace(ROW, sentiment=label) for label in ("Negative", "mixed", "Positive")]  # F1 is a mean over all three
    references, right = [task.reference(row) for row in rows], [task.parse(task.target(row)) for row in rows]
    assert not any(found.repairs for found in right)
    scores = task.scores(references, right, resamples=0)
    assert bool(references[0].text) == bool(right[0].text), "words are compared where words are answered"
    assert task.criterion in scores
    for rate, score in scores.items():
        assert score.value == pytest.approx(0.0 if rate in ("wer", "cer") else 100.0), rate
    wrong = task.scores(references, [*right[:2], task.parse("")], resamples=0)
    best, worse = scores[task.criterion].value, wrong[task.criterion].value
    assert worse > best if task.lower_is_better else worse < best


def test_of_nested_entities_the_outer_stands_among_words_and_all_in_a_list(name: str, task: Task):
    """As docs/tasks.md has it."""
    row = replace(
        ROW,
        entities=(Entity("ORG", 0, 16, "jane doe met ten"), Entity("PERSON", 0, 8, "jane doe")),
        raw_entities=(Entity("ORG", 0, 15, "Jane Doe met 10"), Entity("PERSON", 0, 8, "Jane Doe")),
    )
    if task.reference(row).entities is not None:
        labels = [entity.label for entity in task.parse(task.target(row)).entities or ()]
        assert labels == (["ORG", "PERSON"] if "json" in name or "asr+" in name else ["ORG"])
        assert [entity.label for entity in task.reference(row).entities or ()] == ["ORG", "PERSON"]


def test_labels_that_are_not_there(task: Task):
    bare = replace(ROW, raw_text=None, entities=None, raw_entities=None, sentiment=None, translations={})
    assert task.has_target(bare) == (task.key == "asr")
    assert TASKS.build({"name": "asr", "style": "written"}).has_target(replace(bare, text="Someone wrote this."))


def test_the_target_fits_the_grammar(task: Task):
    """In Python's ``re``, which does not know Unicode's classes; their letters are enough here."""
    grammar = task.grammar()
    if grammar is None:
        assert task.name in ("asr", "translation")
        return
    pattern = grammar.replace(r"\p{L}\p{M}\p{N}", "a-z0-9")
    assert re.fullmatch(pattern, task.target(ROW))
    assert not re.fullmatch(pattern, task.target(ROW) + " [[")


@given(answer=st.text(alphabet='ab [](){}"\n:,$%^PERSONtag', max_size=40))
@pytest.mark.parametrize("name", CONFIGS)
def test_parsing_never_raises(name: str, answer: str):
    task = TASKS.build(CONFIGS[name])
    found = task.parse(answer)
    assert isinstance(found, Result)
    task.scores([task.reference(ROW)], [found], resamples=0)


def test_what_is_spoken_in_an_answer(task: Task):
    """Letter by letter, the words of the transcript come out, where an answer has one."""
    state, heard = "", ""
    for letter in f" {task.target(ROW)}":
        state, spoken = task.listen(state, letter)
        heard += spoken
    if task.scores_sound:
        assert heard.split() == SPOKEN.split()


def test_nine_instructions_of_which_the_first_is_asked(task: Task, name: str):
    assert len(task.instructions) == 1
    several = TASKS.build(CONFIGS[name] | {"templates": 9})
    assert len(set(several.instructions)) == 9
    assert several.instruction == task.instruction
    assert TASKS.build(CONFIGS[name] | {"instruction": "Do it."}).instructions == ("Do it.",)
    with pytest.raises(RecipeError, match="templates: 10, expected 1 to 9"):
        TASKS.build(CONFIGS[name] | {"templates": 10})
    with pytest.raises(RecipeError, match="an instruction of your own and templates: 2, expected one of them"):
        TASKS.build(CONFIGS[name] | {"instruction": "Do it.", "templates": 2})


def test_a_language_is_called_by_its_name():
    assert TASKS.build({"name": "translation", "to": "fr"}).instruction == "Translate the speech into French."
    assert TASKS.build({"name": "translation", "to": "tlh"}).instruction == "Translate the speech into the language 'tlh'."


def test_an_unknown_style():
    with pytest.raises(RecipeError, match="task 'asr': unknown style 'writen'; did you mean 'written'"):
        TASKS.build({"name": "asr", "style": "writen"})


def test_keys():
    assert key_of("asr") == "asr"
    assert key_of("asr", "written") == "asr.written"
    assert key_of("translation", to="fr") == "translation.fr"
    tasks = {task.key: task for task in (TASKS.build({"name": "ner"}), TASKS.build({"name": "asr"}))}
    assert find_task(tasks, "").name == "ner"
    assert find_task(tasks, "asr").name == "asr"
    with pytest.raises(RecipeError, match="task: 'asrr', expected one that this model does; did you mean 'asr'"):
        find_task(tasks, "asrr")


@pytest.mark.parametrize(
    ("answer", "label", "repairs"),
    [
        ("Positive", "Positive", 0),
        ("negative.", "Negative", 1),
        ("**Positive**!", "Positive", 1),
        ('Sentiment: "negative";', "Negative", 1),
        ("_neutral_", "Neutral", 1),
        ("It is disagreement, I think", "Neutral", 1),
        ("neither", None, 1),
        ("", None, 1),
    ],
)
def test_sentiment_in_an_answer(answer: str, label: str | None, repairs: int):
    found = TASKS.build({"name": "sentiment"}).parse(answer)
    assert (found.sentiment, found.repairs) == (label, repairs)


def test_of_raw_tags_the_benchmarks_score_is_there_too():
    """A place of the wrong kind, and one tag that the benchmark discards."""
    task = TASKS.build({"name": "ner", "tags": "raw"})
    answer = TARGETS["ner raw"].replace("GPE", "LOC").replace("people", "[EVENT people]")
    scores = task.scores([task.reference(ROW)], [task.parse(answer)], resamples=0)
    combined = TASKS.build({"name": "ner"})
    expected = combined.scores([combined.reference(ROW)], [task.parse(answer)], resamples=0)["ner_f1"]
    assert scores["ner_f1"].value == pytest.approx(100 * 4 / 7)
    assert (scores["ner_f1_combined"].value, scores["ner_f1_combined"].signature) == (100.0, expected.signature)
    assert "ner_f1_combined" not in combined.scores([combined.reference(ROW)], [task.parse(answer)], resamples=0)


def test_a_joint_answer_of_one_line():
    found = TASKS.build({"name": "asr+sentiment"}).parse("the words alone")
    assert (found.text, found.sentiment, found.repairs) == ("the words alone", None, 1)


def test_a_signature_tells_references_apart(name: str, task: Task):
    """Scores of one style, set of tags and language are comparable whatever the task or the markup; others are not."""

    def signatures(asked: str) -> dict[str, str]:
        made = TASKS.build(CONFIGS[asked])
        scores = made.scores([made.reference(ROW)], [made.reference(ROW)], normaliser="slue", resamples=0)
        return {rate: score.signature for rate, score in scores.items()}

    found = signatures(name)
    for rate in found.keys() & {"wer", "ner_f1"}:
        plain = signatures("asr" if rate == "wer" else "ner")[rate]
        differs = "written" in name or (rate == "ner_f1" and "raw" in name)
        assert (found[rate] != plain) == differs, rate
        assert ("|style:written" in found[rate]) == ("written" in name)
    if task.name == "translation":
        assert all(signature.endswith("|to:fr") for signature in found.values())
    assert task.provenance() == {
        "ner": {"markup": "json" if "json" in name else "slue" if "slue" in name else "brackets"},
        "asr+ner": {"markup": "json"},
    }.get(task.name, {})
