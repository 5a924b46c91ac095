"""Every adapter in the table, with each way of setting it up, keeps the promises; broken ones are caught."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import contract
import pytest
import torch
import torch.nn.functional as F
from mutants import DropsRemainder, KeepsABuffer, TrustsPadding
from torch import Tensor, nn

from stapes.adapters import ADAPTERS, Adapter
from stapes.adapters.cif import CIF
from stapes.adapters.conv1d_mlp import Conv1dMLP
from stapes.adapters.conv1d_transformer import Conv1dTransformer
from stapes.adapters.ctc import CTC, TargetClasses
from stapes.adapters.pool_linear import PoolLinear
from stapes.adapters.stack_mlp import StackMLP
from stapes.adapters.wlq_former import WLQFormer
from stapes.types import Padded

CASES = [pytest.param(config, id=contract.label(config)) for config in contract.adapter_configs()]

WITH_LOSSES = [case for case in CASES if ADAPTERS[case.values[0]["name"]].with_losses is not Adapter.with_losses]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_every_variant_is_of_a_member():
    assert set(contract.VARIANTS) <= set(ADAPTERS)


@pytest.mark.parametrize("check", contract.ADAPTER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("config", CASES)
@torch.no_grad()
def test_adapter(config: dict[str, Any], check: Callable[[Adapter], None]):
    if check is contract.every_frame_is_heard and contract.may_leave_its_end_out(config):
        pytest.skip("its tail has to weigh enough")
    check(contract.awake(contract.build_adapter(config)))


@pytest.mark.parametrize("check", contract.FACTORY_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("config", CASES)
def test_fresh_adapter(config: dict[str, Any], check: Callable[[Callable[[], Adapter]], None]):
    check(lambda: contract.build_adapter(config))


@pytest.mark.parametrize("check", contract.TRAINING_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("config", WITH_LOSSES)
def test_adapter_in_training(config: dict[str, Any], check: Callable[[Adapter], None]):
    check(contract.awake(contract.build_adapter(config)))


def test_the_adapters_with_losses_are_those_that_say_so():
    assert {case.values[0]["name"] for case in WITH_LOSSES} == {name for name in ADAPTERS if ADAPTERS[name].losses}


# -- mutants: what has gone wrong in systems of this kind, each caught by the check that is named ----------------------


class AttendsToPadding(Conv1dTransformer):
    """Its layers do not know which steps are real."""

    def forward(self, frames: Padded) -> Padded:
        hidden = Padded(self.norm(frames.zero_padding().values), frames.lengths)
        for conv in self.convs:
            hidden = conv(hidden)
        everything = Padded(hidden.values, torch.full_like(hidden.lengths, hidden.values.shape[1]))
        for layer in self.layers:
            everything = layer(everything)
        return Padded(self.out(self.out_norm(everything.values)), hidden.lengths).zero_padding()


class ConvolvesPadding(Conv1dMLP):
    """Zeroes the padding once, but the first convolution's bias fills it again for the second one to read."""

    def forward(self, frames: Padded) -> Padded:
        values = Padded(self.norm(frames.zero_padding().values), frames.lengths).zero_padding().values
        for conv in self.convs:
            values = F.gelu(conv.conv(values.mT).mT)
        values = self.out(F.gelu(self.hidden(self.mlp_norm(values))))
        return Padded(values, self.output_lengths(frames.lengths)).zero_padding()


class PoolsPadding(PoolLinear):
    """Pools the padded batch instead of each utterance."""

    def forward(self, frames: Padded) -> Padded:
        lengths = self.output_lengths(frames.lengths)
        values = F.adaptive_avg_pool1d(frames.zero_padding().values.mT, int(lengths.max())).mT
        return Padded(self.linear(self.norm(values)), lengths).zero_padding()


class RoundsDown(Conv1dMLP):
    """Says floor(T / 4) where ceil(T / 4) embeddings are made."""

    def output_lengths(self, lengths: Tensor) -> Tensor:
        return (lengths // 4).clamp(min=1)


class LeavesBiasInPadding(StackMLP):
    """Forgets that the last layer's bias fills the padding."""

    def forward(self, frames: Padded) -> Padded:
        found = super().forward(frames)
        return Padded(found.values + ~found.mask[:, :, None] * self.out.bias, found.lengths)


class AlwaysDrops(StackMLP):
    """Drops out at inference, too."""

    def forward(self, frames: Padded) -> Padded:
        return super().forward(Padded(F.dropout(frames.values, 0.1), frames.lengths))


class HidesState(StackMLP):
    """Keeps something random that no checkpoint carries."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register_buffer("gain", torch.rand(contract.LLM_DIM), persistent=False)

    def forward(self, frames: Padded) -> Padded:
        found = super().forward(frames)
        return Padded(found.values * self.gain, found.lengths)


class IdleLayer(StackMLP):
    """Has a layer that nothing uses."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.idle = nn.Linear(3, 3)


class LearnsNoQueries(Conv1dTransformer):
    """Cuts the gradient of its queries, a third of the matrix that makes keys and values too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for layer in self.layers:
            layer.qkv.register_forward_hook(lambda _, __, found: without_gradient(found, 0, of=3))


class LearnsNoKeys(WLQFormer):
    """Cuts the gradient of the keys by which its queries read the frames."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for layer in self.q_former.layers:
            layer.cross_attention.read.register_forward_hook(lambda _, __, found: without_gradient(found, 0, of=2))


class LearnsNoKeysOfQueries(WLQFormer):
    """Cuts the gradient of the keys by which its queries read each other."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for layer in self.q_former.layers:
            layer.attention.read.register_forward_hook(lambda _, __, found: without_gradient(found, 1, of=3))


def without_gradient(packed: Tensor, number: int, of: int) -> Tensor:
    """The output of a packed matrix, one of its parts cut off."""
    parts = list(packed.chunk(of, dim=-1))
    parts[number] = parts[number].detach()
    return torch.cat(parts, dim=-1)


class PassesLengthsOn(StackMLP):
    """Gives the lengths of its input to what is shorter."""

    def forward(self, frames: Padded) -> Padded:
        found = super().forward(frames)
        return Padded(found.values, frames.lengths)


class RemembersLengths(StackMLP):
    """Takes the lengths of the first batch of a size for those of all."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: dict[int, Tensor] = {}

    def forward(self, frames: Padded) -> Padded:
        found = super().forward(frames)
        return Padded(found.values, self.seen.setdefault(len(found.lengths), found.lengths)).zero_padding()


class NormalisesOverTime(StackMLP):
    """Its norm has the mean and the variance of all steps of a row, padding included."""

    def forward(self, frames: Padded) -> Padded:
        values = frames.zero_padding().values
        spread = values.var(dim=1, keepdim=True, correction=0)
        return super().forward(Padded((values - values.mean(dim=1, keepdim=True)) * (spread + 1e-5).rsqrt(), frames.lengths))


class NormalisesOverTheBatch(StackMLP):
    """Its norm has statistics of all that it saw in training, padding included."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.norm = nn.BatchNorm1d(contract.ENCODER_DIM)

    def forward(self, frames: Padded) -> Padded:
        return super().forward(Padded(self.norm(frames.zero_padding().values.mT).mT, frames.lengths))


class AttendsAcrossTheBatch(StackMLP):
    """Lays (B, T, E) before an attention that takes its first axis for time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.attention = nn.MultiheadAttention(contract.ENCODER_DIM, 2)

    def forward(self, frames: Padded) -> Padded:
        values = frames.zero_padding().values
        return super().forward(Padded(values + self.attention(values, values, values)[0], frames.lengths))


class StacksAcrossUtterances(StackMLP):
    """Stacks the batch as one long row, so that a group holds the end of one utterance and the beginning of the next."""

    def forward(self, frames: Padded) -> Padded:
        row = frames.zero_padding().values.flatten(0, 1)
        steps = -(-frames.values.shape[1] // self.stride)
        row = F.pad(row, (0, 0, 0, len(frames.lengths) * steps * self.stride - len(row)))
        values = self.out(F.relu(self.hidden(row.view(len(frames.lengths), steps, -1))))
        return Padded(values, self.output_lengths(frames.lengths)).zero_padding()


class FloatConstant(StackMLP):
    """Multiplies by a float32 tensor that is neither parameter nor buffer: bfloat16 in, float32 out."""

    def forward(self, frames: Padded) -> Padded:
        found = super().forward(frames)
        return Padded(found.values * torch.linspace(0.5, 2.0, contract.LLM_DIM), found.lengths)


class CountsInBfloat16(Conv1dTransformer):
    """Adds positions that are counted in the precision of the weights: beyond 256, neighbours share one."""

    def forward(self, frames: Padded) -> Padded:
        found = super().forward(frames)
        steps = torch.arange(found.values.shape[1]).to(self.out.weight.dtype)
        return Padded(found.values + 3 * steps.sin()[:, None], found.lengths).zero_padding()


class AveragesItsLoss(CIF):
    """Divides its loss by the utterances of the batch."""

    def with_losses(
        self, frames: Padded, targets: Sequence[Sequence[int]], wanted: Collection[str]
    ) -> tuple[Padded, dict[str, Tensor]]:
        embeddings, losses = super().with_losses(frames, targets, wanted)
        return embeddings, {name: loss / len(targets) for name, loss in losses.items()}


class ScoresPadding(CTC):
    """Scores the padded batch: no value depends on the padding, but 0 * NaN is in every gradient."""

    def with_losses(
        self, frames: Padded, targets: Sequence[Sequence[int]], wanted: Collection[str]
    ) -> tuple[Padded, dict[str, Tensor]]:
        classes = TargetClasses(targets, self.blank_id, frames.values.device)
        return self(frames), {"token_ctc": classes.loss(classes.log_probs(self.logits(frames.values)), frames.lengths)}


class DecidesInBfloat16(CTC):
    """Has autocast's rounding decide where a run ends."""

    def _embed(self, hidden: Padded) -> Padded:
        return self.after(self._averages(hidden, self.logits(hidden.values).argmax(-1)))


class SumsInBfloat16(CTC):
    """Gives its loss in the precision of the scores."""

    def with_losses(
        self, frames: Padded, targets: Sequence[Sequence[int]], wanted: Collection[str]
    ) -> tuple[Padded, dict[str, Tensor]]:
        embeddings, losses = super().with_losses(frames, targets, wanted)
        return embeddings, {name: loss.to(self.logits(frames.values).dtype) for name, loss in losses.items()}


class CountsWithoutLearning(CIF):
    """Cuts the gradient between its weights and its frames."""

    def weights(self, frames: Padded) -> Tensor:
        return super().weights(Padded(frames.values.detach(), frames.lengths))


STACK = {"stride": 3, "hidden_dim": 24}
WINDOWS = contract.LAYERS | {"seconds_per_frame": contract.SECONDS_PER_FRAME}
VOCABULARY = contract.LAYERS | {"vocab_size": len(contract.TABLE), "blank_id": 1}
MUTANTS = [
    (DropsRemainder, STACK, contract.every_frame_is_heard),
    (AttendsToPadding, contract.LAYERS, contract.same_in_a_batch),
    (ConvolvesPadding, contract.SMALL, contract.same_in_a_batch),
    (PoolsPadding, {"seconds_per_frame": contract.SECONDS_PER_FRAME}, contract.same_in_a_batch),
    (RoundsDown, contract.SMALL, contract.lengths_are_exact),
    (TrustsPadding, STACK, contract.padding_is_inert),
    (AlwaysDrops, STACK, contract.is_deterministic),
    (LeavesBiasInPadding, STACK, contract.padding_comes_out_zero),
    (CountsInBfloat16, contract.LAYERS, contract.half_precision_is_close),
    (HidesState, STACK, contract.state_is_whole),
    (KeepsABuffer, STACK, contract.state_is_whole),
    (IdleLayer, STACK, contract.every_parameter_learns),
    (LearnsNoQueries, contract.LAYERS, contract.every_parameter_learns),
    (LearnsNoKeys, WINDOWS, contract.every_parameter_learns),
    (LearnsNoKeysOfQueries, WINDOWS | {"queries": 3}, contract.every_parameter_learns),
    (PassesLengthsOn, STACK, contract.lengths_are_exact),
    (RemembersLengths, STACK, contract.lengths_are_exact),
    (NormalisesOverTime, STACK, contract.same_in_a_batch),
    (NormalisesOverTheBatch, STACK, contract.nothing_of_a_batch_stays),
    (AttendsAcrossTheBatch, STACK, contract.same_in_a_batch),
    (StacksAcrossUtterances, STACK, contract.same_in_a_batch),
    (FloatConstant, STACK, contract.half_precision_is_close),
    (AveragesItsLoss, contract.LAYERS, contract.trained_alike_in_a_batch),
    (ScoresPadding, VOCABULARY, contract.training_padding_is_inert),
    (DecidesInBfloat16, VOCABULARY, contract.training_in_half_precision_is_close),
    (SumsInBfloat16, VOCABULARY, contract.training_in_half_precision_is_close),
    (CountsWithoutLearning, contract.LAYERS, contract.own_losses_reach_every_frame),
]


@pytest.mark.parametrize(("mutant", "options", "check"), MUTANTS, ids=lambda part: getattr(part, "__name__", ""))
def test_mutant_is_caught(mutant: type[Adapter], options: dict[str, Any], check: Callable[..., None]):
    def make() -> Adapter:
        return mutant(contract.ENCODER_DIM, contract.LLM_DIM, **options)

    with torch.set_grad_enabled(check not in contract.ADAPTER_CHECKS), pytest.raises(AssertionError):
        check(make if check in contract.FACTORY_CHECKS else contract.awake(make()))


def test_every_check_has_caught_a_mutant():
    assert {check for *_, check in MUTANTS} == {
        *contract.ADAPTER_CHECKS,
        *contract.FACTORY_CHECKS,
        *contract.TRAINING_CHECKS,
    }
