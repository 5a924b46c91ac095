"""The matching loss against the paper's equation in NumPy, utterance by utterance."""

import contract
import numpy as np
import pytest
import torch

from stapes.losses import SpeechAndText
from stapes.losses.matching import Matching
from stapes.types import Padded

D = contract.LLM_DIM


def by_the_paper(H: np.ndarray, E: np.ndarray, scale: float, a: float, b: float, W_q: np.ndarray, W_k: np.ndarray) -> float:
    """(K, D) and (U, D) -> a * MSE + b * (1 - cos), summed over tokens."""
    scores = scale * (E @ W_q.T) @ (H @ W_k.T).T
    A = np.exp(scores - scores.max(1, keepdims=True))
    A /= A.sum(1, keepdims=True)
    found = A @ H
    cosine = (found * E).sum(1) / (np.linalg.norm(found, axis=1) * np.linalg.norm(E, axis=1))
    return float((a * ((found - E) ** 2).mean(1) + b * (1 - cosine)).sum())


@pytest.mark.parametrize("score", ["dot", "scaled_dot"])
@pytest.mark.parametrize("projection_dim", [None, 5])
@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.3, 0.0), (0.0, 2.0)])
def test_against_the_equation(score: str, projection_dim: int | None, a: float, b: float):
    torch.manual_seed(0)
    loss = Matching(D, score=score, mse=a, cosine=b, projection_dim=projection_dim)
    batch = contract.pair()
    W_q, W_k = (
        np.eye(D) if projection_dim is None else layer.weight.detach().double().numpy() for layer in (loss.query, loss.key)
    )
    scale = 1.0 if score == "dot" else (projection_dim or D) ** -0.5
    sides = zip(batch.speech.rows(), batch.text.rows(), strict=True)
    expected = sum(by_the_paper(H.double().numpy(), E.double().numpy(), scale, a, b, W_q, W_k) for H, E in sides)
    assert float(loss(batch).detach()) == pytest.approx(expected, rel=1e-5)


def test_the_speech_that_holds_every_token_is_a_match():
    """Far apart, scores leave no doubt: embeddings that are the tokens', in any order, cost nothing."""
    text = 20 * torch.eye(D)[:5]
    loss = Matching(D, score="dot", mse=1.0, cosine=1.0, projection_dim=None)
    found = loss(SpeechAndText(Padded.from_rows([text.flip(0).repeat(2, 1)]), Padded.from_rows([text])))
    assert float(found) == pytest.approx(0.0, abs=1e-5)
    one_missing = loss(SpeechAndText(Padded.from_rows([text[:4]]), Padded.from_rows([text])))
    assert float(one_missing) > 1.0


def test_who_is_heard_is_not_decided_by_rounding():
    """Under autocast too, all of it is computed in float32."""
    loss, batch = Matching(D, score="dot", mse=1.0, cosine=1.0, projection_dim=5), contract.pair()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = loss(batch)
    assert torch.equal(rounded, loss(batch))


def test_targets_are_tokens_without_the_end_token():
    loss = Matching(D, score="dot", mse=1.0, cosine=1.0, projection_dim=None)
    assert loss.target_count([[5, 6, 0], [0]], []) == 2
    assert list(loss.parameters()) == []
