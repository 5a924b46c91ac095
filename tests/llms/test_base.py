"""What an LLM's tokenizer and template are made into."""

import pytest
import torch

from stapes.errors import WeightsError
from stapes.llms.base import LLM, SPEECH_MARK
from stapes.llms.toy import ToyLLM


@pytest.fixture
def llm() -> ToyLLM:
    return ToyLLM()


def rendered(llm: LLM, instruction: str = "Listen.") -> str:
    before, after = llm.wrap(instruction)
    return llm.tokenizer.decode(before) + SPEECH_MARK + llm.tokenizer.decode(after)


def test_the_instruction_is_the_system_message(llm: ToyLLM):
    assert rendered(llm) == f"<s>Listen.<u>{SPEECH_MARK}<a>"


def test_a_template_without_a_system_role_has_it_in_the_users_message(llm: ToyLLM):
    refuse = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    llm.tokenizer.chat_template = refuse + llm.tokenizer.chat_template
    assert rendered(llm) == f"<u>Listen.\n{SPEECH_MARK}<a>"


def test_without_a_template_there_are_lines(llm: ToyLLM):
    llm.tokenizer.chat_template = None
    assert rendered(llm) == f"Listen.\n{SPEECH_MARK}\n"


def test_thinking_is_switched_off(llm: ToyLLM):
    llm.tokenizer.chat_template += "{% if enable_thinking is defined and not enable_thinking %}ok{% endif %}"
    assert rendered(llm).endswith("<a>ok")


@pytest.mark.parametrize("template", ["{{ raise_exception('never') }}", "a template without the message"])
def test_a_template_that_takes_no_message_is_an_error(llm: ToyLLM, template: str):
    llm.tokenizer.chat_template = template
    with pytest.raises(WeightsError, match="toy-32-0: a chat template that takes neither a system nor a user message"):
        llm.wrap("Listen.")


def test_without_an_end_token_there_is_no_llm(llm: ToyLLM):
    llm.tokenizer.eos_token = None
    llm.model.generation_config.eos_token_id = None
    with pytest.raises(WeightsError, match="no end-of-sequence token"):
        LLM(llm.model, llm.tokenizer, "mine")


def test_a_template_that_leaves_the_instruction_out_is_not_given_it_as_a_system_message(llm: ToyLLM):
    deaf = "{% for message in messages if message['role'] != 'system' %}<u>{{ message['content'] }}{% endfor %}<a>"
    llm.tokenizer.chat_template = deaf
    assert rendered(llm) == f"<u>Listen.\n{SPEECH_MARK}<a>"


def test_the_date_of_a_prompt_is_always_the_same(llm: ToyLLM):
    llm.tokenizer.chat_template += "{{ strftime_now('%d %b %Y, %B, %Y-%m-%d') }}"
    assert rendered(llm).endswith("<a>26 Jul 2024, July, 2024-07-26")


TURNS = "{% for message in messages %}{{ message['content'] }}<a>{% endfor %}"


@pytest.mark.parametrize(
    ("own", "named", "template", "ends", "end"),
    [
        pytest.param(
            "<end>", ["<end>"], TURNS, ["<end>", "<a>"], "<end>", id="a base model may never have seen the template's"
        ),
        pytest.param("<end>", ["<end>", "<a>"], TURNS, ["<end>", "<a>"], "<a>", id="the template's, where the config knows it"),
        pytest.param("<a>", ["<end>"], TURNS, ["<end>", "<a>"], "<a>", id="the template's, where the tokenizer knows it"),
        pytest.param("<end>", ["<a>"], None, ["<a>", "<end>"], "<end>", id="the tokenizer's, without a template"),
        pytest.param(None, ["<s>", "<a>"], None, ["<s>", "<a>"], "<s>", id="the config's first, without any other"),
        pytest.param("<end>", [], TURNS.replace("<a>", " over"), ["<end>"], "<end>", id="a word is no end"),
    ],
)
def test_which_tokens_end_an_answer(
    llm: ToyLLM, own: str | None, named: list[str], template: str | None, ends: list[str], end: str
):
    ids = llm.tokenizer.convert_tokens_to_ids
    llm.tokenizer.eos_token, llm.tokenizer.chat_template = own, template
    llm.model.generation_config.eos_token_id = ids(named) or None
    found = LLM(llm.model, llm.tokenizer)
    assert (found.end_ids, found.end_id) == (ids(ends), ids(end))


def test_a_padding_token_without_an_embedding_is_not_used(llm: ToyLLM):
    llm.tokenizer.add_special_tokens({"pad_token": "<new>"})
    assert llm.tokenizer.pad_token_id == len(llm.table)
    assert LLM(llm.model, llm.tokenizer).pad_id == llm.end_id


def test_encoding_adds_nothing_and_decoding_drops_special_tokens(llm: ToyLLM):
    ids = llm.encode(" the cat<end>")
    assert len(ids) == 6
    assert ids[-1] == llm.end_id
    assert llm.decode(ids) == "the cat"


def test_the_toy_is_the_same_for_the_same_seed_and_leaves_the_global_one_alone():
    state = torch.get_rng_state()
    first, second, other = ToyLLM(), ToyLLM(), ToyLLM(seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.digest == second.digest != other.digest
