"""The promises of ``Adapter``, ``Encoder`` and ``SpeechLoss`` as checks: each raises AssertionError where a module breaks one.

The files ``test_contract.py`` in the folders of the three put every member of the tables through them, and put a few broken
modules (mutants) through them too, each of which has to be caught.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stapes import hub, losses, recipe
from stapes.adapters import ADAPTERS, Adapter
from stapes.adapters.attention import Attention, QFormer
from stapes.adapters.layers import TransformerLayer
from stapes.device import cast
from stapes.encoders import Encoder
from stapes.encoders.pretrained import PretrainedEncoder
from stapes.losses import SpeechAndText, SpeechLoss
from stapes.types import SAMPLE_RATE_HZ, Audio, Entity, Padded, Utterance

ENCODER_DIM, LLM_DIM, SECONDS_PER_FRAME = 12, 8, 0.02
TABLE = torch.randn(6, LLM_DIM, generator=torch.Generator().manual_seed(3))  # of an LLM with six tokens
LENGTHS = (1, 2, 3, 5, 8, 13, 21, 34)
LONGER = 55
BURST_SAMPLES = 80  # 5 ms
# Parameters that lie behind a hidden layer which is taken for the frames, beside later layers.
BEHIND = re.compile(r"intermediate_ffn|\.adapter\.|inner_layer_norm|^encoder\.layer_norm")
FP32 = {"rtol": 1e-4, "atol": 1e-5}
ANSWERS = [[2, 0, 1][: 1 + length // 2] for length in LENGTHS]  # what is said in so many frames, the end token last

SMALL = {"dim": 16, "hidden_dim": 24}
LAYERS = {"dim": 16, "heads": 2, "ffn_dim": 24}
# Options of each adapter that are worth a run of their own, alone and behind every encoder: small, for in wide layers whose
# weights were moved (``awake``) rounding grows from layer to layer. One not named here runs with its defaults.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "linear": [{}, {"stride": 3}, {"stride": 1}],
    "pool_linear": [{}, {"embeddings_per_second": 12.5}, {"embeddings": 7}],
    "stack_mlp": [{"hidden_dim": 24}, {"stride": 3, "hidden_dim": 24}, {"stride": 1, "hidden_dim": 24}],
    "conv1d_mlp": [SMALL, SMALL | {"convs": 3, "kernel": 3}, SMALL | {"convs": 1, "kernel": 7}],
    "conv1d_transformer": [
        LAYERS,
        LAYERS | {"start_at_zero": False, "dropout": 0.1},
        LAYERS | {"convs": 1, "layers": 1, "kernel": 3},
    ],
    "transformer": [LAYERS, LAYERS | {"layers": 1, "dropout": 0.0}, LAYERS | {"dim": 8}, LAYERS | {"dim": 12}],
    "conv": [LAYERS, LAYERS | {"layers_before": 2}, LAYERS | {"layers": 1, "layers_before": 1, "kernel": 5}],
    "dws_mlp": [SMALL, SMALL | {"convs": 3, "kernel": 3}, SMALL | {"convs": 1, "kernel": 7}],
    "stack_swiglu": [{"hidden_dim": 24}, {"stride": 3, "hidden_dim": 24, "norm_at": "out"}, {"stride": 1, "hidden_dim": 24}],
    "q_former": [LAYERS | {"queries": 5}, LAYERS | {"queries": 1, "layers": 1}],
    "segment_q_former": [
        LAYERS | {"queries": 3},
        LAYERS | {"queries": 3, "segment_seconds": 0.1},
        LAYERS | {"queries": 1, "segment_seconds": 0.2},
    ],
    "wlq_former": [LAYERS, LAYERS | {"queries": 3, "layers": 2, "window_seconds": 0.1}],
    # With a tail of 0 every end fires; with the paper's, the first, one that weighs too little is not heard.
    "cif": [
        LAYERS,
        LAYERS | {"tail": 0.0},
        LAYERS | {"tail": 0.0, "threshold": 0.6},
        LAYERS | {"tail": 0.0, "threshold": 2.0},
        LAYERS | {"tail": 0.0, "layers_before": 2},
    ],
    "ctc": [LAYERS, LAYERS | {"most": 0.3}, LAYERS | {"most": 4}, LAYERS | {"layers_before": 2}],
    "posterior": [{}, {"stride": 1, "temperature": 0.5}, {"compress": True, "blank": 0.3}],
    "cross_attention": [
        {"dim": 16, "heads": 2, "entries": 10},
        {"dim": 8, "heads": 1, "entries": 5, "stride": 2, "kernel": 3},
        {"dim": 16, "heads": 2, "keys": "llm"},
    ],
}


def adapter_configs() -> list[dict[str, Any]]:
    """A recipe's section for every adapter in the table, with each way of setting it up."""
    return [{"name": name} | options for name in ADAPTERS for options in VARIANTS.get(name, [{}])]


def loss_configs() -> list[dict[str, Any]]:
    """The same of every loss on speech."""
    names = [name for name in losses.LOSSES if issubclass(losses.LOSSES[name], SpeechLoss)]
    return [{"name": name} | options for name in names for options in LOSS_VARIANTS.get(name, [{}])]


def label(config: dict[str, Any]) -> str:
    """The name of a test of such a section."""
    name, *options = config.items()
    return " ".join([name[1], *(f"{key}={value}" for key, value in options)])


def build_adapter(
    config: dict[str, Any], encoder_dim: int = ENCODER_DIM, seconds_per_frame: float = SECONDS_PER_FRAME
) -> Adapter:
    """The adapter of a recipe's section, for a small encoder and LLM."""
    found: Adapter = ADAPTERS.build(
        config,
        encoder_dim=encoder_dim,
        llm_dim=LLM_DIM,
        seconds_per_frame=seconds_per_frame,
        vocab_size=len(TABLE),
        blank_id=1,
        llm_table=TABLE,
    )
    return found


def may_leave_its_end_out(config: dict[str, Any]) -> bool:
    """Whether an end that weighs too little for an embedding of its own is not heard, as ``cif``'s paper has it."""
    return config["name"] == "cif" and config.get("tail") != 0.0


def awake(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in evaluation mode, every parameter moved: a layer that starts as zero would hide what it reads."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def frames(lengths: Sequence[int], dim: int = ENCODER_DIM, seed: int = 0) -> Padded:
    """Random frames, zeros in the padding."""
    generator = torch.Generator().manual_seed(seed)
    return Padded.from_rows([torch.randn(length, dim, generator=generator) for length in lengths])


def soiled(clean: Padded) -> Iterator[Padded]:
    """The same rows before more padding, with one kind of garbage after the other in it."""
    dim = clean.values.shape[2]
    wider = nn.functional.pad(clean.values, (0, 0, 0, 9))
    mask = Padded(wider, clean.lengths).mask[:, :, None]
    for garbage in (torch.tensor(torch.nan), torch.tensor(torch.inf), 1e3 * ramp(dim), frames([wider.shape[1]], dim).values):
        yield Padded(torch.where(mask, wider, garbage.expand_as(wider)), clean.lengths)


def ramp(dim: int) -> Tensor:
    """(E,) a change that no normalisation hides, as LayerNorm would hide a constant."""
    return torch.linspace(-2.0, 2.0, dim)


# -- adapters ----------------------------------------------------------------------------------------------------------


def same_in_a_batch(adapter: Adapter) -> None:
    """Alone, in a batch and beside a longer neighbour: the same embeddings."""
    batch = frames([*LENGTHS, LONGER])
    together = adapter(batch).rows()
    for row, found in zip(batch.rows(), together, strict=True):
        alone = adapter(Padded.from_rows([row])).rows()[0]
        torch.testing.assert_close(found, alone, **FP32)
        beside = adapter(Padded.from_rows([row, batch.rows()[-1]])).rows()[0]
        torch.testing.assert_close(beside, alone, **FP32)


def padding_is_inert(adapter: Adapter) -> None:
    """What stands in the padding, and how much of it there is, changes nothing."""
    clean = frames(LENGTHS)
    wanted = adapter(clean).rows()
    for dirty in soiled(clean):
        for found, expected in zip(adapter(dirty).rows(), wanted, strict=True):
            torch.testing.assert_close(found, expected, **FP32)


def every_frame_is_heard(adapter: Adapter) -> None:
    """A change of any one frame, the first and the last of a group included, changes an embedding."""
    for length in (1, 2, 3, 4, 5, 6, 7, 11, 16):
        still = frames([length]).values
        changed = still.repeat(length, 1, 1)
        changed[torch.arange(length), torch.arange(length)] += ramp(ENCODER_DIM)
        before = adapter(Padded(still, torch.tensor([length]))).rows()[0]
        found = adapter(Padded(changed, torch.full((length,), length))).rows()
        deaf = [n for n, row in enumerate(found) if len(row) == len(before) and (row - before).abs().max() <= 1e-5]
        assert not deaf, f"of {length} frames, these are not heard: {deaf}"


def lengths_are_exact(adapter: Adapter, longest: int = 200) -> None:
    """``output_lengths`` is what comes out (an upper bound where it says so), for every number of frames, and never nothing."""
    lengths = torch.arange(1, longest + 1)
    promised = adapter.output_lengths(lengths)
    assert promised.dtype == torch.int64
    assert (promised >= 1).all(), f"nothing is left of {lengths[promised < 1].tolist()} frames"
    batch = frames(lengths.tolist())
    found = adapter(batch).lengths
    assert found.dtype == torch.int64
    assert (found >= 1).all()
    if adapter.lengths_are_bounds:
        assert (found <= promised).all(), f"more than promised of {lengths[found > promised].tolist()} frames"
    else:
        assert torch.equal(found, promised)
    for row, wanted in zip(batch.rows(), found.tolist(), strict=True):
        alone = adapter(Padded.from_rows([row]))
        given = tuple(alone.values.shape)
        assert given == (1, wanted, LLM_DIM), f"{len(row)} frames give {given}, promised were {wanted} embeddings"
        assert alone.lengths.tolist() == [wanted], (
            f"{wanted} embeddings of {len(row)} frames are called {alone.lengths.tolist()}"
        )


def padding_comes_out_zero(adapter: Adapter) -> None:
    """Zeros beyond each length, and nothing that is not a number anywhere."""
    embeddings = adapter(frames(LENGTHS))
    assert embeddings.values.isfinite().all()
    assert not embeddings.values[~embeddings.mask].any()
    assert embeddings.values[embeddings.mask].any()


@torch.no_grad()
def half_precision_is_close(adapter: Adapter) -> None:
    """bfloat16, as weights and as autocast, stays within its own rounding, also over a long utterance.

    Where the number of embeddings depends on what is heard, it has to be decided in float32: by weights of bfloat16 there may
    be another number of them, and only what they are is looked at.
    """
    batch = frames([1500, 700])
    wanted = adapter(batch).values
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = [adapter(batch).values]
    narrow = copy.deepcopy(adapter).to(torch.bfloat16)(batch.to(dtype=torch.bfloat16)).values
    assert narrow.dtype == torch.bfloat16 and bool(narrow.isfinite().all())
    if not adapter.lengths_are_bounds:
        rounded.append(narrow)
    for found in rounded:
        error = float((found.float() - wanted).norm() / wanted.norm())
        assert error < 0.03, f"relative error {error:.3f}"


def never_learn(adapter: Adapter) -> set[str]:
    """Which of ``parts`` have no gradient by nature.

    A Q-Former with a single query has nothing to weigh in its self-attention: queries and keys of it do not matter. The bias
    of keys without positions moves all scores of a query alike, which a softmax does not see; what is found there is rounding.
    """
    found = set()
    for path, module in adapter.named_modules():
        if isinstance(module, Attention):
            found.add(f"{path}.read.bias of keys")
        if isinstance(module, QFormer) and len(module.queries) == 1:
            for number in range(len(module.layers)):
                read = f"{path}.layers.{number}.attention.read"
                found |= {f"{read}.{kind} of {part}" for kind in ("weight", "bias") for part in ("queries", "keys")}
    return found


def parts(adapter: Adapter) -> Iterator[tuple[str, nn.Parameter, slice]]:
    """Every parameter, its name and its rows; those of queries, keys and values each on their own where they are one matrix."""
    packed = {}
    for path, module in adapter.named_modules():
        if isinstance(module, TransformerLayer):
            packed[f"{path}.qkv"] = ("queries", "keys", "values")
        if isinstance(module, Attention):
            packed[f"{path}.read"] = ("queries", "keys", "values") if module.query is None else ("keys", "values")
    for name, parameter in adapter.named_parameters():
        names = packed.get(name.rpartition(".")[0])
        if names is None:
            yield name, parameter, slice(None)
            continue
        rows = len(parameter) // len(names)
        for number, part in enumerate(names):
            yield f"{name} of {part}", parameter, slice(number * rows, (number + 1) * rows)


def every_parameter_learns(build: Callable[[], Adapter]) -> None:
    """Each parameter of a fresh adapter has a gradient by the third step; one that starts at zero may hide others till then.

    Queries, keys and values have one each, also where they are one matrix. And no loss but those that the adapter says it
    has, and of these only what is wanted.
    """
    adapter, batch = build().train(), frames(LENGTHS)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.01)
    for step in range(3):
        optimizer.zero_grad()
        embeddings, losses = adapter.with_losses(batch, ANSWERS, [*adapter.losses, "next_token"])
        assert set(losses) == set(adapter.losses)
        target = torch.randn(embeddings.values.shape, generator=torch.Generator().manual_seed(step))
        sum(losses.values(), (embeddings.values - target).square().sum()).backward()
        optimizer.step()
    assert not adapter.with_losses(batch, ANSWERS, ["next_token"])[1]
    idle = {name for name, parameter, rows in parts(adapter) if parameter.grad is None or not parameter.grad[rows].any()}
    deaf = sorted(idle - never_learn(adapter))
    assert not deaf, f"no gradient: {', '.join(deaf)}"


def state_is_whole(build: Callable[[], Adapter]) -> None:
    """What a checkpoint carries, its parameters, makes another instance, differently seeded, the same."""
    torch.manual_seed(1)
    first = awake(build(), 1)
    torch.manual_seed(2)
    second = awake(build(), 2)
    batch = frames(LENGTHS)
    assert not torch.equal(first(batch).values, second(batch).values)
    second.load_state_dict(dict(first.named_parameters()), strict=False)
    assert torch.equal(first(batch).values, second(batch).values)


@torch.no_grad()
def nothing_of_a_batch_stays(build: Callable[[], Adapter]) -> None:
    """Training leaves every buffer as it was: statistics that run along would mix utterances, and count padding."""
    adapter = build().train()
    before = {name: buffer.clone() for name, buffer in adapter.named_buffers()}
    adapter(frames(LENGTHS))
    moved = [name for name, buffer in adapter.named_buffers() if not torch.equal(buffer, before[name])]
    assert not moved, f"changed by a batch: {', '.join(moved)}"


def is_deterministic(adapter: Adapter) -> None:
    """Twice the same, from an input that is left as it was."""
    batch = frames(LENGTHS)
    before = batch.values.clone()
    assert torch.equal(adapter(batch).values, adapter(batch).values)
    assert torch.equal(batch.values, before)


ADAPTER_CHECKS = (
    same_in_a_batch,
    padding_is_inert,
    every_frame_is_heard,
    lengths_are_exact,
    padding_comes_out_zero,
    half_precision_is_close,
    is_deterministic,
)
FACTORY_CHECKS = (every_parameter_learns, state_is_whole, nothing_of_a_batch_stays)


# -- adapters in training: where ``with_losses`` is not ``forward`` alone -----------------------------------------------


def trained_alike_in_a_batch(adapter: Adapter) -> None:
    """The same embeddings alone and in a batch, whose losses are the sums of its utterances' alone."""
    batch = frames(LENGTHS)
    together, losses = adapter.with_losses(batch, ANSWERS, adapter.losses)
    alone = [
        adapter.with_losses(Padded.from_rows([row]), [said], adapter.losses)
        for row, said in zip(batch.rows(), ANSWERS, strict=True)
    ]
    for found, (wanted, _) in zip(together.rows(), alone, strict=True):
        torch.testing.assert_close(found, wanted.rows()[0], **FP32)
    for name in adapter.losses:
        torch.testing.assert_close(losses[name], torch.stack([own[name] for _, own in alone]).sum(), **FP32)


def training_padding_is_inert(adapter: Adapter) -> None:
    """What stands in the padding, and how much of it there is, changes no embedding, no loss and no gradient."""

    def step(batch: Padded) -> dict[str, Tensor]:
        adapter.zero_grad()
        values = batch.values.clone().requires_grad_()
        embeddings, losses = adapter.with_losses(Padded(values, batch.lengths), ANSWERS, adapter.losses)
        heard = embeddings.values[embeddings.mask]
        sum(losses.values(), heard.square().sum()).backward()
        assert values.grad is not None
        learnt = {name: parameter.grad for name, parameter in adapter.named_parameters() if parameter.grad is not None}
        return {"embeddings": heard, "frames": values.grad[batch.mask], **losses, **learnt}

    clean = frames(LENGTHS)
    wanted = step(clean)
    for dirty in soiled(clean):
        torch.testing.assert_close(step(dirty), wanted, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def training_in_half_precision_is_close(adapter: Adapter) -> None:
    """Under autocast as many embeddings, within their rounding, and losses in float32 that differ by 1 % at most."""
    batch, answers = frames([1500, 700]), [[2, 0, 1] * 60, [0, 2, 1] * 30]
    wanted, exact = adapter.with_losses(batch, answers, adapter.losses)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, losses = adapter.with_losses(batch, answers, adapter.losses)
    assert found.lengths.tolist() == wanted.lengths.tolist()
    error = float((found.values.float() - wanted.values).norm() / wanted.values.norm())
    assert error < 0.03, f"relative error {error:.3f}"
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact[name], rtol=0.01, atol=0.0)


def own_losses_reach_every_frame(adapter: Adapter) -> None:
    """Each of its losses, alone, gives every frame a gradient, and padding none."""
    batch = frames(LENGTHS)
    for name in adapter.losses:
        values = batch.values.clone().requires_grad_()
        _, losses = adapter.with_losses(Padded(values, batch.lengths), ANSWERS, adapter.losses)
        assert losses[name].requires_grad, f"{name} has no gradient"
        (gradient,) = torch.autograd.grad(losses[name], values, materialize_grads=True)
        assert gradient.isfinite().all()
        assert torch.equal(gradient.any(-1), batch.mask), f"{name} does not reach every frame, or reaches padding"


TRAINING_CHECKS = (
    trained_alike_in_a_batch,
    training_padding_is_inert,
    training_in_half_precision_is_close,
    own_losses_reach_every_frame,
)


# -- encoders ----------------------------------------------------------------------------------------------------------


def sounds(seconds: Sequence[float], seed: int = 0) -> list[np.ndarray]:
    """Noise whose loudness and colour change all the time, (N,) float32 each."""
    rng = np.random.default_rng(seed)
    made = []
    for duration in seconds:
        time = np.arange(round(duration * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        tone = np.sin(2 * np.pi * (300 + 200 * np.sin(3 * time + seed)) * time) * (0.2 + 0.1 * np.sin(7 * time))
        made.append((tone + 0.02 * rng.standard_normal(len(time))).astype(np.float32))
    return made


def encoded_alike_in_a_batch(encoder: Encoder, seconds: Sequence[float] = (0.1, 0.5, 1.23, 2.0, 3.7)) -> None:
    """Alone, in a batch and beside a longer neighbour: the same frames, whether or not they go through the layers together."""
    arrays = sounds(seconds)
    together = encoder(Audio.from_arrays(arrays)).rows()
    for array, found in zip(arrays, together, strict=True):
        alone = encoder(Audio.from_arrays([array])).rows()[0]
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)
        beside = encoder(Audio.from_arrays([array, arrays[-1]])).rows()[0]
        torch.testing.assert_close(beside, alone, rtol=1e-4, atol=1e-4)


def frame_counts_are_exact(
    encoder: Encoder, seconds: Sequence[float] = (0.1, 0.11, 0.62, 1.0, 1.2345, 7.7, 20.1, 30.0)
) -> None:
    """``output_lengths`` is what comes out, at the rate that the encoder names: the step of its frames, or its window."""
    counts = []
    for array in sounds(seconds):
        promised = encoder.output_lengths(torch.tensor([len(array)]))
        found = encoder(Audio.from_arrays([array]))
        assert torch.equal(found.lengths, promised)
        assert found.lengths.dtype == torch.int64
        assert found.values.shape == (1, int(promised), encoder.dim)
        assert found.values.isfinite().all()
        counts.append(int(promised))
    if counts[0] == counts[-1]:
        assert counts[0] * encoder.seconds_per_frame == pytest.approx(encoder.max_seconds)
    else:
        named = (seconds[-2] - seconds[-3]) / encoder.seconds_per_frame
        assert abs(counts[-2] - counts[-3] - named) < 1, f"{named:.2f} frames by the rate, {counts[-2] - counts[-3]} in fact"


def all_sound_is_heard(encoder: Encoder, seconds: Sequence[float] = (0.5, 1.0, 1.01, 1.0049)) -> None:
    """A burst of 5 ms anywhere, in the first and in the last 5 ms too, changes the frames."""
    for array in sounds(seconds):
        still = encoder(Audio.from_arrays([array])).values
        for start in (0, len(array) // 2, len(array) - BURST_SAMPLES):
            moved = float((encoder(with_burst(array, start)).values - still).abs().max())
            assert moved > 1e-3, f"a burst at sample {start} of {len(array)} is not heard"


def with_burst(array: np.ndarray, start: int) -> Audio:
    """The waveform, with something loud at sample ``start``."""
    changed = array.copy()
    changed[start : start + BURST_SAMPLES] += 0.5 * np.sin(np.arange(BURST_SAMPLES)).astype(np.float32)
    return Audio.from_arrays([changed])


def encoder_padding_is_zero(encoder: Encoder) -> None:
    """Zeros beyond each length, and twice the same."""
    audio = Audio.from_arrays(sounds([0.3, 1.4]))
    found = encoder(audio)
    assert not found.values[~found.mask].any()
    assert found.values[found.mask].any()
    assert torch.equal(found.values, encoder(audio).values)


def waveform_padding_is_inert(encoder: Encoder, garbage: Sequence[float] = (0.0,)) -> None:
    """What stands behind a waveform changes nothing: any number of zeros, or ``garbage`` where none are relied on."""
    clean = Audio.from_arrays(sounds([0.3, 1.4, 0.75]))
    wanted = encoder(clean).rows()
    wider = nn.functional.pad(clean.samples, (0, 5000))
    real = torch.arange(wider.shape[1]) < clean.lengths[:, None]
    for value in garbage:
        dirty = Audio(wider.masked_fill(~real, value), clean.lengths)
        for found, expected in zip(encoder(dirty).rows(), wanted, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def encoder_in_half_precision_is_close(encoder: Encoder) -> None:
    """bfloat16, as autocast and as weights, stays within its own rounding, also beyond the 256 steps that it can count."""
    audio = Audio.from_arrays(sounds([6.5, 1.1]))
    wanted = encoder(audio).values
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = [encoder(audio).values]
    narrow = copy.deepcopy(encoder)
    cast(narrow, torch.bfloat16)
    rounded.append(narrow(audio).values)
    for found in rounded:
        error = float((found.float() - wanted).norm() / wanted.norm())
        assert error < 0.03, f"relative error {error:.3f}"


def is_read(encoder: Encoder, name: str) -> bool:
    """Whether frames depend on a parameter: not on what pretraining masks with, nor on what lies behind the layer chosen."""
    if "masked_spec_embed" in name:
        return False
    if getattr(encoder, "layer", None) is None:
        return True
    number = re.search(r"\.layers\.(\d+)\.", name)
    return not BEHIND.search(name) and (number is None or int(number[1]) < encoder.depth)


def encoder_parameters_learn(encoder: Encoder) -> None:
    """A gradient for every parameter that is not fixed and that frames depend on, what a stage may train among them."""
    learnable = {name: each for name, each in encoder.named_parameters() if each.requires_grad and is_read(encoder, name)}
    with torch.enable_grad():
        found = encoder(Audio.from_arrays(sounds([0.8, 0.3]))).values
        target = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
        loss = (found - target).square().sum()
    assert loss.requires_grad == bool(learnable), "nothing has a gradient"
    gradients = torch.autograd.grad(loss, list(learnable.values()), materialize_grads=True) if learnable else ()
    deaf = [name for name, gradient in zip(learnable, gradients, strict=True) if not gradient.any()]
    assert not deaf, f"no gradient: {', '.join(deaf)}"


def saved_state_is_whole(build: Callable[[Path | None], PretrainedEncoder], folder: Path) -> None:
    """What ``save`` writes of weights that were moved makes the same encoder: its frames to the last bit, and its digest."""
    first, audio = build(None), Audio.from_arrays(sounds([0.8, 0.3]))
    untouched = first(audio).values
    awake(first.encoder)
    first.save(folder)
    second = build(folder)
    assert not torch.equal(first(audio).values, untouched)
    assert torch.equal(second(audio).values, first(audio).values)
    assert second.digest == hub.digest(first.encoder.state_dict())


ENCODER_CHECKS = (
    encoded_alike_in_a_batch,
    frame_counts_are_exact,
    all_sound_is_heard,
    encoder_padding_is_zero,
    waveform_padding_is_inert,
    encoder_in_half_precision_is_close,
    encoder_parameters_learn,
)


def pair_is_invariant(encoder: Encoder, *adapters: Adapter) -> None:
    """Waveforms through both: the same embeddings alone and in a mixed batch."""
    arrays = sounds([0.4, 2.3, 1.1])
    together = encoder(Audio.from_arrays(arrays))
    apart = [encoder(Audio.from_arrays([array])) for array in arrays]
    for adapter in adapters:
        for found, alone in zip(adapter(together).rows(), apart, strict=True):
            torch.testing.assert_close(found, adapter(alone).rows()[0], rtol=1e-3, atol=1e-4)


def pair_hears_the_end(encoder: Encoder, *adapters: Adapter) -> None:
    """As many embeddings as both promise, also of an end that fills no frame, and what sounds there changes them."""
    for array in sounds([0.5, 1.0049]):
        still, changed = encoder(Audio.from_arrays([array])), encoder(with_burst(array, len(array) - BURST_SAMPLES))
        promised = encoder.output_lengths(torch.tensor([len(array)]))
        for adapter in adapters:
            before, found = adapter(still), adapter(changed)
            if not adapter.lengths_are_bounds:
                assert torch.equal(found.lengths, adapter.output_lengths(promised))
            heard = found.values.shape != before.values.shape or float((found.values - before.values).abs().max()) > 1e-5
            assert heard, f"{type(adapter).__name__} does not hear the end of {len(array)} samples"


PAIR_CHECKS = (pair_is_invariant, pair_hears_the_end)


# -- losses ------------------------------------------------------------------------------------------------------------

LOSS_VARIANTS: dict[str, list[dict[str, Any]]] = {
    "matching": [{}, {"score": "dot", "mse": 0.5, "cosine": 0.0}, {"mse": 0.0, "projection_dim": 5}],
    "classifier": [{"channels": [3, 4, 5]}, {"labels": "sentiment", "weighting": "inverse"}, {"labels": "both"}],
    "contrastive": [{}, {"temperature": 1.0}],
}
OF_THE_BATCH = ("contrastive",)  # by definition not the sum of the losses of its utterances
WORDS = (3, 1, 0, 5, 2, 7, 4, 6)  # tokens of each utterance; one says nothing


def build_loss(config: dict[str, Any]) -> SpeechLoss:
    """The loss of a recipe's stage, with these options, for a small LLM; it has seen the mixture."""
    name = config["name"]
    section = recipe.Losses.model_validate({name: {key: value for key, value in config.items() if key != "name"}})
    found: Any = losses.build({name: section.model_dump()[name]}, LLM_DIM)[name]
    found.observe((row, 1.0) for row in labelled())
    return found


def labelled() -> list[Utterance]:
    """Utterances as many as ``LENGTHS``, some without labels of either kind, with every class among them."""
    tags = ["LAW", "NORP", "ORG", "PERSON", "GPE", "MONEY", "DATE", "EVENT"]
    feelings = ["Negative", "mixed", "Positive", None, None, "Disagreement", "Positive", None]
    rows = []
    for number in range(len(LENGTHS)):
        named = tuple(Entity(tag, 0, 1, "x") for tag in (tags[number], tags[number - 1], "PERSON"))
        entities = None if number in (1, 4) else () if number == 3 else named
        text = " ".join("x" * WORDS[number])
        rows.append(Utterance(str(number), Path("x.wav"), text, 1.0, entities=entities, sentiment=feelings[number]))
    return rows


def pair(seed: int = 0) -> SpeechAndText:
    """Speech and text of every length, one text among them empty."""
    return SpeechAndText(frames(LENGTHS, LLM_DIM, seed), frames(WORDS, LLM_DIM, seed + 1), labelled())


def rows_of(batch: SpeechAndText) -> list[SpeechAndText]:
    """Each utterance of a batch, alone and without padding."""
    sides = zip(batch.speech.rows(), batch.text.rows(), batch.utterances, strict=True)
    return [SpeechAndText(Padded.from_rows([speech]), Padded.from_rows([text]), [row]) for speech, text, row in sides]


def is_the_sum_over_utterances(loss: SpeechLoss) -> None:
    """The value of a batch is the sum of its utterances' alone, and so is the number of targets."""
    batch = pair()
    torch.testing.assert_close(loss(batch), torch.stack([loss(row) for row in rows_of(batch)]).sum(), **FP32)
    answers = [[0] * (words + 1) for words in WORDS]
    each = [loss.target_count([answer], [row]) for answer, row in zip(answers, batch.utterances, strict=True)]
    assert loss.target_count(answers, batch.utterances) == sum(each)
    assert 0 in each, "a batch in which some utterance has no target shows more"
    for row, count in zip(rows_of(batch), each, strict=True):
        assert count > 0 or loss(row) == 0, "something without targets has a loss"


def loss_padding_is_inert(loss: SpeechLoss) -> None:
    """What stands in the padding of either side, and how much of it there is, changes nothing."""
    clean = pair()
    wanted = loss(clean)
    for speech, said in zip(soiled(clean.speech), soiled(clean.text), strict=True):
        torch.testing.assert_close(loss(SpeechAndText(speech, said, clean.utterances)), wanted, **FP32)


def loss_in_half_precision_is_close(loss: SpeechLoss) -> None:
    """Under autocast, from large embeddings in bfloat16, as from the same in float32, which the value is in both cases."""
    batch = pair()
    speech, text = (Padded(4 * side.values, side.lengths).to(dtype=torch.bfloat16) for side in (batch.speech, batch.text))
    wanted = loss(SpeechAndText(speech.to(dtype=torch.float32), text.to(dtype=torch.float32), batch.utterances))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(SpeechAndText(speech, text, batch.utterances))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.0)


def loss_reaches_speech_and_parameters(loss: SpeechLoss) -> None:
    """Every parameter, and every embedding of an utterance that has targets, gets a gradient; padding gets none."""
    batch = pair()
    values = batch.speech.values.clone().requires_grad_()
    loss(SpeechAndText(Padded(values, batch.speech.lengths), batch.text, batch.utterances)).backward()
    deaf = [name for name, parameter in loss.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not deaf, f"no gradient: {', '.join(deaf)}"
    assert values.grad is not None
    assert values.grad.isfinite().all()
    moved = values.grad.any(-1)
    counts = [loss.target_count([[0] * (words + 1)], [row]) for words, row in zip(WORDS, batch.utterances, strict=True)]
    expected = batch.speech.mask & (torch.tensor(counts) > 0)[:, None]
    assert torch.equal(moved, expected)


def nothing_to_learn_is_zero(loss: SpeechLoss) -> None:
    """Without any target the value is zero, and still has a graph for the other processes to wait for."""
    bare = Utterance("bare", Path("x.wav"), "", 1.0)
    speech = frames([4, 2], LLM_DIM).values.requires_grad_()
    batch = SpeechAndText(Padded(speech, torch.tensor([4, 2])), frames([0, 0], LLM_DIM), [bare, bare])
    value = loss(batch)
    assert loss.target_count([[0], [0]], [bare, bare]) == 0
    assert value == 0
    assert value.requires_grad
    value.backward()
    assert speech.grad is not None
    assert not speech.grad.any()


LOSS_CHECKS = (
    is_the_sum_over_utterances,
    loss_padding_is_inert,
    loss_in_half_precision_is_close,
    loss_reaches_speech_and_parameters,
    nothing_to_learn_is_zero,
)
