"""A training step and a decode of the pair, and the memory that they take against what was estimated."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator

import torch

from stapes import checkpoint, lora
from stapes.decoding.longform import Transcript, recognise
from stapes.doctor.base import Finding, Pair
from stapes.doctor.measure import peak_bytes
from stapes.model import SpeechLLM, Targets
from stapes.recipe import Decoding, Stage
from stapes.training import footprint, optim, sizes
from stapes.training.machine import attention
from stapes.types import Padded

STEPS = 3  # a layer that starts as zero hides others from the gradient until then
UTTERANCES, SECONDS = 4, sizes.SECONDS_PER_UTTERANCE
TOLERANCE = 0.25
SMALL_BYTES = 100e6  # below this, what is not in the estimate (the spectrum, random numbers) counts as much as what is
WORDS = "and what was said is written here with as many words as one would say in that time "


def training(pair: Pair) -> Iterator[Finding]:
    """Losses are numbers, and everything that is trained gets a gradient, and nothing else does."""
    model = pair.model
    sounds = [pair.cut(each, start=each) for each in (1.0, 1.7)]
    with torch.no_grad():
        frames = model.encode(pair.audio(*sounds))
    targets = Targets([model.answer("what was said"), model.answer("and something else")])
    learnt: set[str] = set()
    losses: list[float] = []
    with _in_training(pair) as (stage, optimizer):
        trained = {name for name, own in model.named_parameters() if own.requires_grad}
        for _ in range(STEPS):
            loss = _loss(model, frames, targets, stage)
            loss.backward()
            losses.append(float(loss.detach()))
            learnt |= {name for name, own in model.named_parameters() if own.grad is not None and bool(own.grad.any())}
            optimizer.step()
            optimizer.zero_grad()
    told = f"losses {', '.join(f'{loss:.3f}' for loss in losses)}"
    deaf, leaking = sorted(trained - learnt), sorted(learnt - trained)
    if not all(map(math.isfinite, losses)):
        yield Finding("training step", "wrong", f"{told}: not a number")
    elif deaf:
        told += f"; no gradient in {len(deaf)} of {len(trained)} tensors: {', '.join(deaf[:3])}"
        yield Finding("training step", "wrong", told)
    elif leaking:
        yield Finding("training step", "wrong", f"{told}; frozen tensors get a gradient: {', '.join(leaking[:3])}")
    else:
        yield Finding("training step", "ok", f"{told}; a gradient in all {len(trained)} tensors that are trained")


def training_memory(pair: Pair) -> Iterator[Finding]:
    """The peak of a step, against ``footprint.training``."""
    model = pair.model
    sounds = [pair.cut(SECONDS, start=7.0 * number) for number in range(UTTERANCES)]
    with torch.no_grad():
        frames = model.encode(pair.audio(*sounds))
    answer = model.answer(WORDS * 10)
    targets = Targets([answer[: round(SECONDS * sizes.TOKENS_PER_SECOND)]] * UTTERANCES)
    with _in_training(pair) as (stage, optimizer):

        def step() -> None:
            _loss(model, frames, targets, stage).backward()
            optimizer.step()
            optimizer.zero_grad()

        with torch.no_grad():
            embeddings, _ = model.adapter.with_losses(frames, targets.said, ())
        step()  # Adam's moments are there from now on
        moments = sum(value.nbytes for state in optimizer.state.values() for value in state.values() if value.dim())
        peak = peak_bytes(step, model.device)
    needed = footprint.training(_outline(pair, embeddings), pair.recipe, stage, plain_attention=model.device.type == "cpu")
    measured = None if peak is None else peak + moments
    yield _compared("memory of a step", needed.weights, needed.total - needed.weights, measured)


def decoding(pair: Pair) -> Iterator[Finding]:
    """Text comes out and ends, within memory as ``footprint.inference`` has it."""
    model = pair.model
    sounds = [pair.cut(SECONDS, start=7.0 * number) for number in range(UTTERANCES)]
    options = Decoding(tokens_per_second=sizes.TOKENS_PER_SECOND, tokens_spare=0)
    batch_seconds = UTTERANCES * SECONDS
    transcripts: list[Transcript] = []
    peak = peak_bytes(lambda: transcripts.extend(recognise(model, sounds, options, batch_seconds)), model.device)
    capped = sum(transcript.capped for transcript in transcripts)
    text = next((transcript.text for transcript in transcripts if transcript.text), "")
    told = (
        f"{len(transcripts)} answers of an untrained adapter, {len(transcripts) - capped} ended by the LLM, {capped} by the cap"
    )
    yield Finding("decoding", "ok", f"{told}; " + (f"one begins {text[:30]!r}" if text else "all of them empty"))
    with torch.inference_mode():
        embeddings = model.adapter(model.encode(pair.audio(*sounds)))
    needed = footprint.inference(_outline(pair, embeddings), pair.recipe, batch_seconds=batch_seconds)
    yield _compared("memory of decoding", needed.weights, needed.activations, peak)


@contextlib.contextmanager
def _in_training(pair: Pair) -> Iterator[tuple[Stage, torch.optim.Optimizer]]:
    """The pair as its stage trains it, while the context lasts; afterwards it is what it was."""
    model, (stage,) = pair.model, pair.recipe.resolved_stages
    start = {name: tensor.clone() for name, tensor in checkpoint.trained_state(model).items()}
    lora.set_trainable(model, stage.trainable)
    model.train()
    model.encoder.eval()
    try:
        yield stage, optim.optimizer(model, stage)
    finally:
        model.eval()
        lora.set_trainable(model, ())
        checkpoint.load_trained(model, start, "doctor")


def _outline(pair: Pair, embeddings: Padded) -> sizes.Outline:
    """What memory is estimated from, with the number of embeddings that is there where it depends on what is heard.

    The adapter is not trained, and what it gives for ``SECONDS`` of sound is not what is expected of one that is.
    """
    found = sizes.outline(pair.recipe)
    if not pair.model.adapter.lengths_are_bounds:
        return found
    return dataclasses.replace(found, embeddings_per_second=float(embeddings.lengths.float().mean()) / SECONDS)


def _loss(model: SpeechLLM, frames: Padded, targets: Targets, stage: Stage) -> torch.Tensor:
    """All the losses of a stage, each for one target, as the training loop has them."""
    with attention(model.device):
        losses = model(frames, targets, stage.losses)
    counts = model.target_counts(targets)
    return torch.stack([stage.losses[name] * loss / max(1, counts[name]) for name, loss in losses.items()]).sum()


def _compared(check: str, weights: int, estimated: int, measured: int | None) -> Finding:
    """An estimate beside a measurement, both beyond the weights."""
    told = f"{(weights + estimated) / 1e9:.2f} GB estimated, {estimated / 1e6:.0f} MB of it beyond the weights"
    if measured is None:
        return Finding(check, "ok", f"{told}; not measured on this device")
    told += f"; measured were {measured / 1e6:.0f} MB"
    is_near = abs(estimated / max(1, measured) - 1) <= TOLERANCE
    if max(estimated, measured) < SMALL_BYTES:
        return Finding(check, "ok", f"{told} (too little to compare)")
    return Finding(check, "ok" if is_near else "warning", told + ("" if is_near else f", {estimated / measured - 1:+.0%}"))
