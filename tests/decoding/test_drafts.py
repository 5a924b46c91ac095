"""Greedy search with a draft: the same text in fewer steps, whatever the draft says."""

from collections.abc import Callable, Sequence

import contract
import pytest
import torch

from stapes.decoding.drafts import MOST, Draft, search
from stapes.decoding.generate import generate
from stapes.llms.base import LLM
from stapes.llms.toy import ToyLLM
from stapes.model import SpeechLLM
from stapes.recipe import Decoding

LENGTH = 20
LETTERS = "bcdfgklmpsuvwxyz"  # none of which the toy tokenizer merges with another


@pytest.mark.parametrize(
    ("draft", "said", "ahead"),
    [
        ("abcdef", "", "abc"),
        ("abcdef", "ab", "cde"),
        ("abcdef", "abcdef", ""),
        pytest.param("abcdef", "axc", "def", id="one for another"),
        pytest.param("abcdef", "ax", "cde", id="one for another, just now"),
        pytest.param("abcdef", "abxc", "def", id="one more"),
        pytest.param("abcdef", "acd", "ef", id="one less"),
        pytest.param("abcdefgh", "abxyzefg", "h", id="three for two"),
        pytest.param("", "ab", "", id="nothing was heard"),
    ],
)
def test_a_draft_is_taken_up_where_it_fits_best(draft: str, said: str, ahead: str):
    llm = ToyLLM()
    found = Draft(draft, llm)
    for token in llm.encode(said):
        found.follow(token)
    assert "".join(map(llm.spell, found.ahead(3))) == ahead


def test_a_draft_is_taken_up_in_the_middle_of_a_token():
    llm = ToyLLM()
    found = Draft(" hand there", llm)
    for token in llm.encode(" ha"):
        found.follow(token)
    assert [llm.spell(token) for token in found.ahead(9)] == ["n", "d", " ", "the", "r", "e"]


@pytest.mark.parametrize(("name", "letters"), [("\u0120the", " the"), ("\u2581the", " the"), ("the", "the")])
def test_a_space_is_a_space_in_every_vocabulary(name: str, letters: str, monkeypatch: pytest.MonkeyPatch):
    llm = ToyLLM()
    monkeypatch.setattr(llm.tokenizer, "convert_ids_to_tokens", lambda token: name, raising=False)
    assert llm.spell(0) == letters


@pytest.fixture
def model(toy_model: Callable[..., SpeechLLM]) -> SpeechLLM:
    return contract.awake(toy_model())


def plain(model: SpeechLLM, options: Decoding, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What transformers' ``generate`` writes."""
    with monkeypatch.context() as patch:
        patch.setattr(LLM, "can_rewind", False)
        return written(model, options)


def written(model: SpeechLLM, options: Decoding) -> list[list[int]]:
    frames = contract.frames([60, 15, 35], dim=16)
    return [found.tokens for found in generate(model, frames, [1.2, 0.3, 0.7], options)]


@pytest.mark.parametrize(
    "options", [{}, {"ctc_weight": 0.5}, {"no_repeat_ngram": 2}, {"ctc_weight": 0.3, "no_repeat_ngram": 3}]
)
def test_what_comes_out_is_plain_greedy_search(model: SpeechLLM, options: dict[str, float], monkeypatch: pytest.MonkeyPatch):
    for seconds in (10, 40):
        chosen = Decoding(**options, tokens_per_second=seconds)
        assert written(model, chosen) == plain(model, chosen, monkeypatch)


def steps(
    model: SpeechLLM, drafts: Sequence[str], monkeypatch: pytest.MonkeyPatch, read: list[tuple[int, int]] | None = None
) -> tuple[list[str], list[int]]:
    """LENGTH tokens of one to three rows, out of LETTERS alone and without a look at the sound; and the rows of each step.

    How many positions each step reads, and how many there are then, is added to ``read``.
    """
    llm = model.llm
    letters = torch.tensor([llm.encode(letter)[0] for letter in LETTERS])
    speech = model.speech(contract.frames([60, 15, 35][: len(drafts)], dim=16)).embeddings
    embeddings, mask = model.splice(speech)
    sizes: list[int] = []
    extend = LLM.extend

    def counted(self: LLM, embeddings: torch.Tensor, mask: torch.Tensor, *arguments: object, **options: object) -> torch.Tensor:
        sizes.append(len(embeddings))
        if read is not None:
            read.append((embeddings.shape[1], mask.shape[1]))
        return extend(self, embeddings, mask, *arguments, **options)

    def choose(rows: list[int], texts: list[list[int]], scores: torch.Tensor) -> list[int]:
        best = letters[scores[:, letters].argmax(-1)].tolist()
        return [
            llm.end_id if len(text) == LENGTH - 5 * row else token for row, text, token in zip(rows, texts, best, strict=True)
        ]

    with monkeypatch.context() as patch:
        patch.setattr(LLM, "extend", counted)
        found = search(llm, embeddings, mask, [Draft(draft, llm) for draft in drafts], choose)
    assert [text[-1] for text in found] == [llm.end_id] * len(drafts)
    return ["".join(map(llm.spell, text[:-1])) for text in found], sizes


def test_a_good_draft_saves_steps_and_a_bad_one_costs_none(model: SpeechLLM, monkeypatch: pytest.MonkeyPatch):
    texts, alone = steps(model, ["", "", ""], monkeypatch)
    assert [len(text) for text in texts] == [LENGTH, LENGTH - 5, LENGTH - 10]
    assert len(set("".join(texts))) > 3
    assert alone == [3] * (LENGTH - 10 + 1) + [2] * 5 + [1] * 5, "rows that have ended leave the batch"
    with_texts, quick = steps(model, texts, monkeypatch)
    assert with_texts == texts
    assert len(quick) == -(-(LENGTH + 1) // MOST)
    wrong = [text.translate(str.maketrans(LETTERS, LETTERS[1:] + LETTERS[0])) for text in texts]
    read: list[tuple[int, int]] = []
    with_wrong, slow = steps(model, wrong, monkeypatch, read)
    assert with_wrong == texts
    assert len(slow) <= len(alone)
    assert sum(now for now, _ in read[2:]) < (1 + MOST / 2) * len(read[2:]), "of a draft that goes wrong, less is read"
    spoilt = [text[:5] + text[6:11] + "!!" + text[11:] for text in texts]
    with_spoilt, some = steps(model, spoilt, monkeypatch)
    assert with_spoilt == texts
    assert len(quick) < len(some) < len(alone) / 2


def test_what_was_read_in_vain_for_all_rows_is_forgotten(model: SpeechLLM, monkeypatch: pytest.MonkeyPatch):
    alone: list[tuple[int, int]] = []
    read: list[tuple[int, int]] = []
    (text,), _ = steps(model, [""], monkeypatch, alone)
    found, _ = steps(model, [text[:3] + "!" + text[4:9] + text[20:]], monkeypatch, read)
    assert found == [text]
    assert sum(now for now, _ in read) > sum(now for now, _ in alone) + 3, "some of it was read in vain"
    now, there = read[-1]
    assert there - now < alone[-1][1], "the prompt, and what was written before the last step"


def test_a_draft_that_spells_an_end_token_ends_nothing_early(model: SpeechLLM, monkeypatch: pytest.MonkeyPatch):
    texts, _ = steps(model, ["", "", ""], monkeypatch)
    with_ends, _ = steps(model, [f"{text[:4]}<end>{text[4:]}" for text in texts], monkeypatch)
    assert with_ends == texts


def test_an_llm_that_cannot_forget_is_left_to_generate(model: SpeechLLM):
    assert model.llm.can_rewind
    model.llm.model.config.layer_types = ["full_attention", "sliding_attention"]
    assert not model.llm.can_rewind
    model.llm.model.config.layer_types = ["full_attention", "full_attention"]
    assert model.llm.can_rewind
    model.llm.model._is_stateful = True
    assert not model.llm.can_rewind
