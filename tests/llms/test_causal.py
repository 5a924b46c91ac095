"""What a recipe can say of a causal LLM: where it comes from, its chat template, how many bits."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from llms.families import FAMILIES

from stapes.errors import MissingDependency, RecipeError, WeightsError
from stapes.llms.base import SPEECH_MARK
from stapes.llms.causal import CausalLLM
from stapes.llms.templates import TEMPLATES
from stapes.llms.toy import ToyLLM

PAGE = Path(__file__).parents[2] / "docs/llms.md"


@pytest.fixture
def llm() -> ToyLLM:
    return ToyLLM()


@pytest.fixture
def folder(llm: ToyLLM, tmp_path: Path) -> str:
    llm.model.save_pretrained(tmp_path)
    llm.tokenizer.save_pretrained(tmp_path)
    return f"path:{tmp_path}"


def rendered(llm: CausalLLM) -> str:
    before, after = llm.wrap("Listen.")
    return llm.tokenizer.decode(before) + SPEECH_MARK + llm.tokenizer.decode(after)


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("plain", f"Listen.\n{SPEECH_MARK}\n"),
        (
            "chatml",
            f"<|im_start|>system\nListen.<|im_end|>\n<|im_start|>user\n{SPEECH_MARK}<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "vicuna",
            "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
            f"and polite answers to the user's questions. USER: Listen.\n{SPEECH_MARK} ASSISTANT:",
        ),
        ("slam_asr", f"{SPEECH_MARK}USER: Listen. \n ASSISTANT:"),
        (
            "connect_mistral",
            "[INST] <<SYS>>\nAs a helpful language and speech assistant, you are able to understand the speech content "
            "provided by the user, and assist the user with a variety of tasks using natural language.\n<</SYS>>\n\n"
            f"{SPEECH_MARK}\nListen. [/INST]",
        ),
        (
            "connect_llama",
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
            "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
            "and polite answers to the user's questions.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
            f"{SPEECH_MARK}\nListen.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
    ],
)
def test_a_template_by_name_goes_before_the_tokenizers_own(folder: str, name: str, prompt: str):
    assert rendered(CausalLLM(folder, chat_template=name)) == prompt


@pytest.mark.parametrize(
    ("template", "family", "prompt"),
    [
        ("slam_asr", "Vicuna 1.5", "<s>SPEECHUSER: Listen. \n ASSISTANT:"),
        ("connect_mistral", "Mistral 0.3", "natural language.\n<</SYS>>\n\nSPEECH\nListen. [/INST]"),
        ("connect_llama", "Llama 3", "user<|end_header_id|>\n\nSPEECH\nListen.<|eot_id|>"),
    ],
)
def test_the_speech_comes_first(template: str, family: str, prompt: str, tmp_path: Path):
    """With a tokenizer of the family: every token of the instruction behind the speech, one begin token, the family's end."""
    FAMILIES[family].write(tmp_path)
    llm = CausalLLM(f"path:{tmp_path}", chat_template=template)
    before, after = (llm.tokenizer.decode(ids) for ids in llm.wrap("Listen."))
    assert prompt in f"{before}SPEECH{after}"
    assert "Listen." in after and "Listen." not in before
    begin = llm.tokenizer.bos_token_id
    assert [*llm.wrap("Listen.")[0], *llm.wrap("Listen.")[1]].count(begin) == 1
    assert llm.tokenizer.convert_ids_to_tokens(llm.end_id) == FAMILIES[family].end


def test_every_named_template_is_in_the_documentation():
    assert all(f"`{name}`" in PAGE.read_text() for name in TEMPLATES)


def test_the_jinja_of_the_documentation(folder: str):
    (block,) = [text for text in PAGE.read_text().split("```") if text.startswith("yaml") and "{% for" in text]
    template = yaml.safe_load(block.removeprefix("yaml"))["llm"]["chat_template"]
    prompt = f"system: Listen.\nuser: {SPEECH_MARK}\nassistant:"
    assert rendered(CausalLLM(folder, chat_template=template)) == prompt


def test_an_unknown_template_is_an_error_that_names_the_nearest(folder: str):
    with pytest.raises(RecipeError, match=r"llm.chat_template: 'vicunia', .* did you mean 'vicuna'"):
        CausalLLM(folder, chat_template="vicunia")


def test_a_template_that_is_not_jinja_is_an_error_that_says_why(folder: str):
    with pytest.raises(WeightsError, match=r"takes neither .*(Encountered|unexpected|expected)"):
        CausalLLM(folder, chat_template="{% for %}").wrap("Listen.")


def test_bits_that_there_are_not(folder: str):
    with pytest.raises(RecipeError, match=r"llm.quantize: '2bit', expected '4bit' or '8bit'"):
        CausalLLM(folder, quantize="2bit")  # type: ignore[arg-type]


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_quantising_without_bitsandbytes_says_what_to_install(folder: str, bits: str):
    with pytest.raises(MissingDependency, match=r"quantize.*pip install 'stapes\[quantize\]'"):
        CausalLLM(folder, quantize=bits)  # type: ignore[arg-type]


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
