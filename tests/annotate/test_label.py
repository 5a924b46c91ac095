import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from stapes.annotate import label, prompt
from stapes.annotate.backends.endpoint import EndpointBackend
from stapes.annotate.examples import Pool
from stapes.annotate.journal import opened
from stapes.annotate.label import FAILURES_IN_A_ROW, Plan, ask_all
from stapes.annotate.reading import Reading
from stapes.data.manifest import read_manifest
from stapes.errors import AnnotationError
from stapes.types import Entity

PLAN = Plan("ner", Reading("text"))


@pytest.fixture
def ask(chat, tmp_path: Path):
    """ask(utterances, plan, **of the backend): the answers, by way of a journal."""

    def run(utterances, plan=PLAN, **settings):
        async def work(journal):
            settings.setdefault("concurrency", 4)
            return await ask_all(utterances, plan, EndpointBackend("rules", plan.task, chat.address, **settings), journal)

        with opened(tmp_path / "journal.jsonl", plan.settings) as journal:
            return asyncio.run(work(journal))

    return run


def test_nothing_is_lost_and_everything_is_counted(ask, chat, said, tmp_path):
    """Every kind of trouble at once: each utterance ends up labelled or among the failures, with the reason."""
    texts = [f"in london {n}" for n in range(24)]
    refused, broken, wrong, silent = texts[4:8]
    chat.script = {
        texts[0]: ["429", "429"],
        texts[1]: ["503"],
        texts[2]: ["reset"],
        texts[3]: ["hang", "not json"],
        refused: ["refusal"] * 9,
        broken: ['{"entities": ['] * 9,
        wrong: ["400"],
        silent: ["hang"] * 9,
    }
    rows = [said(text, name=f"u{n}") for n, text in enumerate(texts)]
    quiet = said("", name="quiet", kind="non-speech", entities=None)
    answers = ask([*rows, quiet], retries=2, timeout_seconds=0.4)
    found = label.apply([*rows, quiet], PLAN, answers)
    failures = {each["text"]: each["reason"] for each in found.failures}
    assert failures == {
        refused: "refused",
        broken: "broken JSON",
        wrong: "400: scripted 400",
        silent: "no answer (timeout)",
    }
    assert [each.id for each in found.utterances] == [f"u{n}" for n in range(24) if texts[n] not in failures] + ["quiet"]
    assert all(each.entities == (Entity("GPE", 3, 9, "london"),) for each in found.utterances[:-1])
    assert found.utterances[-1].entities == ()
    assert chat.most_at_once <= 4 + 1  # one that was given up may still hang at the server
    with opened(tmp_path / "journal.jsonl", PLAN.settings) as journal:
        assert journal.trouble == {
            "429": 2,
            "503": 1,
            "connection": 1,
            "timeout": 1 + 2,
            "a response that is not JSON": 1,
            "refused": 3,
            "broken JSON": 3,
        }
        assert journal.usage.requests == 20 + 3 + 3
    assert sum(chat.times_asked.values()) == 26 + 2 + 1 + 1 + 2 + 1 + 3


def test_only_what_has_no_answer_is_asked_by_the_next_run(ask, chat, said):
    texts = [f"in london {n}" for n in range(6)]
    chat.script = {texts[0]: ["503"], texts[1]: ["refusal"] * 3}
    rows = [said(text, name=f"u{n}") for n, text in enumerate(texts)]
    first = ask(rows, retries=0)
    assert (first["u0"].final, first["u1"].final) == (False, True)
    before = chat.times_asked
    second = ask(rows, retries=0)
    assert chat.times_asked - before == {texts[0]: 1}
    assert second["u0"].labels is not None
    assert {name: answer for name, answer in second.items() if name != "u0"} == {
        name: answer for name, answer in first.items() if name != "u0"
    }


def test_concurrency_is_used_and_bounded(ask, chat, said):
    chat.delay_seconds = 0.05
    ask([said(f"{n}", name=f"{n}") for n in range(30)], concurrency=5)
    assert chat.most_at_once == 5


def test_a_server_on_which_nothing_works_ends_the_run(ask, chat, said):
    rows = [said(f"in london {n}", name=f"u{n}") for n in range(60)]
    chat.script = {row.text: ["400"] for row in rows}
    with pytest.raises(AnnotationError, match=r"failures in a row, the last: 400: scripted 400.*it goes on from here"):
        ask(rows, concurrency=2)
    assert FAILURES_IN_A_ROW <= len(chat.asked) <= FAILURES_IN_A_ROW + 4
    chat.script = {}
    answers = ask(rows, concurrency=2)  # mended, it goes on, with those on which it failed
    assert len(answers) == len(rows) and not any(answer.failure for answer in answers.values())


def test_what_no_request_can_be_answered_for_ends_the_run_at_once(ask, chat, said):
    chat.script = {"in london": ["401"]}
    with pytest.raises(AnnotationError, match="the key is refused"):
        ask([said("in london"), *[said(f"{n}", name=f"{n}") for n in range(50)]], concurrency=1)
    assert len(chat.asked) == 1


def test_the_question_holds_balanced_shots_and_leaves_the_utterance_out(said):
    rows = [said(f"in london {n}", ("GPE", "london"), name=f"g{n}") for n in range(9)]
    rows += [said(f"on monday {n}", ("DATE", "monday"), name=f"d{n}") for n in range(9)]
    plan = Plan("ner", Reading("text"), Pool.choose(rows, "ner", 18), shots=4)
    turns = plan.question(rows[0]).messages
    assert len(turns) == 9
    tags = sorted(claim.tag for turn in turns[1::2] for claim in prompt.claims(prompt.read("ner", turn["content"])))
    assert tags == ["DATE", "DATE", "GPE", "GPE"]
    assert sum(rows[0].text in turn["content"] for turn in turns) == 1
    assert plan.question(rows[0]).digest == plan.question(rows[0]).digest != plan.question(rows[1]).digest


def test_labels_of_before_are_replaced_and_sentiments_are_judged(said):
    rows = [said("so good", name="a", sentiment="Negative"), said("so so", name="b"), said("well", name="c")]
    answers = {
        name: label.Answer({"sentiment": found}) for name, found in zip("abc", ["positive.", "MIXED", "great"], strict=True)
    }
    found = label.apply(rows, Plan("sentiment", Reading("text")), answers)
    assert [(each.id, each.sentiment) for each in found.utterances] == [("a", "Positive"), ("b", "Neutral")]
    assert [(each.id, each.stage, each.reason, each.tag) for each in found.rejected] == [("c", 2, "unknown sentiment", "great")]


def test_what_is_written_can_be_read_and_has_no_labels_of_before(said, tmp_path):
    old = (Entity("ORG", 0, 3, "The"),)
    row = said("the eu met", ("ORG", "the"), raw_text="The EU met.", raw_entities=old)
    row = replace(row, audio=tmp_path / "a.wav")
    answers = {"a": label.Answer({"entities": [{"tag": "GPE", "phrase": "eu"}, {"tag": "GPE", "phrase": "un"}]})}
    label.write(tmp_path / "out" / "new.jsonl", label.apply([row], PLAN, answers))
    (read,) = read_manifest(tmp_path / "out" / "new.jsonl", check_audio=False)
    assert read.entities == (Entity("GPE", 4, 6, "eu"),)
    assert read.raw_entities == (Entity("GPE", 4, 6, "EU"),)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "new.failures.jsonl",
        "new.jsonl",
        "new.rejected.jsonl",
    ]
    assert '"reason": "not in the transcript"' in (tmp_path / "out" / "new.rejected.jsonl").read_text()
