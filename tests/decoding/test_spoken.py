"""What of an answer is spoken, and that only spoken words may not come twice."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import NoRepeatNGramLogitsProcessor

from stapes.decoding.constraints import Grammar, GrammarProcessor
from stapes.decoding.generate import _greedy
from stapes.decoding.spoken import NoSpokenRepeats, Part, Spoken
from stapes.llms.toy import ToyLLM
from stapes.tasks import TASKS
from stapes.tasks.asr import ASR
from stapes.tasks.ner import NER

LLM = ToyLLM()
LETTERS = LLM.encode(" a b c")
WANTED = 10.0


def banned(task_name: str, text: str, size: int) -> set[str]:
    """The letters of the tokens that may not follow a text."""
    ban = NoSpokenRepeats(Spoken(LLM, TASKS.build({"name": task_name}).listen), size)
    found = ban(torch.tensor([LLM.encode(text)]), torch.zeros(1, len(LLM.tokenizer)))
    return {LLM.spell(token) for token in found[0].isneginf().nonzero().flatten().tolist()}


@pytest.mark.parametrize("size", [1, 2, 3])
@given(text=st.lists(st.sampled_from(LETTERS), max_size=12))
def test_where_everything_is_spoken_the_ban_is_that_of_transformers(size: int, text: list[int]):
    ids, scores = torch.tensor([text], dtype=torch.long), torch.zeros(1, len(LLM.tokenizer))
    found = NoSpokenRepeats(Spoken(LLM, ASR().listen), size)(ids, scores)
    assert torch.equal(found, NoRepeatNGramLogitsProcessor(size)(ids, scores.clone()))


def test_words_are_counted_as_if_there_were_no_markup():
    assert banned("ner", " a b [PERSON a", 2) == banned("asr", " a b a", 2) == {" b"}
    assert banned("ner", " a [PERSON b] a", 2) == {" b"}
    assert banned("ner", " a [PERSON b] a [PERSON", 2) == {" b"}
    assert banned("ner", " a [PERSON b] c [PERS", 1) == {" a", " b", " c"}, "and never the O of the tag"
    assert banned("ner", " a [PERSON b] a [PERSON c", 2) == set()


def test_nothing_below_the_transcript_is_banned():
    assert banned("asr+ner", " a b a", 1) == {" a", " b"}
    assert banned("asr+ner", ' a b\n[{"tag": "PERSON", "text": "a"}, {"tag": "PER', 1) == set()
    assert banned("sentiment", " Neutr", 1) == set()


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("ner", "[PLACE rome] is not [PLACE rome]"),
        ("asr+ner", 'al met jo\n[{"tag": "PERSON", "text": "al"}, {"tag": "PERSON", "text": "jo"}]'),
    ],
)
@pytest.mark.parametrize("size", [5, 6])
def test_an_answer_may_repeat_its_form_in_greedy_search(name: str, answer: str, size: int):
    """An LLM that is sure of it writes it, token by token; the words alone repeat nothing."""
    task, (end,) = TASKS.build({"name": name}), LLM.end_ids
    plan = [*LLM.encode(f" {answer}"), end]
    assert len(set(itertools.pairwise(plan))) < len(plan) - 1
    grammar = GrammarProcessor(Grammar(LLM, task.grammar() or ""))
    choose = _greedy(end, [len(plan)], NoSpokenRepeats(Spoken(LLM, task.listen), size), grammar, None)
    written: list[int] = []
    for token in plan:
        scores = torch.zeros(1, len(LLM.tokenizer))
        scores[0, token] = WANTED
        written += choose([0], [written], scores)
    assert LLM.decode(written) == answer


def test_a_line_break_is_one_in_a_byte_level_vocabulary():
    text = LLM.encode(" a b\n[]")
    spoken = Spoken(LLM, TASKS.build({"name": "asr+ner"}).listen)
    parts = [spoken(tuple(text[:place]), token) for place, token in enumerate(text)]
    assert parts == [
        Part(" a", " a", over=False, ends=False),
        Part(" b", " b", over=False, ends=False),
        Part("\n", "", over=True, ends=True),
        Part("[", "", over=True, ends=False),
        Part("]", "", over=True, ends=False),
    ]


def test_a_text_may_be_asked_for_out_of_order():
    """As beams do, which change places."""
    text = tuple(LLM.encode(" in [PLACE rome] now"))
    one, other = (Spoken(LLM, NER().listen) for _ in range(2))
    forth = [one(text[:place], token) for place, token in enumerate(text)]
    back = [other(text[:place], text[place]) for place in reversed(range(len(text)))]
    assert forth == back[::-1]
    assert "".join(part.spoken for part in forth) == " in rome now"
