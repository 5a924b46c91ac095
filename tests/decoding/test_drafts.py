"""Greedy search with a draft: the same text in fewer steps, whatever the draft says."""

from collections.abc import Callable, Sequence

import contract
import pytest
import torch

from stapes.decoding.drafts import MOST, Draft, search
from stapes.decoding.generate import generate
from stapes.llms.base import LLM
from stapes.model import SpeechLLM
from stapes.recipe import Decoding

LENGTH = 20


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
    found = Draft([ord(letter) for letter in draft])
    for letter in said:
        found.follow(ord(letter))
    assert "".join(map(chr, found.ahead(3))) == ahead


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
    model: SpeechLLM, drafts: Sequence[Sequence[int]], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[list[int]], list[int]]:
    """LENGTH tokens of each of three rows, without a look at the sound in choosing; and the rows of each step."""
    speech = model.speech(contract.frames([60, 15, 35], dim=16)).embeddings
    embeddings, mask = model.splice(speech)
    sizes: list[int] = []
    extend = LLM.extend

    def counted(self: LLM, embeddings: torch.Tensor, *arguments: object, **options: object) -> torch.Tensor:
        sizes.append(len(embeddings))
        return extend(self, embeddings, *arguments, **options)

    def choose(rows: list[int], texts: list[list[int]], scores: torch.Tensor) -> list[int]:
        best = scores.argmax(-1).tolist()
        return [
            model.llm.end_id if len(text) == LENGTH - 5 * row else token
            for row, text, token in zip(rows, texts, best, strict=True)
        ]

    with monkeypatch.context() as patch:
        patch.setattr(LLM, "extend", counted)
        found = search(model.llm, embeddings, mask, [Draft(draft) for draft in drafts], choose)
    assert [text[-1] for text in found] == [model.llm.end_id] * 3
    return [text[:-1] for text in found], sizes


def test_a_good_draft_saves_steps_and_a_bad_one_costs_none(model: SpeechLLM, monkeypatch: pytest.MonkeyPatch):
    texts, alone = steps(model, [[], [], []], monkeypatch)
    assert [len(text) for text in texts] == [LENGTH, LENGTH - 5, LENGTH - 10]
    assert alone == [3] * (LENGTH - 10 + 1) + [2] * 5 + [1] * 5, "rows that have ended leave the batch"
    with_texts, quick = steps(model, texts, monkeypatch)
    assert with_texts == texts
    assert len(quick) == 1 + -(-LENGTH // MOST)
    wrong = [[(token + 1) % 100 for token in text] for text in texts]
    with_wrong, slow = steps(model, wrong, monkeypatch)
    assert with_wrong == texts
    assert len(slow) <= len(alone)
    spoilt = [text[:5] + text[6:11] + [3, 3] + text[11:] for text in texts]
    with_spoilt, some = steps(model, spoilt, monkeypatch)
    assert with_spoilt == texts
    assert len(quick) < len(some) < len(alone) / 2


def test_an_llm_that_cannot_forget_is_left_to_generate(model: SpeechLLM):
    assert model.llm.can_rewind
    model.llm.model.config.layer_types = ["full_attention", "sliding_attention"]
    assert not model.llm.can_rewind
    model.llm.model.config.layer_types = ["full_attention", "full_attention"]
    assert model.llm.can_rewind
    model.llm.model._is_stateful = True
    assert not model.llm.can_rewind
