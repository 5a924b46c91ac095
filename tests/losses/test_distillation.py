"""KL from the LLM that reads the transcript: the formula, and who the teacher is."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contract
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stapes import lora
from stapes.losses.distillation import Distillation
from stapes.model import SpeechLLM, Targets
from stapes.types import Padded, Utterance

TEXTS = ("the cat sat", "", "And then: it rained!")
WEIGHTS = {"distillation": 1.0}
Build = Callable[..., SpeechLLM]


def utterances() -> list[Utterance]:
    return [Utterance(str(number), Path("x.wav"), text, 1.0) for number, text in enumerate(TEXTS)]


def build(toy_model: Build, **changes: Any) -> SpeechLLM:
    """A model with the loss, whose LoRA layers do something, as after training."""
    model = toy_model(loss_modules={"distillation": {"temperature": 2.0}}, **changes)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if lora.MARK in name:
                parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_against_the_formula(temperature: float):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(7, 5, generator=generator) for _ in range(2))
    q, p = (np.exp(logits.double().numpy() / temperature) for logits in (student, teacher))
    q, p = q / q.sum(1, keepdims=True), p / p.sum(1, keepdims=True)
    expected = (p * np.log(p / q)).sum()
    assert float(Distillation(temperature)(student, teacher)) == pytest.approx(expected, rel=1e-5)
    assert float(Distillation(temperature)(teacher, teacher)) == pytest.approx(0.0, abs=1e-6)


@torch.no_grad()
def test_the_teacher_is_the_llm_as_it_was_reading_the_normalised_transcript(toy_model: Build):
    """Against the bare LLM, row by row; LoRA has moved the student's and is back in its place afterwards."""
    model, base = build(toy_model), toy_model(llm_lora=None)
    answers = [model.answer(model.task.target(row)) for row in utterances()]
    before, after = base.prompts["asr"][0]
    rows = model.taught(Targets(answers, utterances=utterances())).split([len(answers[0]), len(answers[2])])
    for found, text, answer in zip(rows, ("the cat sat", "and then it rained"), (answers[0], answers[2]), strict=True):
        ids = [*before, *base.llm.encode(text), *after, *answer[:-1]]
        expected = base.llm.model(torch.tensor([ids])).logits[0, -len(answer) :]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    transcripts = Padded.from_rows([model.llm.embed(torch.tensor(model.llm.encode("the cat sat")))])
    moved, _ = model.logits(transcripts, answers[:1])
    assert not torch.allclose(moved, rows[0], atol=1e-2)


@torch.no_grad()
def test_the_loss_is_the_sum_over_utterances_with_a_transcript(toy_model: Build):
    model, batch = build(toy_model), contract.frames([30, 12, 21], dim=16)
    answers = [model.answer(model.task.target(row)) for row in utterances()]
    together = model(batch, Targets(answers, utterances=utterances()), WEIGHTS)["distillation"]
    each = [
        model(Padded.from_rows([frames]), Targets([answer], utterances=[row]), WEIGHTS)["distillation"]
        for frames, answer, row in zip(batch.rows(), answers, utterances(), strict=True)
    ]
    torch.testing.assert_close(together, torch.stack(each).sum(), rtol=1e-4, atol=1e-4)
    assert each[1] == 0
    logits, _ = model.logits(model.speech(Padded.from_rows(batch.rows()[:1])).embeddings, answers[:1])
    taught = model.taught(Targets(answers[:1], utterances=utterances()[:1]))
    by_torch = F.kl_div((logits / 2).log_softmax(-1), (taught / 2).softmax(-1), reduction="batchmean")
    assert float(each[0]) == pytest.approx(float(by_torch) * len(answers[0]), rel=1e-4)
    assert model.target_counts(Targets(answers, utterances=utterances()))["distillation"] == len(answers[0]) + len(answers[2])


def test_gradients_are_the_students_alone(toy_model: Build):
    """Those that a fixed teacher gives; none is kept from the teacher's pass, which switches LoRA off and on again."""
    model = build(toy_model)
    lora.set_trainable(model, ["adapter", "llm.lora"])
    model.train()
    batch, rows = contract.frames([30, 21], dim=16), [utterances()[0], utterances()[2]]
    answers = [model.answer(model.task.target(row)) for row in rows]
    twin = copy.deepcopy(model)
    model(batch, Targets(answers, utterances=rows), WEIGHTS)["distillation"].backward()
    fixed = build(toy_model).taught(Targets(answers, utterances=rows))
    logits, _ = twin.logits(twin.speech(batch).embeddings, answers)
    Distillation(2.0)(logits, fixed).backward()
    assert model.llm.training
    for (name, own), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert own.requires_grad == other.requires_grad, name
        assert (own.grad is None) == (other.grad is None), name
        if own.grad is not None:
            torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-6)
    assert any(own.grad is not None and own.grad.any() for name, own in model.named_parameters() if lora.MARK in name)
