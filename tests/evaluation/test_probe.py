"""The listening probe passes a model that listens and fails one that is fed noise."""

import itertools
from collections.abc import Callable
from pathlib import Path

import contract
import pytest
import torch
from torch import Tensor

from stapes import lora
from stapes.adapters import Adapter
from stapes.data.cache import encode
from stapes.data.manifest import read_manifest
from stapes.evaluation.probe import Probe, probe
from stapes.losses.next_token import next_token
from stapes.model import SpeechLLM, Targets
from stapes.training.display import Display
from stapes.types import Padded


class FedNoise(Adapter):
    """Another adapter that is given noise in place of the frames, each time a new one."""

    def __init__(self, inner: Adapter) -> None:
        super().__init__()
        self.inner, self.generator = inner, torch.Generator().manual_seed(0)

    def forward(self, frames: Padded) -> Padded:
        noise = torch.randn(frames.values.shape, generator=self.generator)
        return self.inner(Padded(frames.values.mean() + frames.values.std() * noise, frames.lengths))

    def output_lengths(self, lengths: Tensor) -> Tensor:
        return self.inner.output_lengths(lengths)


@pytest.fixture(scope="module")
def learnt(tones: Path) -> tuple[SpeechLLM, list[Tensor], list[str]]:
    """A model of toys that was trained, LLM and all, until it listens; frames and texts."""
    rows = read_manifest(tones / "train.jsonl")
    torch.manual_seed(0)
    model = SpeechLLM.build(
        encoder={"name": "toy"},
        adapter={"name": "stack_mlp", "stride": 6, "hidden_dim": 64},
        llm={"name": "toy"},
        tasks=[{"name": "asr"}],
    )
    lora.set_trainable(model, ["adapter", "llm"])
    frames, texts = encode(model.encoder, rows).rows(), [row.text for row in rows]
    batch, answers = Padded.from_rows([row.clone() for row in frames]), [model.answer(text) for text in texts]
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=5e-3)
    for step in itertools.count():
        loss = model(batch, Targets(answers), {"next_token": 1.0})["next_token"] / sum(map(len, answers))
        if float(loss.detach()) < 0.3:
            break
        assert step < 400, f"the toys do not learn: loss {float(loss):.2f}"
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), frames, texts


def test_a_model_that_listens(learnt: tuple[SpeechLLM, list[Tensor], list[str]]):
    found = probe(*learnt)
    assert found.listens
    assert found.gap > 1.0
    assert found.right < 0.3


def test_an_adapter_that_is_fed_noise(learnt: tuple[SpeechLLM, list[Tensor], list[str]]):
    """How many embeddings there are still tells how long the text is; silence of the same length shows that up."""
    model, frames, texts = learnt
    own = model.adapter
    try:
        model.adapter = FedNoise(own)
        found = probe(model, frames, texts)
    finally:
        model.adapter = own
    assert not found.listens
    assert found.gap < 0.2
    assert found.right > 1.0
    assert found.other - found.right > 0.2


def test_a_fresh_model_does_not_listen(toy_model: Callable[..., SpeechLLM]):
    model = toy_model()
    found = probe(model, contract.frames([30, 20, 40], dim=16).rows(), ["the cat", "a", "and"])
    assert abs(found.gap) < 0.05
    assert not found.listens


def test_it_measures_the_loss_per_token(learnt: tuple[SpeechLLM, list[Tensor], list[str]]):
    """Right, the neighbour's and silence of the same length, one utterance at a time."""
    model, frames, texts = learnt
    found = probe(model, frames, texts)
    sums, tokens = [0.0, 0.0, 0.0], 0
    for number, text in enumerate(texts):
        answer = model.answer(text)
        tokens += len(answer)
        silence = torch.full_like(frames[number], float(torch.log(torch.tensor(1e-6)) / 8 + 1))
        for kind, sound in enumerate((frames[number], frames[(number + 1) % len(frames)], silence)):
            speech = model.speech(Padded.from_rows([sound])).embeddings
            sums[kind] += float(next_token(*model.logits(speech, [answer])).detach())
    assert [found.right, found.other, found.silence] == pytest.approx([total / tokens for total in sums], rel=1e-3)


def test_the_gap_is_to_the_nearest_of_the_wrong_sounds():
    assert Probe(right=1.0, other=1.5, silence=1.1).gap == pytest.approx(0.1)
    assert Probe(right=1.0, other=1.15, silence=9.0).gap == pytest.approx(0.15)
    assert Probe(right=1.0, other=1.3, silence=1.3).listens
    assert not Probe(right=1.0, other=1.1, silence=1.3).listens


def test_training_warns_of_a_deaf_model(capsys: pytest.CaptureFixture[str], toy_model: Callable[..., SpeechLLM]):
    display = Display()
    with display.stage(toy_model(), "train", 0, 1):
        deaf = {"loss_right_audio": 3.0, "loss_other_audio": 3.1, "loss_silence": 3.3}
        display.evaluation(1, deaf, is_best=True)
        warned = capsys.readouterr().err
        display.evaluation(1, deaf | {"loss_other_audio": 3.3}, is_best=True)
        silent = capsys.readouterr().err
    assert "warning: the model does not listen" in warned
    assert "only 0.10 nats per token" in warned
    assert "warning" not in silent
