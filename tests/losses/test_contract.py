"""Every loss on speech in the table, with each way of setting it up, keeps the promises; broken ones are caught."""

from collections.abc import Callable
from typing import Any

import contract
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stapes.losses import LOSSES, SpeechAndText, SpeechLoss
from stapes.losses.classifier import Classifier
from stapes.losses.contrastive import Contrastive
from stapes.losses.matching import Matching
from stapes.recipe import Losses
from stapes.types import Padded

NAMES = [name for name in LOSSES if issubclass(LOSSES[name], SpeechLoss)]
CASES = [pytest.param(config, id=contract.label(config)) for config in contract.loss_configs()]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_every_loss_of_the_table_has_options_in_a_recipe():
    assert set(Losses.model_fields) == set(LOSSES)
    assert set(contract.LOSS_VARIANTS) == set(NAMES)


@pytest.mark.parametrize("check", contract.LOSS_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("config", CASES)
def test_loss(config: dict[str, Any], check: Callable[[SpeechLoss], None]):
    if check is contract.is_the_sum_over_utterances and config["name"] in contract.OF_THE_BATCH:
        pytest.skip("depends on the batch by definition")
    check(contract.awake(contract.build_loss(config)))


@pytest.mark.parametrize("config", CASES)
def test_what_a_checkpoint_carries_makes_another_the_same(config: dict[str, Any]):
    """Its parameters; what a loss knows of the mixture, ``observe`` has told it."""
    first, second = (contract.awake(contract.build_loss(config), seed) for seed in (1, 2))
    second.load_state_dict(dict(first.named_parameters()), strict=False)
    assert torch.equal(first(contract.pair()), second(contract.pair()))


# -- mutants: each caught by the check that is named -------------------------------------------------------------------

DEFAULTS = Losses().model_dump()


class AttendsToPadding(Matching):
    """Its attention does not know which embeddings are real."""

    def attend(self, text: Padded, speech: Padded) -> Tensor:
        heard = speech.zero_padding().values
        return (self.scale * text.values @ heard.mT).softmax(-1) @ heard


class AveragesOverPadding(Matching):
    """Divides by the positions of the padded batch."""

    def forward(self, batch: SpeechAndText) -> Tensor:
        text = batch.text.zero_padding()
        squared = (self.attend(text, batch.speech) - text.values).square().mean(-1) * text.mask
        return (squared.mean(1) * text.lengths).sum()


class TrustsPadding(Matching):
    """Takes for granted that the padding of the speech is zero: no mask keeps 0 * NaN from being NaN."""

    def attend(self, text: Padded, speech: Padded) -> Tensor:
        scores = self.scale * text.values @ speech.zero_padding().values.mT
        return scores.masked_fill(~speech.mask[:, None, :], -torch.inf).softmax(-1) @ speech.values


class MixesUtterances(Matching):
    """Lets a text find its words in any utterance of the batch."""

    def attend(self, text: Padded, speech: Padded) -> Tensor:
        everything = speech.values[speech.mask]
        return (self.scale * text.values @ everything.T).softmax(-1) @ everything


class PoolsPadding(Classifier):
    """Pools the padded image, in which the biases have filled what was zero."""

    def logits(self, speech: Padded) -> Tensor:
        image = self.norm(speech.zero_padding().values)[:, None]
        for conv in self.convs:
            image = F.relu(conv(image))
        return self.out(image.mean((2, 3)))


class NormalisesOverTheBatch(Classifier):
    """As a BatchNorm in training would."""

    def logits(self, speech: Padded) -> Tensor:
        found = super().logits(speech)
        return (found - found.mean(0)) / (found.std(0, correction=0) + 1e-5)


class CountsEveryone(Classifier):
    """Takes an utterance without labels for one without entities."""

    def _named(self, row: Any, kind: str) -> list[str]:
        return super()._named(row, kind) or []


class SumsInBfloat16(Matching):
    """Leaves the sum in the precision of the embeddings: beside a few hundred, what single tokens add is lost."""

    def forward(self, batch: SpeechAndText) -> Tensor:
        return super().forward(batch).to(batch.speech.values.dtype)


class HearsItsTemperatureOnly(Contrastive):
    """Cuts the gradient to the speech."""

    def forward(self, batch: SpeechAndText) -> Tensor:
        speech = Padded(batch.speech.values.detach(), batch.speech.lengths)
        return super().forward(SpeechAndText(speech, batch.text, batch.utterances))


class GivesUpWithoutTargets(Matching):
    """Returns a constant where there is nothing to learn."""

    def forward(self, batch: SpeechAndText) -> Tensor:
        return super().forward(batch) if batch.text.mask.any() else torch.zeros(())


MUTANTS = [
    (AttendsToPadding, contract.is_the_sum_over_utterances),
    (AveragesOverPadding, contract.is_the_sum_over_utterances),
    (MixesUtterances, contract.is_the_sum_over_utterances),
    (TrustsPadding, contract.loss_padding_is_inert),
    (PoolsPadding, contract.loss_padding_is_inert),
    (NormalisesOverTheBatch, contract.is_the_sum_over_utterances),
    (CountsEveryone, contract.is_the_sum_over_utterances),
    (SumsInBfloat16, contract.loss_in_half_precision_is_close),
    (HearsItsTemperatureOnly, contract.loss_reaches_speech_and_parameters),
    (GivesUpWithoutTargets, contract.nothing_to_learn_is_zero),
]


def build(mutant: type[SpeechLoss]) -> SpeechLoss:
    name = mutant.__mro__[1].__name__.lower()
    options = DEFAULTS[name]
    found = mutant(**options) if name == "contrastive" else mutant(contract.LLM_DIM, **options)
    found.observe((row, 1.0) for row in contract.labelled())
    return found


@pytest.mark.parametrize(("mutant", "check"), MUTANTS, ids=lambda part: getattr(part, "__name__", ""))
def test_mutant_is_caught(mutant: type[SpeechLoss], check: Callable[[SpeechLoss], None]):
    with pytest.raises(AssertionError):
        check(build(mutant))


def test_every_check_has_caught_a_mutant():
    assert {check for _, check in MUTANTS} == set(contract.LOSS_CHECKS)
