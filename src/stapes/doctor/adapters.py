"""What ``Adapter`` promises, tried behind the encoder: lengths, padding, and that the last frame is heard."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from stapes.adapters import Adapter
from stapes.doctor.base import Finding, Pair, difference, size
from stapes.types import Padded

FRAMES = (1, 2, 3, 5, 8, 13, 34, 89)
SAME = 1e-3
MANY_PER_SECOND = 30.0  # ours: an LLM then reads more than seven embeddings for each token that it writes


@torch.inference_mode()
def lengths(pair: Pair) -> Iterator[Finding]:
    """``output_lengths`` against what comes out, and the rate that the LLM has to read at."""
    model, adapter = pair.model, pair.model.adapter
    frames = _frames(pair)
    tried = [count for count in (*FRAMES, len(frames)) if count <= len(frames)]
    wrong = []
    for count in tried:
        found = adapter(Padded.from_rows([frames[:count]]))
        promised = int(adapter.output_lengths(torch.tensor([count], device=frames.device))[0])
        given = int(found.lengths[0])
        if given < 1 or given > promised or (given < promised and not adapter.lengths_are_bounds):
            wrong.append(f"{count} frames give {given}, promised were {promised}")
        elif found.values.shape != (1, given, model.llm.dim):
            wrong.append(f"{count} frames give {tuple(found.values.shape)}, expected (1, {given}, {model.llm.dim})")
    rate = int(adapter(Padded.from_rows([frames])).lengths[0]) / (len(frames) * model.encoder.seconds_per_frame)
    parameters = sum(parameter.numel() for parameter in adapter.parameters())
    told = f"{size(parameters)} parameters, {rate:.1f} embeddings a second, {30 * rate:.0f} of 30 s"
    if wrong:
        yield Finding("adapter", "wrong", "; ".join(wrong))
    elif rate > MANY_PER_SECOND:
        yield Finding("adapter", "warning", f"{told}: the LLM has much to read; an adapter that compresses costs less")
    else:
        yield Finding("adapter", "ok", told)


@torch.inference_mode()
def padding(pair: Pair) -> Iterator[Finding]:
    """The embeddings of an utterance alone and beside a longer one, whatever stands in the padding."""
    adapter = _awake(pair.model.adapter)
    frames = _frames(pair)
    rows = [frames[: max(1, len(frames) // share)] for share in (7, 3, 1)]
    batch = Padded.from_rows(rows)
    dirty = Padded(torch.where(batch.mask[:, :, None], batch.values, torch.full_like(batch.values, 1e3)), batch.lengths)
    alone = [adapter(Padded.from_rows([row])).rows()[0] for row in rows]
    worst = max(difference(found, wanted) for found, wanted in zip(adapter(dirty).rows(), alone, strict=True))
    told = f"alone and beside longer ones, embeddings differ by {worst:.1e}"
    yield Finding("adapter's padding", "ok" if worst <= SAME else "wrong", told)


@torch.inference_mode()
def last_frame(pair: Pair) -> Iterator[Finding]:
    """A change of the last frame changes an embedding, however many frames there are."""
    adapter = _awake(pair.model.adapter)
    frames = _frames(pair)
    deaf = []
    for count in (count for count in FRAMES if count <= len(frames)):
        changed = frames[:count].clone()
        changed[-1] += torch.linspace(-2.0, 2.0, frames.shape[1], device=frames.device) * frames.std()
        still, found = (adapter(Padded.from_rows([rows])).rows()[0] for rows in (frames[:count], changed))
        if difference(found, still) < 1e-6:
            deaf.append(count)
    told = f"not heard of {', '.join(map(str, deaf))} frames"
    if deaf and pair.model.adapter.lengths_are_bounds:
        yield Finding("last frame", "warning", f"{told}: the number of embeddings depends on what is heard")
    else:
        yield Finding("last frame", "wrong" if deaf else "ok", told if deaf else "heard, for any number of frames")


def _frames(pair: Pair) -> Tensor:
    """(T, E) of some seconds of the sound."""
    return pair.model.encode(pair.audio(pair.cut(min(6.0, pair.model.encoder.max_seconds)))).rows()[0]


def _awake(adapter: Adapter) -> Adapter:
    """A copy in which every parameter was moved a little: a layer that starts as zero would hide what it reads."""
    moved = copy.deepcopy(adapter)
    generator = torch.Generator().manual_seed(0)
    for parameter in moved.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=0.02)
    return moved
