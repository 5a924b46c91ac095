"""What is sound is called sound, and each broken part is called wrong by the check that is meant to find it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mutants import DeafAtTheEnd, DropsRemainder, LeavesPadding, PeaksOverTheBatch
from torch import Tensor, nn

from stapes.adapters import Adapter
from stapes.adapters.stack_mlp import StackMLP
from stapes.doctor import adapters, encoders, llms, steps
from stapes.doctor.base import Finding, Pair
from stapes.doctor.examine import CHECKS, admit, describe, examine
from stapes.encoders import Encoder
from stapes.encoders.toy import ToyEncoder
from stapes.llms import LLM
from stapes.llms.toy import ToyLLM
from stapes.model import SpeechLLM
from stapes.tasks.asr import ASR
from stapes.types import Audio, Padded

TOYS = describe({"name": "toy"}, {"name": "toy"}, {"name": "stack_mlp", "hidden_dim": 16})


def pair(encoder: Encoder | None = None, llm: LLM | None = None, adapter: Callable[..., Adapter] = StackMLP) -> Pair:
    """Toys, with some parts replaced."""
    encoder, llm = encoder or ToyEncoder(), llm or ToyLLM()
    torch.manual_seed(0)
    built = adapter(encoder_dim=encoder.dim, llm_dim=llm.dim, hidden_dim=16)
    healthy = admit(TOYS)
    return Pair(SpeechLLM(encoder, built, llm, [ASR()]).eval(), TOYS, healthy.sound)


def only(findings: Iterator[Finding]) -> Finding:
    (finding,) = findings
    return finding


# -- sound pairs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ["stack_mlp", "conv1d_transformer", "cif", "ctc", "pool_linear"])
def test_toys_are_sound(adapter: str):
    small = {"dim": 16, "heads": 2, "ffn_dim": 16}
    sizes = {"stack_mlp": {"hidden_dim": 16}, "pool_linear": {}}
    findings = list(examine(admit(describe({"name": "toy"}, {"name": "toy"}, {"name": adapter, **sizes.get(adapter, small)}))))
    assert [finding for finding in findings if finding.verdict == "wrong"] == []
    assert len(findings) == len(CHECKS) + 1  # decoding tells of its memory too


@pytest.mark.parametrize("window", ["none", "30s"])
def test_a_small_whisper_is_sound(tiny_whisper: Path, window: str):
    encoder = {"name": "whisper", "weights": f"path:{tiny_whisper}", "window": window}
    found = admit(describe(encoder, {"name": "toy"}, {"name": "stack_mlp", "hidden_dim": 16}))
    for check in (encoders.sizes, encoders.frame_rate, encoders.padding, encoders.hearing, adapters.lengths, steps.training):
        assert [finding for finding in check(found) if finding.verdict == "wrong"] == []


@pytest.mark.weights
def test_the_shipped_pair_is_sound_and_its_memory_as_estimated(pack: Callable[[str], Path]):
    pack("whisper-base"), pack("smollm2-135m-instruct")
    encoder, llm = (
        {"name": "whisper", "weights": "pack:whisper-base"},
        {"name": "causal", "weights": "pack:smollm2-135m-instruct"},
    )
    findings = {finding.check: finding for finding in examine(admit(describe(encoder, llm, {"name": "conv1d_transformer"})))}
    assert {finding.verdict for finding in findings.values()} == {"ok"}, findings
    assert "measured were" in findings["memory of a step"].found
    assert "too little" not in findings["memory of a step"].found
    for check in ("memory of a step", "memory of decoding"):
        words = findings[check].found.split()
        numbers = [float(words[place - 1]) for place, word in enumerate(words) if word == "MB"]
        estimated, measured = numbers[0], numbers[1]
        assert estimated == pytest.approx(measured, rel=steps.TOLERANCE), check


# -- broken encoders ---------------------------------------------------------------------------------------------------


class CountsOneMore(ToyEncoder):
    def output_lengths(self, lengths: Tensor) -> Tensor:
        return super().output_lengths(lengths) + 1

    def forward(self, audio: Audio) -> Padded:
        found = super().forward(audio)
        return Padded(found.values, found.lengths - 1)


class SaysTenMilliseconds(ToyEncoder):
    seconds_per_frame = 0.01


class TakesAnything(ToyEncoder):
    def check_length(self, audio: Audio) -> None:
        pass


class ReadsPaddedFrames(ToyEncoder):
    """Takes the mean of a row away, padding included, and says so."""

    padding_is_safe = False

    def encode(self, audio: Audio) -> Padded:
        found = super().encode(audio)
        return Padded(found.values - found.values.mean(1, keepdim=True), found.lengths).zero_padding()


class MixesTheBatch(ToyEncoder):
    """Takes the loudest of a batch away, though its utterances are of one length."""

    padding_is_safe = False

    def encode(self, audio: Audio) -> Padded:
        found = super().encode(audio)
        return Padded(found.values - found.values.max(), found.lengths).zero_padding()


class Nameless(ToyEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.digest = ""


@pytest.mark.parametrize(
    ("broken", "check", "found"),
    [
        (PeaksOverTheBatch, encoders.padding, "it says that padding is safe; alone and in a batch differ by"),
        (CountsOneMore, encoders.frame_counts, "0.1 s give 5, promised were 6"),
        (SaysTenMilliseconds, encoders.frame_rate, "1500 frames of 30 s are 20.00 ms each, it says 10.00"),
        (DeafAtTheEnd, encoders.hearing, "a burst at 0.99 s of 1.01 s changes nothing"),
        (TakesAnything, encoders.too_long, "30.1 s are taken without an error"),
        (Nameless, encoders.sizes, "it has no digest"),
    ],
)
def test_a_broken_encoder(broken: type[Encoder], check: Callable[[Pair], Iterator[Finding]], found: str):
    assert only(check(pair())).verdict == "ok"
    finding = only(check(pair(encoder=broken())))
    assert finding.verdict == "wrong"
    assert found in finding.found


def test_values_in_the_padding():
    assert [finding.verdict for finding in encoders.padding(pair(encoder=LeavesPadding()))] == ["ok", "wrong"]


def test_an_encoder_that_says_that_padding_is_not_safe():
    split = only(encoders.padding(pair(encoder=ReadsPaddedFrames())))
    assert split.verdict == "ok"
    assert "it says that padding is not safe, and is given one length at a time; alone and in a batch" in split.found
    boasting = ReadsPaddedFrames()
    boasting.padding_is_safe = True
    assert only(encoders.padding(pair(encoder=boasting))).verdict == "wrong"
    assert only(encoders.padding(pair(encoder=MixesTheBatch()))).verdict == "wrong", "those of one length still share a batch"


# -- broken adapters ---------------------------------------------------------------------------------------------------


class RoundsDown(StackMLP):
    def output_lengths(self, lengths: Tensor) -> Tensor:
        return (lengths // self.stride).clamp(min=1)

    def forward(self, frames: Padded) -> Padded:
        found = super().forward(frames)
        return Padded(found.values, -(-frames.lengths // self.stride))


class ReadsPadding(StackMLP):
    def forward(self, frames: Padded) -> Padded:
        found = super().forward(frames)
        return Padded(found.values + frames.values.mean(), found.lengths).zero_padding()


class Forgotten(StackMLP):
    """Has a layer that nothing goes through."""

    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.never = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("broken", "check", "found"),
    [
        (DropsRemainder, adapters.last_frame, "not heard of 8, 13, 34, 89 frames"),
        (RoundsDown, adapters.lengths, "8 frames give 2, promised were 1"),
        (ReadsPadding, adapters.padding, "alone and beside longer ones, embeddings differ by"),
        (Forgotten, steps.training, "no gradient in 2 of 6 tensors: adapter.never.bias, adapter.never.weight"),
    ],
)
def test_a_broken_adapter(broken: Callable[..., Adapter], check: Callable[[Pair], Iterator[Finding]], found: str):
    assert only(check(pair())).verdict == "ok"
    finding = only(check(pair(adapter=broken)))
    assert finding.verdict == "wrong"
    assert found in finding.found


def test_what_cannot_run_is_a_finding_too():
    findings = list(examine(pair(adapter=lambda **sizes: StackMLP(sizes["encoder_dim"], 7, 5, 16))))
    assert Finding("adapters, padding", "ok", "") not in findings
    assert any(finding.check == "llms, logits" and finding.found.startswith("raises RuntimeError") for finding in findings)
    assert any(finding.check == "adapter" and "expected (1, 1, 32)" in finding.found for finding in findings)


# -- LLMs --------------------------------------------------------------------------------------------------------------


def capped_llm(kind: type[LLM] = LLM, **changes: Any) -> LLM:
    """A small Gemma 2, whose head caps its logits softly, with the toy's tokenizer."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    tokenizer = ToyLLM().tokenizer
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "final_logit_softcapping": 0.1,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(Gemma2Config(**settings | changes)).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(50.0)
    return kind(model, tokenizer, "capped")


class OwnHead(LLM):
    """Multiplies with the output layer itself, so that what the model does behind it is lost."""

    def forward(self, embeddings: Tensor, mask: Tensor, wanted: Tensor) -> Tensor:
        hidden = self.model.model(inputs_embeds=embeddings, attention_mask=mask.long()).last_hidden_state
        return self.model.lm_head(hidden[:, -wanted.shape[1] :][wanted])


class AttendsToPadding(LLM):
    def forward(self, embeddings: Tensor, mask: Tensor, wanted: Tensor) -> Tensor:
        return super().forward(embeddings, torch.ones_like(mask), wanted)


def test_a_head_that_caps_is_right_and_one_that_forgets_to_is_wrong():
    assert only(llms.logits(pair(llm=capped_llm()))).verdict == "ok"
    assert only(llms.logits(pair(llm=capped_llm(OwnHead)))).verdict == "wrong"
    assert only(llms.logits(pair(llm=capped_llm(AttendsToPadding)))).verdict == "wrong"


def test_a_context_that_is_too_short():
    finding = only(llms.sizes(pair(llm=capped_llm(max_position_embeddings=64))))
    assert finding.verdict == "wrong"
    assert finding.found.endswith("30 s of speech, prompt and answer are 580 positions, it has 64")


def test_a_context_that_is_too_short_only_for_what_content_may_give_at_most():
    toys = describe({"name": "toy"}, {"name": "toy"}, {"name": "ctc", "dim": 16, "heads": 2, "ffn_dim": 16})
    admitted = admit(toys)
    for room, verdict in ((2000, "ok"), (1000, "warning"), (200, "wrong")):
        admitted.model.llm.model.config.max_position_embeddings = room
        finding = only(llms.sizes(admitted))
        assert finding.verdict == verdict
    assert "30 s of speech, prompt and answer are 400 positions, it has 200" in finding.found
    admitted.model.llm.model.config.max_position_embeddings = 1000
    assert "are about 400 positions with a trained adapter, and 1780 at most; it has 1000" in only(llms.sizes(admitted)).found


def test_an_answer_that_ends_otherwise_than_in_the_template():
    llm = ToyLLM()
    llm.tokenizer.chat_template += "{% for message in messages if message['role'] == 'assistant' %}<u>{% endfor %}"
    finding = only(llms.end(pair(llm=llm)))
    assert (finding.verdict, finding.found) == ("warning", "'<end>' (0), but the chat template writes '<u>' after an answer")


def test_the_prompt_is_shown_as_the_llm_reads_it():
    """Without a system message it opens the user's."""
    llm = ToyLLM()
    llm.tokenizer.chat_template = (
        "{% for message in messages if message['role'] == 'user' %}{{ message['content'] }}{% endfor %}"
    )
    finding = only(llms.prompt(pair(llm=llm)))
    assert (finding.verdict, finding.found) == ("ok", r"'Transcribe the speech.\n' speech ''")


def test_examination_leaves_the_model_as_it_was():
    examined = pair()
    before = {name: tensor.clone() for name, tensor in examined.model.state_dict().items()}
    list(steps.training(examined)), list(steps.training_memory(examined))
    assert all(torch.equal(before[name], tensor) for name, tensor in examined.model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in examined.model.parameters())
