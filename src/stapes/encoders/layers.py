"""What encoders of waveforms share: windows over samples, and layers that do not read padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """How frames lie over a waveform.

    Attributes:
        frame_samples: what one frame reads.
        hop_samples: from one to the next.
    """

    frame_samples: int
    hop_samples: int

    @classmethod
    def of(cls, kernels: Sequence[int], strides: Sequence[int]) -> Self:
        """The windows of a stack of convolutions without padding."""
        reach, hop = 1, 1
        for kernel, stride in zip(kernels, strides, strict=True):
            reach, hop = reach + (kernel - 1) * hop, hop * stride
        return cls(reach, hop)

    def frames(self, lengths: Tensor) -> Tensor:
        """The fewest frames (B,) that read all of ``lengths`` samples; at least one."""
        return 1 - (self.frame_samples - lengths).clamp(max=0) // self.hop_samples

    def samples(self, frames: Tensor) -> Tensor:
        """How many samples (B,) that many frames read."""
        return (frames - 1) * self.hop_samples + self.frame_samples

    def complete(self, samples: Tensor, frames: Tensor) -> Tensor:
        """Waveforms (B, N), zeros in the padding, cut or completed with zeros to what ``frames`` read at most."""
        size = int(self.samples(frames).max())
        return F.pad(samples, (0, max(0, size - samples.shape[1])))[:, :size]


def group_norm(hidden: Tensor, lengths: Tensor, norm: Any) -> Tensor:
    """A GroupNorm module over (B, channels, T) whose means are over the first ``lengths`` steps (B,) only."""
    grouped = hidden.float().unflatten(1, (norm.num_groups, -1))
    mask = torch.arange(hidden.shape[2], device=hidden.device) < lengths[:, None, None, None].to(hidden.device)
    count = mask.sum(-1, keepdim=True) * grouped.shape[2]
    mean = grouped.masked_fill(~mask, 0.0).sum((2, 3), keepdim=True) / count
    variance = (grouped - mean).masked_fill(~mask, 0.0).square().sum((2, 3), keepdim=True) / count
    normed = ((grouped - mean) / (variance + norm.eps).sqrt()).flatten(1, 2).to(hidden.dtype)
    return normed * norm.weight[:, None] + norm.bias[:, None]


def key_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, T), true where a key is real -> (B, 1, 1, T) to be added to attention scores, which any kind of attention takes."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)[:, None, None]
