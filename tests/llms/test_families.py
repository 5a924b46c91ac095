"""Every family of LLMs that the documentation names, on a small random model of its kind; see ``families``."""

import re
from collections.abc import Callable
from pathlib import Path

import contract
import pytest
import torch
from llms.families import FAMILIES, Family
from torch import Tensor

from stapes import checkpoint, lora, recipe
from stapes.decoding.generate import generate
from stapes.llms.base import SPEECH_MARK
from stapes.llms.causal import CausalLLM
from stapes.model import SpeechLLM, Targets
from stapes.recipe import Decoding
from stapes.types import Audio

TEXTS = ("the cat sat", "and then it rained in the afternoon", "")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def family(name: str) -> Family:
    return FAMILIES[name]


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llm")
    family.write(path)
    return path


@pytest.fixture(scope="module")
def llm(family: Family, folder: Path) -> CausalLLM:
    return CausalLLM(f"path:{folder}", **family.options)


@pytest.fixture
def build(family: Family, folder: Path) -> Callable[..., SpeechLLM]:
    """build(**sections): the family behind a toy encoder, with LoRA."""

    def make(**changes: object) -> SpeechLLM:
        sections = {
            "encoder": {"name": "toy"},
            "adapter": {"name": "stack_mlp", "stride": 3, "hidden_dim": 32},
            "llm": {"name": "causal", "weights": f"path:{folder}"} | family.options,
            "tasks": [{"name": "asr"}],
            "llm_lora": {"rank": 4},
        }
        torch.manual_seed(0)
        return SpeechLLM.build(**sections | changes)

    return make


def batch(llm: CausalLLM, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Rows of ids, embedded and padded on the left with what must not matter, and their mask."""
    longest = max(map(len, rows))
    garbage = 100 * contract.frames([longest] * len(rows), llm.dim).values
    mask = torch.arange(longest) >= longest - torch.tensor([len(row) for row in rows])[:, None]
    for row, ids in enumerate(rows):
        garbage[row, longest - len(ids) :] = llm.embed(torch.tensor(ids))
    return garbage, mask


def prompts(llm: CausalLLM) -> list[list[int]]:
    before, after = llm.wrap("Listen.")
    return [[*before, *llm.encode(text), *after] for text in TEXTS]


def names(llm: CausalLLM, ids: list[int]) -> list[str]:
    return llm.tokenizer.convert_ids_to_tokens(ids)


# -- tokens and templates ------------------------------------------------------------------------------------------------


def test_the_prompt_is_the_familys_format_byte_for_byte(family: Family, llm: CausalLLM):
    before, after = llm.wrap("Listen.")
    middle = llm.encode("a")
    text = llm.tokenizer.decode([*before, *middle, *after])
    lead = llm.tokenizer.decode(before)
    assert text.startswith(lead)
    assert f"{lead}SPEECH{text[len(lead) + 1 :]}" == family.prompt


@pytest.mark.parametrize("text", [*TEXTS, "é 5"])
def test_the_halves_around_a_text_are_the_tokens_of_the_whole(llm: CausalLLM, text: str):
    """As the family's own tokenizer cuts it up: no space more and none less, where the halves meet."""
    before, after = llm.wrap("Listen.")
    written = llm._prompt("Listen.").replace(SPEECH_MARK, text)
    bos = llm.tokenizer.bos_token
    whole = llm.tokenizer(written, add_special_tokens=bos is None or not written.startswith(bos))["input_ids"]
    assert [*before, *llm.encode(text), *after] == whole


def test_a_text_begins_with_the_token_that_the_tokenizer_puts_there_and_once(family: Family, llm: CausalLLM):
    before, _ = llm.wrap("Listen.")
    bos = llm.tokenizer.bos_token_id
    adds = llm.tokenizer("x")["input_ids"][0] == bos
    assert (before[0] == bos) is (adds or family.prompt.startswith(llm.tokenizer.bos_token or "\0"))
    if adds:
        assert before.count(bos) == 1


@pytest.mark.parametrize("text", [" the cat", "the cat", "at sat", "é", " 5", "\n", "'s"])
def test_a_text_goes_on_where_another_ends(llm: CausalLLM, text: str):
    ids = llm.encode(text)
    start = llm.encode("rain")
    assert llm.tokenizer.decode([*start, *ids]) == llm.tokenizer.decode(start) + text


def test_ends_and_padding(family: Family, llm: CausalLLM):
    assert set(names(llm, llm.end_ids)) == set(family.ends)
    assert names(llm, [llm.end_id, llm.pad_id]) == [family.end, family.pad]


def test_the_documentation_says_the_same(name: str, llm: CausalLLM, family: Family):
    page = (Path(__file__).parents[2] / "docs/llms.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
    _, ends, pad, template, tied, _ = (cell.strip().replace("\\|", "|") for cell in row.strip("| ").split(" | "))
    ends = re.findall(r"`([^`]+)`", ends)
    assert (ends[0], set(ends), re.findall(r"`([^`]+)`", pad)) == (family.end, set(family.ends), [family.pad])
    assert ("its own" in template) is (family.template is not None)
    assert ("chat_template: vicuna" in template) is (family.options == {"chat_template": "vicuna"})
    assert ("yes" in tied) is family.tied


# -- embeddings, logits, generation ------------------------------------------------------------------------------------


@torch.no_grad()
def test_text_as_embeddings_is_text_as_ids(llm: CausalLLM):
    """Gemma scales in its table, Granite behind it; either way what ``embed`` gives is what the model is to be given."""
    ids = torch.tensor([prompts(llm)[0]])
    wanted = llm.model(ids).logits
    torch.testing.assert_close(llm.model(inputs_embeds=llm.embed(ids)).logits, wanted)
    torch.testing.assert_close(llm.table[ids], llm.embed(ids))
    assert wanted.std() > 1e-2


@torch.no_grad()
def test_logits_where_they_are_wanted_are_the_models_own_whatever_stands_on_the_left(llm: CausalLLM):
    rows = prompts(llm)
    embeddings, mask = batch(llm, rows)
    wanted = torch.tensor([[True, True, True], [False, True, True], [False, False, True]])
    found = llm(embeddings, mask, wanted).split([3, 2, 1])
    for row, count, logits in zip(rows, (3, 2, 1), found, strict=True):
        torch.testing.assert_close(logits, llm.model(torch.tensor([row])).logits[0, -count:], **CLOSE)


@torch.no_grad()
def test_what_is_written_is_the_models_most_likely_text(llm: CausalLLM):
    """Greedily, token by token, from ids and without a cache; whatever the generation config says about sampling."""
    rows = prompts(llm)
    found = llm.generate(*batch(llm, rows), max_new_tokens=6, do_sample=False).tolist()
    for row, written in zip(rows, found, strict=True):
        text: list[int] = []
        while len(text) < 6 and not (text and text[-1] in llm.end_ids):
            text.append(int(llm.model(torch.tensor([row + text])).logits[0, -1].argmax()))
        assert written == text + [llm.pad_id] * (6 - len(text))


def test_every_end_of_the_family_ends_an_answer(llm: CausalLLM):
    rows = prompts(llm)[:2]
    for end in llm.end_ids:

        def insist(ids: Tensor, scores: Tensor, end: int = end) -> Tensor:
            wanted = llm.encode("a")[0] if ids.shape[1] < 2 else end
            return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([wanted]), 0.0)

        found = llm.generate(*batch(llm, rows), max_new_tokens=9, do_sample=False, logits_processor=[insist])
        assert found.tolist() == [[*llm.encode("a") * 2, end]] * 2


def test_it_says_rightly_whether_it_can_take_back_what_it_has_read(family: Family, llm: CausalLLM):
    assert llm.can_rewind is family.rewinds


# -- the whole flow ----------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("ctc", [None, {"merges": 20, "compress": True}], ids=["adapter alone", "with CTC head"])
def test_alone_is_as_in_a_batch(build: Callable[..., SpeechLLM], ctc: dict | None):
    """With a CTC head there are drafts, where the LLM can take back what it has read; the text is the same."""
    model = build(ctc=ctc)
    contract.awake(model.adapter)
    sounds, options = contract.sounds([0.6, 1.9, 1.1]), Decoding(tokens_per_second=4, tokens_spare=2)
    frames = model.encode(Audio.from_arrays(sounds))
    answers = [model.answer(text) for text in TEXTS]
    together = generate(model, frames, [0.6, 1.9, 1.1], options)
    logits, _ = model.logits(model.speech(frames).embeddings, answers)
    rows = logits.split(list(map(len, answers)))
    for sound, answer, hypothesis, row in zip(sounds, answers, together, rows, strict=True):
        alone = model.encode(Audio.from_arrays([sound]))
        assert generate(model, alone, [len(sound) / 16_000], options) == [hypothesis]
        torch.testing.assert_close(model.logits(model.speech(alone).embeddings, [answer])[0], row, rtol=1e-3, atol=1e-3)
        spliced = model.splice(model.speech(alone).embeddings)
        plain = model.llm.generate(*spliced, max_new_tokens=len(hypothesis.tokens) + 1, do_sample=False)[0].tolist()
        assert plain[: len(hypothesis.tokens)] == hypothesis.tokens


def test_a_step_with_lora_learns_and_leaves_the_rest_alone(build: Callable[..., SpeechLLM]):
    model = build(ctc={"merges": 20, "compress": False})
    lora.set_trainable(model, ("adapter", "ctc", "llm.lora"))
    frames = model.encode(Audio.from_arrays(contract.sounds([0.6, 1.9, 1.1])))
    answers = [model.answer(text) for text in TEXTS]
    assert all(answer[-1] == model.llm.end_id for answer in answers)
    assert model.target_counts(Targets(answers))["ctc"] == sum(len(model.pieces.of_tokens(answer[:-1])) for answer in answers)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    optimizer = torch.optim.Adam([value for value in model.parameters() if value.requires_grad], lr=1e-3)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = sum(model(frames, Targets(answers), {"next_token": 1.0, "ctc": 1.0}).values())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    assert all(key.startswith(("adapter.", "ctc.")) or lora.MARK in key for key in moved)
    layers = {key.split(".self_attn.")[1].split(".")[0] for key in moved if lora.MARK in key}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_only_what_is_read_is_embedded(build: Callable[..., SpeechLLM]):
    """The table of a scaled embedding (Gemma) is a computation over the whole vocabulary."""
    model, counts = build(ctc={"merges": 20, "compress": False}), list[int]()
    model.llm.model.get_input_embeddings().register_forward_pre_hook(lambda _, given: counts.append(given[0].numel()))
    frames = model.encode(Audio.from_arrays(contract.sounds([0.6, 1.9, 1.1])))
    model(frames, Targets([model.answer(text) for text in TEXTS]), {"next_token": 1.0, "ctc": 1.0})
    generate(model, frames, [0.6, 1.9, 1.1], Decoding(tokens_per_second=4, tokens_spare=2))
    assert 0 < max(counts) < model.llm.vocab_size


@torch.no_grad()
def test_a_checkpoint_brings_it_back_ties_and_template_included(
    family: Family, folder: Path, build: Callable[..., SpeechLLM], tmp_path: Path
):
    model = build()
    inner = model.llm.model
    assert (inner.get_input_embeddings().weight is inner.get_output_embeddings().weight) is family.tied
    sections = {"llm": {"name": "causal", "weights": f"path:{folder}"} | family.options, "lora": {"rank": 4}}
    sections |= {"encoder": {"name": "toy"}, "adapter": {"name": "stack_mlp", "stride": 3, "hidden_dim": 32}}
    checkpoint.save(model, tmp_path / "run", recipe.parse(sections), checkpoint.trained_state(model))
    loaded, _, _ = checkpoint.load(tmp_path / "run")
    assert loaded.prompts["asr"][0] == model.llm.wrap(model.task.instruction)
    inner = loaded.llm.model
    assert (inner.get_input_embeddings().weight is inner.get_output_embeddings().weight) is family.tied


def test_ties_outlast_being_saved_by_transformers(family: Family, llm: CausalLLM, tmp_path: Path):
    llm.model.save_pretrained(tmp_path)
    llm.tokenizer.save_pretrained(tmp_path)
    again = CausalLLM(f"path:{tmp_path}", **family.options)
    assert again.digest == llm.digest
    assert (again.model.get_input_embeddings().weight is again.model.get_output_embeddings().weight) is family.tied
    assert (again.end_ids, again.end_id, again.pad_id) == (llm.end_ids, llm.end_id, llm.pad_id)
