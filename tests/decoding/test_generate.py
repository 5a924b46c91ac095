"""Generation: what a row writes is its own business, and it ends where it has to."""

import itertools
from collections.abc import Callable

import contract
import pytest
import torch

from stapes.decoding.generate import Hypothesis, generate
from stapes.llms.base import LLM
from stapes.model import SpeechLLM
from stapes.recipe import Decoding

SECONDS = [1.2, 0.3, 0.7]
Build = Callable[..., SpeechLLM]


@pytest.fixture
def model(toy_model: Build) -> SpeechLLM:
    return contract.awake(toy_model())  # weights large enough for the text to depend on the sound


def decode(model: SpeechLLM, rows: list[int], **options: object) -> list[Hypothesis]:
    """Decode some of the three utterances, as one batch."""
    batch = contract.frames([60, 15, 35], dim=16).rows()
    frames = contract.Padded.from_rows([batch[row] for row in rows])
    return generate(model, frames, [SECONDS[row] for row in rows], Decoding(**options))


WAYS = [{}, {"beams": 3}, {"ctc_weight": 0.5}, {"beams": 3, "ctc_weight": 0.5}, {"no_repeat_ngram": 2}]


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_alone_and_in_a_batch(model: SpeechLLM, options: dict[str, float]):
    together = decode(model, [0, 1, 2], **options)
    assert together == [decode(model, [row], **options)[0] for row in range(3)]
    assert len({tuple(hypothesis.tokens) for hypothesis in together}) == 3


def test_greedy_takes_the_likeliest_token_at_every_step(model: SpeechLLM):
    """Against a loop without a KV cache."""
    for row in range(3):
        (found,) = decode(model, [row], tokens_per_second=10, tokens_spare=0)
        speech = model.speech(contract.Padded.from_rows([contract.frames([60, 15, 35], dim=16).rows()[row]])).embeddings
        written: list[int] = []
        for _ in range(len(found.tokens)):
            logits, _ = model.logits(speech, [[*written, 0]])
            written.append(int(logits[-1].argmax()))
        assert found.tokens == written


@pytest.mark.parametrize("beams", [1, 2])
def test_the_cap_is_each_rows_own_and_is_reported(model: SpeechLLM, beams: int):
    """A random LLM hardly ever ends by itself: ceil(seconds x 10) + 2 tokens."""
    found = decode(model, [0, 1, 2], tokens_per_second=10, tokens_spare=2, beams=beams)
    assert [len(hypothesis.tokens) for hypothesis in found] == [14, 5, 9]
    assert all(hypothesis.capped for hypothesis in found)


def test_no_ngram_comes_twice(model: SpeechLLM):
    """Also without input ids, as speech goes in."""

    def repeated(tokens: list[int]) -> bool:
        pairs = list(itertools.pairwise(tokens))
        return len(set(pairs)) < len(pairs)

    long = {"tokens_per_second": 100}
    assert any(repeated(hypothesis.tokens) for hypothesis in decode(model, [0, 1, 2], **long))
    assert not any(repeated(hypothesis.tokens) for hypothesis in decode(model, [0, 1, 2], no_repeat_ngram=2, **long))


def test_any_of_the_end_tokens_ends_an_answer(model: SpeechLLM):
    """The fourth token of one row, made an end token, cuts that row there and is not part of it; the others go on."""
    options = {"tokens_per_second": 10, "tokens_spare": 4, "no_repeat_ngram": 1}
    before = decode(model, [0, 1, 2], **options)
    assert all(hypothesis.capped for hypothesis in before)
    end = before[0].tokens[3]
    model.llm.end_ids = [*model.llm.end_ids, end]
    after = decode(model, [0, 1, 2], **options)
    for old, new in zip(before, after, strict=True):
        place = old.tokens.index(end) if end in old.tokens else len(old.tokens)
        assert new.tokens == old.tokens[:place]
        assert new.capped == (place == len(old.tokens))
        assert new.result == model.task.parse(model.llm.decode(new.tokens))


def test_end_tokens_come_from_tokenizer_and_generation_config(toy_model: Build):
    llm = toy_model().llm
    assert llm.end_ids == [llm.tokenizer.eos_token_id]
    llm.model.generation_config.eos_token_id = [7, 9]
    both = LLM(llm.model, llm.tokenizer)
    assert both.end_ids == [7, 9, llm.tokenizer.eos_token_id]
    assert both.end_id == llm.tokenizer.eos_token_id


def test_what_the_ctc_head_hears_stands_beside(model: SpeechLLM, toy_model: Build):
    found = decode(model, [0, 1, 2])
    speech = model.speech(contract.frames([60, 15, 35], dim=16))
    assert [hypothesis.ctc_text for hypothesis in found] == model.heard(speech)
    assert [hypothesis.ctc_text for hypothesis in decode(toy_model(ctc=None), [0, 1])] == [None, None]


def test_a_ctc_weight_changes_what_is_written(model: SpeechLLM):
    plain, joint = decode(model, [0, 1, 2]), decode(model, [0, 1, 2], ctc_weight=0.9)
    assert [hypothesis.tokens for hypothesis in plain] != [hypothesis.tokens for hypothesis in joint]


def test_no_gradients_are_kept(model: SpeechLLM):
    model.adapter.requires_grad_(True)
    decode(model, [1])
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()
