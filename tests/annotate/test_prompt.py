import json

import pytest

from stapes.annotate import prompt
from stapes.annotate.prompt import BadAnswer, Claim


def test_the_conversation_alternates_and_opens_with_the_instruction():
    shots = [("in london", {"entities": [{"tag": "GPE", "phrase": "london"}]}), ("nothing", {"entities": []})]
    turns = prompt.messages("ner", shots, "on monday")
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2 + ["user"]
    assert turns[0]["content"] == f"{prompt.INSTRUCTIONS['ner']}\n\nTranscript: in london"
    assert json.loads(turns[1]["content"]) == shots[0][1]
    assert turns[-1]["content"] == "Transcript: on monday"
    assert all(f"- {tag}: " in turns[0]["content"] for tag in prompt.TAGS)


def test_without_shots_the_instruction_opens_the_question():
    (turn,) = prompt.messages("sentiment", [], "good")
    assert turn["content"].startswith(prompt.INSTRUCTIONS["sentiment"])


@pytest.mark.parametrize("wrapped", ["{}", "```json\n{}\n```", "```{}```", " {}\n"])
def test_an_answer_is_read_also_where_it_is_fenced(wrapped):
    labels = {"entities": [{"tag": "planet", "phrase": "mars"}]}
    assert prompt.read("ner", wrapped.replace("{}", json.dumps(labels))) == labels
    assert prompt.claims(labels) == [Claim("planet", "mars")]


@pytest.mark.parametrize(
    ("task", "answer", "reason"),
    [
        ("ner", "", "empty"),
        ("ner", '{"entities": [', "broken JSON"),
        ("ner", "Here you are: {}", "broken JSON"),
        ("ner", "[]", "JSON of another form"),
        ("ner", '{"entities": {}}', "JSON of another form"),
        ("ner", '{"entities": [{"tag": "GPE"}]}', "JSON of another form"),
        ("ner", '{"entities": [{"tag": "GPE", "phrase": 3}]}', "JSON of another form"),
        ("sentiment", '{"entities": []}', "JSON of another form"),
        ("sentiment", '{"sentiment": null}', "JSON of another form"),
    ],
)
def test_an_answer_that_cannot_be_read_says_why(task, answer, reason):
    with pytest.raises(BadAnswer, match=f"^{reason}$"):
        prompt.read(task, answer)


def test_schemas_are_strict_at_every_level():
    """What OpenAI asks of strict mode: every key required, and no others."""

    def objects(value):
        if isinstance(value, dict):
            yield from [value] if value.get("type") == "object" else []
            for each in value.values():
                yield from objects(each)

    for task in prompt.TASKS:
        found = list(objects(prompt.schema(task)))
        assert found
        assert all(each["required"] == list(each["properties"]) and not each["additionalProperties"] for each in found)
