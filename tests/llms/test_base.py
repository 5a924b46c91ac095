"""What an LLM's tokenizer and template are made into."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stapes.errors import WeightsError
from stapes.llms.base import LLM, SPEECH_MARK
from stapes.llms.causal import CausalLLM
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


def test_any_causal_model_in_a_folder(llm: ToyLLM, tmp_path: Path):
    llm.model.half().save_pretrained(tmp_path)
    llm.tokenizer.save_pretrained(tmp_path)
    loaded = CausalLLM(f"path:{tmp_path}")
    assert next(loaded.parameters()).dtype == torch.float32
    assert loaded.digest == llm.digest, "the digest does not depend on the precision of the file"
    assert loaded.wrap("Listen.") == llm.wrap("Listen.")
    assert (loaded.source, loaded.dim) == (f"path:{tmp_path}", 32)


@pytest.mark.weights
def test_smollm2(pack: Callable[[str], Path]):
    pack("smollm2-135m-instruct")
    llm = CausalLLM("pack:smollm2-135m-instruct")
    assert llm.dim == 576
    assert llm.end_id == llm.tokenizer.convert_tokens_to_ids("<|im_end|>")
    prompt = torch.tensor(llm.encode("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"))
    written = llm.generate(
        llm.embed(prompt)[None], torch.ones(1, len(prompt), dtype=torch.bool), max_new_tokens=9, do_sample=False
    )
    assert "Paris" in llm.decode(written[0].tolist())
