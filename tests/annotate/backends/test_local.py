import asyncio
import functools

import pytest
import torch

from stapes.annotate import prompt
from stapes.annotate.backends.base import Question
from stapes.annotate.backends.local import MAX_ENTITIES, MAX_LETTERS, LocalBackend, _bounded
from stapes.annotate.prompt import TAGS

SHOTS = [("he lives in paris", {"entities": [{"tag": "GPE", "phrase": "paris"}]}), ("so be it", {"entities": []})]


@pytest.fixture(scope="module")
def asked(pack):
    """asked(task): the answers of SmolLM2 to two sentences."""
    pack("smollm2-135m-instruct")

    @functools.cache
    def ask(task: prompt.Task):
        backend = LocalBackend("pack:smollm2-135m-instruct", task, torch.device("cpu"), torch.float32)
        shots = SHOTS if task == "ner" else []
        texts = ("we met in london on monday", "what a good day")
        questions = [Question(text, text, tuple(prompt.messages(task, shots, text))) for text in texts]
        return backend, [asyncio.run(backend.ask(question)) for question in questions]

    return ask


@pytest.mark.weights
def test_a_small_llm_answers_in_the_form_that_is_asked_for(asked):
    """What it says is poor; that it is JSON of the schema, ended by itself and counted, has to hold."""
    backend, answers = asked("ner")
    for answer in answers:
        assert answer.failure == ""
        assert answer.labels is not None and len(answer.labels["entities"]) <= MAX_ENTITIES
        assert all(each["tag"] in TAGS and len(each["phrase"]) <= MAX_LETTERS for each in answer.labels["entities"])
        assert answer.usage.prompt_tokens > 200 and answer.usage.completion_tokens > 4
    again = asyncio.run(backend.ask(Question("b", "so be it", tuple(prompt.messages("ner", SHOTS, "what a good day")))))
    assert again == answers[1]
    assert backend.settings["model"] == "pack:smollm2-135m-instruct"


@pytest.mark.weights
def test_sentiments_are_of_the_three(asked):
    _, answers = asked("sentiment")
    assert all(answer.labels and answer.labels["sentiment"] in ("Negative", "Neutral", "Positive") for answer in answers)


@pytest.mark.weights
def test_a_question_beyond_the_context_is_a_failure(asked):
    backend, _ = asked("ner")
    text = "word " * 8000
    answer = asyncio.run(backend.ask(Question("a", text, tuple(prompt.messages("ner", [], text)))))
    assert answer.failure == "longer than the model's context of 8192 tokens"


def test_bounds_are_for_local_models_only():
    bounded = _bounded(prompt.schema("ner"))["properties"]["entities"]
    assert (bounded["maxItems"], bounded["items"]["properties"]["phrase"]["maxLength"]) == (MAX_ENTITIES, MAX_LETTERS)
    assert "maxItems" not in prompt.schema("ner")["properties"]["entities"]
    assert _bounded(prompt.schema("sentiment")) == prompt.schema("sentiment")
