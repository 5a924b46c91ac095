"""What depends on the device that trains: which kernels do attention, and what a resumed run has to find as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

MOST_PLAIN_SECONDS = 12.0  # of speech at an encoder's frame rate: measured on Whisper's, see ``attention``


def random_state(device: torch.device) -> list[Tensor]:
    """Of the CPU's generator and, on a GPU, of its own, from which dropout draws there."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def set_random_state(state: Sequence[Tensor], device: torch.device) -> None:
    """Take up what ``random_state`` gave."""
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)


def attention(device: torch.device, seconds: float = 0.0) -> contextlib.AbstractContextManager[None]:
    """On CPU, attention by plain matrix products: the backward pass of torch's fused kernel takes up to ten times as long there
    where a mask is given. Over ``seconds`` that are many, the forward pass of plain products takes longer than that.
    """
    plain = device.type == "cpu" and seconds < MOST_PLAIN_SECONDS
    return sdpa_kernel(SDPBackend.MATH) if plain else contextlib.nullcontext()
