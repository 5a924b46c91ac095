"""The real client against a real server that misbehaves by script."""

import asyncio
import itertools
import time
from email.utils import formatdate

import pytest

from stapes.annotate import prompt
from stapes.annotate.backends import endpoint
from stapes.annotate.backends.base import Answer, Question, Usage
from stapes.annotate.backends.endpoint import EndpointBackend
from stapes.errors import AnnotationError

TEXT = "in london on monday"
LABELS = {"entities": [{"tag": "GPE", "phrase": "london"}, {"tag": "DATE", "phrase": "monday"}]}


@pytest.fixture
def ask(chat, monkeypatch):
    """ask(*what the server does instead of answering, **settings): the answer to ``TEXT``, and what the user was told."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def run(*actions: str, text: str = TEXT, task: prompt.Task = "ner", **settings) -> tuple[Answer, list[str]]:
        told: list[str] = []
        chat.script[text] = list(actions)

        async def work() -> Answer:
            backend = EndpointBackend("rules", task, chat.address, warn=told.append, **settings)
            try:
                return await backend.ask(Question("a", text, tuple(prompt.messages(task, [], text))))
            finally:
                await backend.close()

        return asyncio.run(work()), told

    return run


def test_an_answer_comes_with_what_it_cost(ask, chat):
    answer, told = ask()
    assert answer == Answer(LABELS, usage=Usage(1, 100, 40, 10))
    assert told == []
    (body,) = chat.bodies
    assert (body["model"], body["temperature"]) == ("rules", 0.0)
    assert body["response_format"]["json_schema"] == {"name": "ner", "strict": True, "schema": prompt.schema("ner")}


def test_a_sentiment_is_asked_for_in_its_own_form(ask):
    assert ask(text="so good", task="sentiment")[0].labels == {"sentiment": "Positive"}


@pytest.mark.parametrize(
    ("action", "kind"),
    [("429", "429"), ("503", "503"), ("hang", "timeout"), ("trickle", "timeout"), ("reset", "connection")],
)
def test_what_was_not_answered_is_asked_again(ask, chat, action, kind):
    answer, _ = ask(action, timeout_seconds=0.4)
    assert answer.labels == LABELS
    assert answer.trouble == {kind: 1}
    assert chat.times_asked[TEXT] == 2


def test_retry_after_is_honoured_and_pauses_grow_without_it(ask, chat):
    ask("429")
    chat.retry_after = None
    ask("500", "500")
    times = [when for _, when in chat.asked]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 0.05 <= pauses[0] < 0.9
    assert pauses[2] >= 1.0
    assert pauses[3] >= 2.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("2.5", 2.5), ("-1", 0.0), (formatdate(1030, usegmt=True), 30.0), (formatdate(970), 0.0), ("soon", None)],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert endpoint.retry_after_seconds(header, now=1000.0) == seconds


@pytest.mark.parametrize(("action", "reason"), [("429", "429: scripted 429"), ("hang", "no answer (timeout)")])
def test_retries_are_bounded_and_what_is_left_can_be_asked_again(ask, chat, action, reason):
    answer, _ = ask(*[action] * 9, retries=1, timeout_seconds=0.3 if action == "hang" else 10)
    assert (answer.labels, answer.failure, answer.final) == (None, reason, False)
    assert chat.times_asked[TEXT] == 2


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ('{"entities": [', "broken JSON"),
        ('{"entities": 3}', "JSON of another form"),
        ("refusal", "refused"),
        ("length", "cut off"),
        ("nothing", "a response without an answer"),
        ("not json", "a response that is not JSON"),
    ],
)
def test_an_answer_that_cannot_be_used_is_asked_for_again_and_then_kept_as_a_failure(ask, chat, action, reason):
    once, _ = ask(action)
    assert (once.labels, once.failure, once.trouble) == (LABELS, "", {reason: 1})
    always, _ = ask(*[action] * 9)
    assert (always.labels, always.failure, always.final) == (None, reason, True)
    assert always.trouble == {reason: endpoint.ASKED}
    assert chat.times_asked[TEXT] == 2 + endpoint.ASKED
    if action == "refusal":
        assert once.usage == Usage(2, 200, 80, 20)


def test_one_request_that_is_wrong_is_a_failure_of_its_own(ask, chat):
    answer, _ = ask("400")
    assert (answer.failure, answer.final) == ("400: scripted 400", True)
    assert chat.times_asked[TEXT] == 1


@pytest.mark.parametrize(
    ("action", "message"), [("401", "the key is refused"), ("404", "no such model"), ("quota", "no credit")]
)
def test_what_makes_every_request_fail_ends_the_run(ask, chat, action, message):
    with pytest.raises(AnnotationError, match=f"{chat.address}/: {message}"):
        ask(action)
    assert chat.times_asked[TEXT] == 1


@pytest.mark.parametrize(
    ("refused", "told", "left"),
    [
        ({"json_schema"}, ["JSON mode is used"], {"temperature", "max_tokens", "response_format"}),
        ({"json_schema", "json_object", "response_format"}, ["JSON mode", "in words only"], {"temperature", "max_tokens"}),
        ({"temperature"}, ["the model's own is used"], {"max_tokens", "response_format"}),
        ({"max_tokens"}, ["max_completion_tokens"], {"temperature", "max_completion_tokens", "response_format"}),
    ],
)
def test_what_a_server_does_not_know_is_left_out_and_said(ask, chat, refused, told, left):
    chat.refuses = refused
    answer, said = ask()
    assert answer.labels == LABELS
    assert len(said) == len(told)
    assert all(part in line and line.startswith(chat.address) for part, line in zip(told, said, strict=True))
    assert set(chat.bodies[-1]) == {"messages", "model", *left}


def test_a_concession_is_made_once_for_all_who_ask_at_the_same_time(chat):
    chat.refuses, chat.delay_seconds, told = {"json_schema"}, 0.05, []

    async def work() -> list[Answer]:
        backend = EndpointBackend("rules", "ner", chat.address, warn=told.append)
        questions = [Question(f"{n}", f"{n}", tuple(prompt.messages("ner", [], f"{n}"))) for n in range(6)]
        answers = await asyncio.gather(*map(backend.ask, questions))
        await backend.close()
        return answers

    assert [answer.labels for answer in asyncio.run(work())] == [{"entities": []}] * 6
    assert len(told) == 1
    assert chat.bodies[-1]["response_format"] == {"type": "json_object"}


def test_a_server_that_is_not_there_is_given_up(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key")

    async def work() -> Answer:
        backend = EndpointBackend("rules", "ner", "http://127.0.0.1:9/v1", retries=0)
        return await backend.ask(Question("a", "text", tuple(prompt.messages("ner", [], "text"))))

    begun = time.monotonic()
    answer = asyncio.run(work())
    assert (answer.failure, answer.final) == ("no answer (connection)", False)
    assert time.monotonic() - begun < 10


def test_openai_itself_wants_a_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(AnnotationError, match=r"OPENAI_API_KEY: not set.*--base-url"):
        EndpointBackend("gpt-4o", "ner")
