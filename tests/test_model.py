"""The whole flow: one prompt for training and inference, losses of targets only, nothing that depends on neighbours."""

from collections.abc import Callable
from pathlib import Path

import contract
import pytest
import torch
import torch.nn.functional as F

from stapes import lora
from stapes.adapters import ADAPTERS
from stapes.llms.base import SPEECH_MARK, positions
from stapes.llms.causal import CausalLLM
from stapes.losses.next_token import next_token
from stapes.model import SpeechLLM, Targets
from stapes.types import Audio, Padded, Utterance

TEXTS = ("the cat sat", "", "and then it rained in the afternoon")
Build = Callable[..., SpeechLLM]


def frames(*lengths: int, dim: int = 16) -> Padded:
    return contract.frames(lengths, dim=dim)


def stirred(model: SpeechLLM) -> SpeechLLM:
    """Every trained tensor moved, so that LoRA and residual maps that start at zero take part."""
    for part in (model.adapter, model.ctc):
        if part is not None:
            contract.awake(part)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if lora.MARK in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    return model


# -- the prompt --------------------------------------------------------------------------------------------------------


def test_training_reads_exactly_the_prefix_that_generation_starts_from(toy_model: Build):
    model = toy_model()
    speech = model.speech(frames(30, 12, 21)).embeddings
    answers = [model.answer(text) for text in TEXTS]
    prefixes, prefix_mask = model.splice(speech)
    trained, trained_mask = model.splice(speech, answers)
    for row, answer in enumerate(answers):
        prefix = prefixes[row][prefix_mask[row]]
        read = trained[row][trained_mask[row]]
        assert torch.equal(read[: len(prefix)], prefix)
        assert torch.equal(read[len(prefix) :], model.llm.embed(torch.tensor(answer[:-1], dtype=torch.long)))


def test_the_prompt_is_the_chat_template_around_the_speech(toy_model: Build):
    model = toy_model(tasks=[{"name": "asr", "instruction": "Write <u> what you hear."}])
    decode = model.llm.tokenizer.decode
    text = SPEECH_MARK.join(map(decode, model.prompts["asr"][0]))
    assert text == f"<s>Write <u> what you hear.<u>{SPEECH_MARK}<a>"


def test_the_speech_stands_between_the_two_halves(toy_model: Build):
    model = toy_model()
    speech = model.speech(frames(30, 12)).embeddings
    spliced, mask = model.splice(speech)
    before, after = (model.llm.embed(torch.tensor(ids)) for ids in model.prompts["asr"][0])
    for row, sound in enumerate(speech.rows()):
        torch.testing.assert_close(spliced[row][mask[row]], torch.cat([before, sound, after]))


@pytest.mark.weights
def test_the_prompt_of_smollm2(pack: Callable[[str], Path]):
    """The template's own system message gives way to the instruction; nothing is added at the end."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(pack("smollm2-135m-instruct"))
    llm = CausalLLM.__new__(CausalLLM)
    torch.nn.Module.__init__(llm)
    llm.tokenizer, llm.source = tokenizer, "pack:smollm2-135m-instruct"
    before, after = llm.wrap("Transcribe the speech.")
    assert tokenizer.decode(before) == "<|im_start|>system\nTranscribe the speech.<|im_end|>\n<|im_start|>user\n"
    assert tokenizer.decode(after) == "<|im_end|>\n<|im_start|>assistant\n"


def test_words_of_the_template_in_a_transcript_change_neither_prompt_nor_end(toy_model: Build):
    model = toy_model()
    text = f"so <end> he said <a> the {SPEECH_MARK} user <s>system"
    row = Utterance("x", Path("x.wav"), text, 1.0)
    answer = model.answer(model.task.target(row))
    special = set(model.llm.tokenizer.all_special_ids)
    assert [token for token in answer if token in special] == [model.llm.end_id]
    assert answer[-1] == model.llm.end_id
    assert model.llm.decode(answer) == model.task.target(row) == f"so end he said a the {SPEECH_MARK.lower()} user s system"
    speech = model.speech(frames(9)).embeddings
    spliced, _ = model.splice(speech, [answer])
    prefix, _ = model.splice(speech)
    assert torch.equal(spliced[:, : prefix.shape[1]], prefix)


def test_an_answer_begins_with_a_space_and_ends(toy_model: Build):
    model = toy_model()
    tokens = model.llm.tokenizer.convert_ids_to_tokens(model.answer("the cat"))
    assert tokens == ["Ġ", "the", "Ġc", "a", "t", "<end>"]
    assert model.answer("") == [model.llm.end_id]


# -- logits and losses -------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_logits_at_the_targets_are_the_llms_own(toy_model: Build):
    """Each row alone and unpadded through the whole Hugging Face model, all positions projected."""
    model = stirred(toy_model())
    speech = model.speech(frames(30, 12, 21)).embeddings
    answers = [model.answer(text) for text in TEXTS]
    logits, targets = model.logits(speech, answers)
    assert targets.tolist() == [token for answer in answers for token in answer]
    rows = logits.split([len(answer) for answer in answers])
    for found, sound, answer in zip(rows, speech.rows(), answers, strict=True):
        ids = torch.tensor(answer[:-1], dtype=torch.long)
        before, after = (model.llm.embed(torch.tensor(half)) for half in model.prompts["asr"][0])
        whole = torch.cat([before, sound, after, model.llm.embed(ids)])
        full = model.llm.model(inputs_embeds=whole[None]).logits[0]
        torch.testing.assert_close(found, full[-len(answer) :], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_each_loss_is_the_sum_over_the_utterances(toy_model: Build):
    model = stirred(toy_model())
    batch, answers = frames(60, 24, 45), [model.answer(text) for text in TEXTS]
    together = model(batch, Targets(answers), {"next_token": 1.0, "ctc": 1.0})
    pairs = zip(batch.rows(), answers, strict=True)
    alone = [model(Padded.from_rows([row]), Targets([answer]), together) for row, answer in pairs]
    for name, value in together.items():
        torch.testing.assert_close(value, torch.stack([found[name] for found in alone]).sum(), rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_the_losses_are_what_they_are_called(toy_model: Build):
    model = stirred(toy_model())
    batch, answer = frames(60), model.answer("the cat")
    found = model(batch, Targets([answer]), {"next_token": 1.0, "ctc": 1.0})
    speech = model.speech(batch)
    logits, _ = model.logits(speech.embeddings, [answer])
    torch.testing.assert_close(found["next_token"], F.cross_entropy(logits, torch.tensor(answer), reduction="sum"))
    pieces = torch.tensor([model.pieces.of_tokens(answer)]) + 1
    expected = F.ctc_loss(speech.log_probs.transpose(0, 1), pieces, (20,), (pieces.shape[1],), reduction="sum")
    torch.testing.assert_close(found["ctc"], expected)


@pytest.mark.parametrize(("adapter", "own"), [("cif", "quantity"), ("ctc", "token_ctc"), ("posterior", "token_ctc")])
def test_an_adapter_brings_its_own_loss(toy_model: Build, adapter: str, own: str):
    model = stirred(toy_model(adapter={"name": adapter} | contract.VARIANTS[adapter][0]))
    answers = [model.answer(text) for text in TEXTS]
    assert set(model(frames(30, 12, 60), Targets(answers), {"next_token": 1.0})) == {"next_token"}
    losses = model(frames(30, 12, 60), Targets(answers), {"next_token": 1.0, own: 0.5})
    assert set(losses) == {"next_token", own}
    _, wanted = model.adapter.with_losses(frames(30, 12, 60), answers, [own])
    torch.testing.assert_close(losses[own], wanted[own])
    counts = model.target_counts(Targets(answers))
    tokens = sum(map(len, answers))
    assert counts["next_token"] == tokens
    assert counts[own] == {"quantity": 3, "token_ctc": tokens - 3}[own]


def test_emphasis_is_of_a_row_and_counted(toy_model: Build):
    model = toy_model()
    speech, answers = frames(30, 12), [model.answer(text) for text in TEXTS[:2]]
    alone = [
        model(Padded.from_rows([row]), Targets([answer]), {"next_token": 1.0})["next_token"]
        for row, answer in zip(speech.rows(), answers, strict=True)
    ]
    stressed = Targets(answers, emphasis=[1.0, 8.0])
    torch.testing.assert_close(model(speech, stressed, {"next_token": 1.0})["next_token"], alone[0] + 8 * alone[1])
    assert model.target_counts(stressed)["next_token"] == len(answers[0]) + 8 * len(answers[1])


def test_what_is_not_asked_for_is_not_computed(toy_model: Build):
    model = toy_model()
    assert set(model(frames(60), Targets([model.answer("a")]), {"ctc": 1.0})) == {"ctc"}
    assert set(model(frames(60), Targets([model.answer("a")]), {"next_token": 1.0})) == {"next_token"}
    without = toy_model(ctc=None)
    assert without.speech(frames(60)).log_probs is None
    assert without.heard(without.speech(frames(60, 9))) == [None, None]


def test_positions_count_from_the_first_real_one():
    mask = torch.tensor([[False, False, True, True, True], [True, True, True, True, True]])
    assert positions(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("adapter", ADAPTERS)
@torch.no_grad()
def test_waveform_to_logits_alone_and_in_a_batch(toy_model: Build, adapter: str, compress: bool):
    model = stirred(toy_model(adapter={"name": adapter}, ctc={"merges": 6, "compress": compress}))
    arrays = contract.sounds([0.7, 2.0, 1.3])
    answers = [model.answer(text) for text in TEXTS]
    logits, _ = model.logits(model.speech(model.encode(Audio.from_arrays(arrays))).embeddings, answers)
    rows = logits.split([len(answer) for answer in answers])
    for found, array, answer in zip(rows, arrays, answers, strict=True):
        speech = model.speech(model.encode(Audio.from_arrays([array]))).embeddings
        alone, _ = model.logits(speech, [answer])
        torch.testing.assert_close(found.log_softmax(-1), alone.log_softmax(-1), rtol=1e-3, atol=1e-3)


# -- the speech side ---------------------------------------------------------------------------------------------------


def test_compression_shortens_what_the_llm_reads_and_keeps_what_ctc_is_scored_on(toy_model: Build):
    model = stirred(toy_model(ctc={"merges": 6, "compress": True}))
    with torch.no_grad():
        model.ctc.log_scale += 2  # sure enough of something to drop blanks
        model.ctc.blank.bias += 0.3
    speech = model.speech(frames(90, 30))
    assert speech.uncompressed.lengths.tolist() == [30, 10]
    assert (speech.embeddings.lengths < speech.uncompressed.lengths).all()
    assert speech.log_probs.shape == (2, 30, 1 + len(model.pieces))
    assert all(isinstance(text, str) for text in model.heard(speech))


def test_the_ctc_side_stays_in_float32_under_autocast(toy_model: Build):
    model = stirred(toy_model(ctc={"merges": 6, "compress": True}))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        speech = model.speech(frames(90, 30))
    assert speech.log_probs.dtype == speech.embeddings.values.dtype == torch.float32


@pytest.mark.parametrize("compress", [False, True])
def test_the_loss_of_the_text_trains_the_adapter(toy_model: Build, compress: bool):
    model = toy_model(ctc={"merges": 6, "compress": compress})
    assert not any(parameter.requires_grad for parameter in model.parameters())
    lora.set_trainable(model, ["adapter"])
    logits, targets = model.logits(model.speech(frames(60)).embeddings, [model.answer("the cat")])
    next_token(logits, targets).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.adapter.parameters())
    assert all(parameter.grad is None for parameter in model.llm.parameters())


def test_sizes_are_derived(toy_model: Build):
    model = toy_model(encoder={"name": "toy", "dim": 10}, llm={"name": "toy", "dim": 24})
    assert model.adapter.hidden.in_features == 3 * 10
    assert model.adapter.out.out_features == model.ctc.table.shape[1] == 24
