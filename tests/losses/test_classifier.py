"""The classifier against NumPy: its CNN, both losses, and class weights worked out by hand."""

from pathlib import Path
from typing import Any

import contract
import numpy as np
import pytest
import torch

from stapes.errors import DataError
from stapes.losses.classifier import Classifier
from stapes.text import tags
from stapes.types import Entity, Padded, Utterance

D = contract.LLM_DIM


def build(**changes: Any) -> Classifier:
    torch.manual_seed(0)
    options = {"labels": "entities", "channels": [2, 3, 4], "weighting": "capped", "most_weight": 20.0}
    return Classifier(D, **options | changes)


def row(*labels: str, sentiment: str | None = None, known: bool = True) -> Utterance:
    entities = tuple(Entity(label, 0, 1, "x") for label in labels)
    return Utterance(
        "x", Path("x.wav"), "x", 1.0, entities=entities if known else None, sentiment=sentiment, source="m.jsonl:3"
    )


def convolved(image: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(C, H, W) -> ReLU of a 3x3 convolution with stride 2 and a border of zeros, pixel by pixel."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    height, width = ((size - 1) // 2 + 1 for size in image.shape[1:])
    made = np.empty((len(weight), height, width))
    for y in range(height):
        for x in range(width):
            made[:, y, x] = np.einsum("oijk,ijk->o", weight, padded[:, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]) + bias
    return np.maximum(made, 0)


def logits_of(loss: Classifier, H: np.ndarray) -> np.ndarray:
    """(K, D) of one utterance -> (C,)."""
    image = ((H - H.mean(1, keepdims=True)) / np.sqrt(H.var(1, keepdims=True) + loss.norm.eps))[None]
    for conv in loss.convs:
        image = convolved(image, *(part.detach().double().numpy() for part in (conv.weight, conv.bias)))
    weight, bias = (part.detach().double().numpy() for part in (loss.out.weight, loss.out.bias))
    return weight @ image.mean((1, 2)) + bias


def test_entities_against_the_equation():
    loss, batch = build(), contract.pair()
    loss.observe((row, 1.0) for row in batch.utterances)
    w, expected, names = loss.class_weights.double().numpy(), 0.0, list(tags.COMBINED)
    for H, utterance in zip(batch.speech.rows(), batch.utterances, strict=True):
        if utterance.entities is None:
            continue
        p = 1 / (1 + np.exp(-logits_of(loss, H.double().numpy())))
        y = np.zeros(7)
        for entity in utterance.entities:
            if entity.label != "EVENT":
                y[names.index({"GPE": "PLACE", "MONEY": "QUANT", "DATE": "WHEN"}.get(entity.label, entity.label))] = 1
        expected += float((w * -(y * np.log(p) + (1 - y) * np.log(1 - p))).mean())
    assert float(loss(batch).detach()) == pytest.approx(expected, rel=1e-4)
    assert loss.target_count([[0]] * 8, batch.utterances) == 6


def test_sentiment_against_the_equation():
    loss, batch = build(labels="sentiment"), contract.pair()
    loss.observe((row, 1.0) for row in batch.utterances)
    w, expected = loss.class_weights.double().numpy(), 0.0
    for H, utterance in zip(batch.speech.rows(), batch.utterances, strict=True):
        if utterance.sentiment is None:
            continue
        y = {"Negative": 0, "Positive": 2}.get(utterance.sentiment, 1)
        logits = logits_of(loss, H.double().numpy())
        expected += float(w[y] * (np.log(np.exp(logits).sum()) - logits[y]))
    assert float(loss(batch).detach()) == pytest.approx(expected, rel=1e-4)
    assert loss.target_count([[0]] * 8, batch.utterances) == 5


# -- class weights -----------------------------------------------------------------------------------------------------

# In an epoch: PERSON 1 + 2 * 0.5 = 2 times, PLACE (GPE and LOC) 2, LAW 1, of 5 in all; FAC is discarded.
MIXTURE = [
    (row("PERSON", "GPE"), 1.0),
    (row("PERSON", "PERSON", "FAC"), 0.5),
    (row("LOC", "LAW"), 1.0),
    (row(known=False), 1.0),
]


@pytest.mark.parametrize(
    ("options", "law", "person", "place"),
    [
        ({"weighting": "inverse"}, 5.0, 2.5, 2.5),
        ({"weighting": "capped"}, 1.5, 0.75, 0.75),  # 5, 2.5 and 2.5 over their mean
        ({"weighting": "capped", "most_weight": 3.5}, 3.5 * 6 / 17, 2.5 * 6 / 17, 2.5 * 6 / 17),
        ({"weighting": "none"}, 1.0, 1.0, 1.0),
    ],
)
def test_class_weights_by_hand(options: dict[str, Any], law: float, person: float, place: float):
    loss = build(**options)
    loss.observe(MIXTURE)
    found = dict(zip(tags.COMBINED, loss.class_weights.tolist(), strict=True))
    expected = {"LAW": law, "PERSON": person, "PLACE": place}
    assert found == pytest.approx(dict.fromkeys(tags.COMBINED, 0.0) | expected)


def test_weights_of_sentiments_by_hand():
    loss = build(labels="sentiment", weighting="inverse")
    loss.observe(
        [(row(sentiment="Positive"), 1.0), (row(sentiment="mixed"), 2.0), (row(sentiment="Neutral"), 1.0), (row(), 9.0)]
    )
    assert loss.class_weights.tolist() == pytest.approx([0.0, 4 / 3, 4.0])


def test_a_mixture_without_labels_is_an_error():
    with pytest.raises(
        DataError, match=r"data\.train: no utterance has a label under 'sentiment', expected what the classifier"
    ):
        build(labels="sentiment").observe([(row("PERSON"), 1.0)])
    with pytest.raises(DataError, match=r"m\.jsonl:3: entity tag 'PERSO', expected a tag of SLUE; did you mean 'PERSON'"):
        build().observe([(row("PERSO"), 1.0)])


@pytest.mark.parametrize("length", [1, 2, 3, 8, 9])
def test_an_utterance_of_any_length_is_classified_and_every_embedding_is_seen(length: int):
    loss = contract.awake(build())
    still = contract.frames([length], D).values
    changed = still.repeat(length, 1, 1)
    changed[torch.arange(length), torch.arange(length)] = contract.frames([length], D, seed=5).values[0]
    before = loss.logits(Padded(still, torch.tensor([length])))
    after = loss.logits(Padded(changed, torch.full((length,), length)))
    assert (after - before).abs().amax(-1).min() > 1e-6
    assert after.shape == (length, 7)


def test_both_kinds_are_the_sum_of_each():
    """The same CNN, its outputs side by side; a mixture without one kind gives its classes no weight."""
    both, batch = build(labels="both"), contract.pair()
    both.observe((row, 1.0) for row in batch.utterances)
    assert both.target_count([], batch.utterances) == sum(
        (row.entities is not None) + (row.sentiment is not None) for row in batch.utterances
    )
    expected, start = torch.zeros(()), 0
    for labels, count in (("entities", 7), ("sentiment", 3)):
        single = build(labels=labels)
        single.observe((row, 1.0) for row in batch.utterances)
        state = both.state_dict()
        outputs = {f"out.{name}": state[f"out.{name}"][start : start + count] for name in ("weight", "bias")}
        single.load_state_dict(state | outputs)
        torch.testing.assert_close(single.class_weights, both.class_weights[start : start + count])
        expected, start = expected + single(batch), start + count
    torch.testing.assert_close(both(batch), expected)
    both.observe([(row("PERSON"), 1.0)])
    assert both.class_weights[:7].any()
    assert not both.class_weights[7:].any()
