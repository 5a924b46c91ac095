"""Answers of tasks that have a form: within the grammar, and held against the sound where words are said."""

import math
from collections.abc import Callable
from typing import Any

import contract
import pytest
import torch
import torch.nn.functional as F

from stapes.decoding.constraints import Grammar, GrammarProcessor
from stapes.decoding.ctc_prefix import CTCPrefixProcessor, CTCPrefixScorer, SpokenPieces
from stapes.decoding.drafts import Draft
from stapes.decoding.generate import Hypothesis, generate
from stapes.decoding.spoken import Spoken
from stapes.llms.toy import ToyLLM
from stapes.model import SpeechLLM
from stapes.recipe import Decoding
from stapes.tasks import TASKS, Task
from stapes.text.pieces import PieceVocabulary

SECONDS = [1.2, 0.3, 0.7]
CONFIGS = [
    {"name": "asr"},
    {"name": "ner"},
    {"name": "ner", "markup": "json"},
    {"name": "sentiment"},
    {"name": "asr+ner"},
    {"name": "asr+sentiment"},
]
WAYS: list[dict[str, Any]] = [{}, {"beams": 3}, {"ctc_weight": 0.5}, {"beams": 3, "ctc_weight": 0.5}]


def decode(model: SpeechLLM, rows: list[int], task: Task, **options: Any) -> list[Hypothesis]:
    """Decode some of the three utterances, as one batch."""
    batch = contract.frames([60, 15, 35], dim=16).rows()
    frames = contract.Padded.from_rows([batch[row] for row in rows])
    return generate(model, frames, [SECONDS[row] for row in rows], Decoding(**options), task.key)


def made_to_end(model: SpeechLLM, task: Task) -> SpeechLLM:
    """An LLM with a bias for what ends an answer and its parts, and for entities in a list; a random one hardly ever ends."""
    bias = torch.zeros(len(model.llm.tokenizer))
    bias[[model.llm.end_id, *(model.llm.encode(letter)[0] for letter in '\n"]}')]] = 5.0
    if task.grammar() is not None:
        bias[model.llm.encode("{")[0]] = 20.0
    model.llm.model.get_output_embeddings().bias = torch.nn.Parameter(bias)
    return model


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_answers_have_their_form_alone_and_in_a_batch(
    toy_model: Callable[..., SpeechLLM], config: dict[str, Any], options: dict[str, Any]
):
    task = TASKS.build(config)
    model = contract.awake(toy_model(tasks=[{"name": "asr"}, config] if config != CONFIGS[0] else [config]))
    options = options | {"tokens_per_second": 100, "tokens_spare": 60}
    together = decode(made_to_end(model, task), [0, 1, 2], task, **options)
    assert together == [decode(model, [row], task, **options)[0] for row in range(3)]
    for found in together:
        assert not found.capped
        assert found.result == task.parse(found.answer)
        assert found.result.repairs == 0
        assert task.name not in ("asr+ner", "asr+sentiment") or found.answer.count("\n") == 1
    if "beams" not in options and (task.name == "asr+ner" or config.get("markup") == "json"):
        assert all(found.result.entities for found in together)
    if task.name == "sentiment":
        assert all(found.result.sentiment for found in together)
        free = decode(model, [0, 1, 2], task, constrained=False, **options)
        assert not any(found.answer in ("Negative", "Neutral", "Positive") for found in free)


def certain(llm: ToyLLM, pieces: PieceVocabulary, text: str) -> torch.Tensor:
    """(T, 1 + P) of a CTC head that is all but sure of a text."""
    path = [c for piece in pieces.of_tokens(llm.encode(text)) for c in (0, piece + 1, piece + 1, 0)]
    return F.one_hot(torch.tensor(path), 1 + len(pieces)).float().clamp(min=1e-6).log()


def tied(llm: ToyLLM, task: Task, said: str, weight: float, bonus: float = 0.0) -> CTCPrefixProcessor:
    """Greedy search held against a sound in which all but surely ``said`` is heard, for one answer."""
    pieces = PieceVocabulary(llm.tokenizer, 6)
    log_probs = certain(llm, pieces, said)
    scorer = CTCPrefixScorer(log_probs[None], torch.tensor([len(log_probs)]))
    spoken = SpokenPieces(Spoken(llm, task.listen), pieces)
    drafts = [Draft(said, llm, task.listen)]
    return CTCPrefixProcessor(scorer, spoken, weight, llm.end_ids, 1, drafts, markup_bonus=bonus)


def test_the_llm_says_where_an_entity_is_and_the_sound_which_words_it_has():
    """The LLM is sure of an answer of which one word was not said; greedy search, step by step."""
    llm, task = ToyLLM(), TASKS.build({"name": "ner"})
    sound = tied(llm, task, " the hat hit", 0.6)
    grammar = GrammarProcessor(Grammar(llm, task.grammar() or ""))
    meant, written = [*llm.encode(" the [PERSON rat] hit"), llm.end_id], list[int]()
    for token in meant:
        scores = torch.zeros(1, len(llm.tokenizer))
        scores[0, token] = 10.0
        written.append(int(sound.mix([0], [written], grammar.allow([written], scores)).argmax()))
    assert llm.decode(written) == "the [PERSON hat] hit"


@pytest.mark.parametrize(
    ("share", "bonus", "begins"),
    [(0.3, 0.0, False), (0.45, 0.0, False), (0.55, 0.0, True), (0.9, 0.0, True), (0.3, 1.0, True), (0.2, 1.0, False)],
)
def test_doubts_about_a_word_do_not_begin_an_entity(share: float, bonus: float, begins: bool):
    """The LLM's likeliest token is markup, but only where it is likelier than all words together it is written.

    A nat of bonus is worth odds of 1 to 2.7.
    """
    llm, task = ToyLLM(), TASKS.build({"name": "ner"})
    sound = tied(llm, task, " hat", 0.35, bonus)
    ((markup, *_), (said, *_)) = (llm.encode(text) for text in ("[PERSON", " hat"))
    words = [said, *(llm.encode(f" {letter}")[0] for letter in "bcdeg")]
    assert len({*words, markup}) == 7
    scores = torch.full((1, len(llm.tokenizer)), -torch.inf)
    scores[0, words] = math.log((1 - share) / len(words))
    scores[0, markup] = math.log(share)
    assert int(sound.mix([0], [[]], scores).argmax()) == (markup if begins else said)


@pytest.mark.parametrize("meant", ["the", "the hat", "the hat hit", "the hat hit hit"])
def test_the_transcript_above_a_list_ends_where_the_sound_does(meant: str):
    """The LLM is sure of a first line that says too little, or too much; the list is its own affair."""
    llm, task = ToyLLM(), TASKS.build({"name": "asr+ner"})
    sound = tied(llm, task, " the hat hit", 0.35)
    grammar = GrammarProcessor(Grammar(llm, task.grammar() or ""))
    line, below, (line_break,) = llm.encode(f" {meant}"), [*llm.encode("[]"), llm.end_id], llm.encode("\n")
    written = list[int]()
    while len(written) < 20 and llm.end_id not in written:
        if line_break in written:
            wanted = below[len(written) - written.index(line_break) - 1]
        else:
            wanted = line[len(written)] if written == line[: len(written)] != line else line_break
        scores = torch.zeros(1, len(llm.tokenizer))
        scores[0, line_break] = 5.0
        scores[0, wanted] = 10.0
        written.append(int(sound.mix([0], [written], grammar.allow([written], scores)).argmax()))
    assert llm.decode(written) == "the hat hit\n[]"


def test_what_of_a_token_is_spoken():
    llm, task = ToyLLM(), TASKS.build({"name": "ner"})
    pieces = PieceVocabulary(llm.tokenizer, 6)
    spoken = SpokenPieces(Spoken(llm, task.listen), pieces)
    answer = llm.encode(" in [PLACE rome] now")
    heard: list[int] = []
    for number, token in enumerate(answer):
        found = spoken(tuple(answer[:number]), token)
        assert found is not None
        heard += found.pieces if found.advances else ()
    assert pieces.decode(heard) == "in rome now"
    assert spoken((), llm.end_id) is None
    again = SpokenPieces(Spoken(llm, task.listen), pieces)
    assert again(tuple(answer[:-1]), answer[-1]) == spoken(tuple(answer[:-1]), answer[-1]), "whatever was asked before"


def test_a_draft_is_followed_through_markup():
    """What comes next is found as if the markup were not there."""
    llm, task = ToyLLM(), TASKS.build({"name": "ner"})
    plain, marked = Draft(" in rome now", llm), Draft(" in rome now", llm, task.listen)
    for token in llm.encode(" in rome"):
        plain.follow(token)
    for token in llm.encode(" in [PLACE rome]"):
        marked.follow(token)
    assert marked.ahead(4) == plain.ahead(4) == llm.encode(" now")[:4]
