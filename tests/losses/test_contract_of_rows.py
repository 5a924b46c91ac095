"""The losses that do not read speech and text (of rows of logits, of CTC) keep the same promises; broken ones are caught."""

from collections.abc import Callable, Sequence
from typing import get_args

import contract
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stapes.adapters import ADAPTERS
from stapes.losses import LOSSES as MODULES
from stapes.losses import SpeechLoss
from stapes.losses.ctc import CTCHead
from stapes.losses.distillation import Distillation
from stapes.losses.next_token import next_token
from stapes.recipe import LossName
from stapes.types import Padded

WIDTH = contract.LLM_DIM  # of embeddings, and of the logits here
TOKENS = [[(3 * row + place) % WIDTH for place in range(length)] for row, length in enumerate(contract.LENGTHS)]
PIECES = [[token % len(contract.TABLE) for token in row[: len(row) // 3]] for row in TOKENS]  # no room for any in two of them
TEACHER = contract.frames(contract.LENGTHS, WIDTH, seed=1).rows()


class NextToken(nn.Module):
    """Of logits (B, U, V) of some of the utterances."""

    def forward(self, logits: Padded, which: Sequence[int]) -> Tensor:
        return next_token(torch.cat(logits.rows()), torch.tensor([token for row in which for token in TOKENS[row]]))


class Taught(nn.Module):
    """``distillation``, the teacher's logits being fixed."""

    def __init__(self, loss: nn.Module | None = None) -> None:
        super().__init__()
        self.loss = loss or Distillation(2.0)

    def forward(self, logits: Padded, which: Sequence[int]) -> Tensor:
        found: Tensor = self.loss(torch.cat(logits.rows()), torch.cat([TEACHER[row] for row in which]))
        return found


class Aligned(nn.Module):
    """The CTC head, of embeddings (B, K, D) of some of the utterances."""

    def __init__(self, head: type[CTCHead] = CTCHead) -> None:
        super().__init__()
        self.head = contract.awake(head(contract.TABLE))

    def forward(self, embeddings: Padded, which: Sequence[int]) -> Tensor:
        found: Tensor = self.head.loss(self.head.log_probs(embeddings), embeddings.lengths, [PIECES[row] for row in which])
        return found


def batch() -> Padded:
    return contract.frames(contract.LENGTHS, WIDTH)


def value(loss: nn.Module, rows: Padded) -> Tensor:
    """Of all utterances together."""
    found: Tensor = loss(rows, range(len(rows.lengths)))
    return found


def is_the_sum_over_utterances(loss: nn.Module) -> None:
    alone = [loss(Padded.from_rows([row]), [number]) for number, row in enumerate(batch().rows())]
    torch.testing.assert_close(value(loss, batch()), torch.stack(alone).sum(), **contract.FP32)


def half_precision_is_close(loss: nn.Module) -> None:
    """Under autocast, from large numbers in bfloat16, as from the same in float32, which the value is in both cases."""
    rows = Padded(4 * batch().values, batch().lengths).to(dtype=torch.bfloat16)
    wanted = value(loss, rows.to(dtype=torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = value(loss, rows)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0.01, atol=0.0)


def every_row_learns(loss: nn.Module) -> None:
    """Each step of each utterance gets a gradient, padding none."""
    values = batch().values.requires_grad_()
    found = value(loss, Padded(values, batch().lengths))
    (gradient,) = torch.autograd.grad(found, values, materialize_grads=True)
    assert gradient.isfinite().all()
    assert torch.equal(gradient.any(-1), batch().mask)


def padding_is_inert(loss: nn.Module) -> None:
    """Of the value and of every gradient."""

    def step(rows: Padded) -> dict[str, Tensor]:
        loss.zero_grad()
        values = rows.values.clone().requires_grad_()
        found = value(loss, Padded(values, rows.lengths))
        found.backward()
        assert values.grad is not None
        learnt = {name: parameter.grad for name, parameter in loss.named_parameters() if parameter.grad is not None}
        return {"value": found, "rows": values.grad[rows.mask], **learnt}

    wanted = step(batch())
    for dirty in contract.soiled(batch()):
        torch.testing.assert_close(step(dirty), wanted, rtol=1e-4, atol=1e-4)


CHECKS = (is_the_sum_over_utterances, half_precision_is_close, every_row_learns)
LOSSES = {"next_token": NextToken, "distillation": Taught, "ctc": Aligned}


def test_every_loss_of_a_recipe_is_in_a_suite():
    """Here, among those on speech and text (``test_contract.py``), or as an adapter's own (``tests/adapters``)."""
    on_speech = {name for name in MODULES if issubclass(MODULES[name], SpeechLoss)}
    assert {*LOSSES, *on_speech, *(loss for name in ADAPTERS for loss in ADAPTERS[name].losses)} == set(get_args(LossName))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", LOSSES)
def test_loss(name: str, check: Callable[[nn.Module], None]):
    check(LOSSES[name]())


def test_padding_of_embeddings_is_inert():
    """Logits have none: the model gives them row by row."""
    padding_is_inert(Aligned())


# -- mutants: each caught by the check that is named -------------------------------------------------------------------


class Averages(NextToken):
    """Divides by the tokens of the batch."""

    def forward(self, logits: Padded, which: Sequence[int]) -> Tensor:
        return super().forward(logits, which) / logits.lengths.sum()


class SumsInBfloat16(NextToken):
    """Leaves the logits in their precision."""

    def forward(self, logits: Padded, which: Sequence[int]) -> Tensor:
        targets = torch.tensor([token for row in which for token in TOKENS[row]])
        with torch.autocast("cpu", enabled=False):
            return F.cross_entropy(torch.cat(logits.rows()), targets, reduction="sum")


class BatchMean(Distillation):
    """Has torch's average over rows."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return super().forward(student, teacher) / len(student)


class TeachesTheTeacher(Distillation):
    """Takes the one for the other, of which no gradient is wanted."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return super().forward(student.detach(), teacher.clone().requires_grad_())


class AlignsPadding(CTCHead):
    """Lets the path go on through the padding."""

    def loss(self, log_probs: Tensor, lengths: Tensor, targets: list[list[int]]) -> Tensor:
        return super().loss(log_probs, torch.full_like(lengths, log_probs.shape[1]), targets)


class ScoresPadding(CTCHead):
    """Scores whatever is in the padding: no value depends on it, but 0 * NaN is in every gradient."""

    def log_probs(self, embeddings: Padded) -> Tensor:
        direction = F.normalize(embeddings.values.float(), dim=-1)
        pieces = self.log_scale.exp() * (direction @ self.centred.T).float()
        return torch.cat([self.blank(direction).float() * self.log_scale.exp(), pieces], dim=-1).log_softmax(-1)


MUTANTS = [
    (Averages, is_the_sum_over_utterances),
    (lambda: Taught(BatchMean(2.0)), is_the_sum_over_utterances),
    (lambda: Aligned(AlignsPadding), is_the_sum_over_utterances),
    (SumsInBfloat16, half_precision_is_close),
    (lambda: Taught(TeachesTheTeacher(2.0)), every_row_learns),
    (lambda: Aligned(ScoresPadding), padding_is_inert),
]


@pytest.mark.parametrize(("mutant", "check"), MUTANTS, ids=lambda part: getattr(part, "__name__", ""))
def test_mutant_is_caught(mutant: Callable[[], nn.Module], check: Callable[[nn.Module], None]):
    with pytest.raises(AssertionError):
        check(mutant())


def test_every_check_has_caught_a_mutant():
    assert {check for _, check in MUTANTS} == {*CHECKS, padding_is_inert}
