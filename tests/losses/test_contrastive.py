"""InfoNCE against its formula in NumPy, and how it depends on the batch."""

import contract
import numpy as np
import pytest
import torch

from stapes.losses import SpeechAndText
from stapes.losses.contrastive import MOST_SCALE, Contrastive


def by_the_formula(speech: list[np.ndarray], text: list[np.ndarray], temperature: float) -> float:
    pairs = [(s.mean(0), t.mean(0)) for s, t in zip(speech, text, strict=True) if len(t)]
    s, t = (np.stack([side / np.linalg.norm(side) for side in sides]) for sides in zip(*pairs, strict=True))
    L = np.exp(s @ t.T / temperature)
    each = [-np.log(L[i, i] / L[i].sum()) - np.log(L[i, i] / L[:, i].sum()) for i in range(len(L))]
    return float(sum(each) / 2)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_against_the_formula(temperature: float):
    batch = contract.pair()
    speech, text = ([row.double().numpy() for row in side.rows()] for side in (batch.speech, batch.text))
    found = float(Contrastive(temperature)(batch).detach())
    assert found == pytest.approx(by_the_formula(speech, text, temperature), rel=1e-5)


def test_one_utterance_has_nothing_to_be_told_apart_from():
    batch = contract.rows_of(contract.pair())[0]
    values = batch.speech.values.requires_grad_()
    value = Contrastive(0.07)(SpeechAndText(batch.speech, batch.text))
    value.backward()
    assert value == 0
    assert values.grad is not None
    assert not values.grad.any()


def test_it_is_lower_where_each_speech_is_its_own_text():
    batch = contract.pair()
    loss = Contrastive(0.07)
    own = loss(SpeechAndText(batch.text, batch.text))
    assert own < 0.1 * loss(batch)
    assert loss.target_count([[5, 0], [0], [4, 4, 0]], []) == 2


def test_the_temperature_is_learned_and_has_a_floor():
    loss = Contrastive(0.5)
    assert float(loss.log_scale.detach().exp()) == pytest.approx(2.0)
    with torch.no_grad():
        loss.log_scale.fill_(20.0)
    capped = Contrastive(1 / MOST_SCALE)
    torch.testing.assert_close(loss(contract.pair()), capped(contract.pair()))
