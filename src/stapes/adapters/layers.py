"""Building blocks that several adapters share; each is blind to padding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stapes.errors import RecipeError
from stapes.types import Padded


def stack(frames: Padded, size: int) -> Padded:
    """Put ``size`` frames side by side, the last group filled up with zeros: (B, T, E) -> (B, ceil(T / size), size E)."""
    values = frames.zero_padding().values
    values = F.pad(values, (0, 0, 0, -values.shape[1] % size))
    return Padded(values.unflatten(1, (-1, size)).flatten(2), -(-frames.lengths // size))


def windows(frames: Padded, size: int) -> Padded:
    """Cut each utterance into K = ceil(T / size) windows, the last one shorter: (B, T, E) -> (B K, min(size, T), E).

    A window that lies in the padding has length zero.
    """
    size = min(size, frames.values.shape[1])
    stacked = stack(frames, size).values
    starts = size * torch.arange(stacked.shape[1], device=frames.lengths.device)
    lengths = (frames.lengths[:, None] - starts).clamp(0, size)
    return Padded(stacked.unflatten(2, (size, -1)).flatten(0, 1), lengths.flatten())


def runs(labels: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Weights that average runs: neighbours with one label, of those steps that are kept.

    Args:
        labels: (B, T) int64, 0 or more.
        kept: (B, T) bool, in every row at least one; a run ends where a step is not kept.

    Returns:
        (B, T, R) float32, each column of a run adding up to 1, and the number of runs (B,).
    """
    before = F.pad(torch.where(kept, labels, -1), (1, 0), value=-1)[:, :-1]
    run = ((kept & (labels != before)).cumsum(1) - 1).clamp(min=0)
    lengths = run.masked_fill(~kept, -1).amax(1) + 1
    weight = F.one_hot(run, int(lengths.max())).float() * kept[:, :, None]
    return weight / weight.sum(1, keepdim=True).clamp(min=1.0), lengths


def key_mask(frames: Padded) -> Tensor | None:
    """(B, 1, 1, T) bool, true for what attention may read; None where that is everything, which is quicker.

    A row that is padding throughout may be read: not every kernel of torch gives numbers for a softmax over nothing.
    """
    mask = frames.mask
    return None if bool(mask.all()) else (mask | ~mask.any(1, keepdim=True))[:, None, None, :]


class StridedConv(nn.Module):
    """Conv1d over time, then GELU or what is given: (B, T, E) -> (B, ceil(T / stride), C).

    Padding is zeroed before the convolution reads across it, so that a neighbour's length changes nothing; half a kernel of
    zeros stands at either end, so that the first and the last frame are heard.

    Args:
        in_dim: E.
        out_dim: C.
        kernel: width in frames, odd; 2 x stride - 1 at least, for the last frame may stand stride - 1 after the last step.
        stride: frames per output.
        then: maps what the convolution gives, step by step; GELU where it is None.
        groups: of channels that the convolution keeps apart.

    Raises:
        RecipeError: an even kernel, which would leave a frame too many at the end, or a narrow one, which would not hear it.
    """

    def __init__(
        self, in_dim: int, out_dim: int, kernel: int, stride: int, then: nn.Module | None = None, groups: int = 1
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise RecipeError("adapter.kernel", f"{kernel}", "an odd number")
        if kernel < 2 * stride - 1:
            raise RecipeError("adapter.kernel", f"{kernel} for a stride of {stride}", f"{2 * stride - 1} or more")
        self.stride = stride
        self.conv = nn.Conv1d(in_dim, out_dim, kernel, stride, padding=kernel // 2, groups=groups)
        self.then = nn.GELU() if then is None else then

    def forward(self, frames: Padded) -> Padded:
        """Convolve; see the class."""
        values = self.conv(frames.zero_padding().values.mT).mT
        return Padded(self.then(values), self.output_lengths(frames.lengths))

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """ceil(T / stride)."""
        return -(-lengths // self.stride)


class TransformerLayer(nn.Module):
    """Pre-norm Transformer layer with rotary positions (arXiv 2104.09864): (B, K, C) -> (B, K, C).

    Args:
        dim: C.
        heads: attention heads.
        ffn_dim: width of the feed-forward part.
        dropout: after attention and feed-forward.
        start_at_zero: let both branches start as the identity. A fresh CTC alignment then leaves its blank plateau at once,
            which layers started the usual way do not (docs/results.md).

    Raises:
        RecipeError: ``dim`` cannot be shared out among the heads in pairs, which rotary positions turn.
    """

    def __init__(self, dim: int, heads: int, ffn_dim: int, dropout: float, start_at_zero: bool = True) -> None:
        super().__init__()
        if dim % (2 * heads):
            raise RecipeError("adapter.heads", f"{heads} heads for a dim of {dim}", "a dim that is a multiple of 2 x heads")
        self.heads = heads
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.ffn_norm = nn.LayerNorm(dim)
        self.ffn_in = nn.Linear(dim, ffn_dim)
        self.ffn_out = nn.Linear(ffn_dim, dim)
        self.dropout = nn.Dropout(dropout)
        if start_at_zero:
            for linear in (self.out, self.ffn_out):
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)

    def forward(self, frames: Padded) -> Padded:
        """Attend over the real steps only; see the class."""
        hidden = frames.values
        query, key, value = self.qkv(self.attention_norm(hidden)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(rotate(query), rotate(key), value, attn_mask=key_mask(frames))
        hidden = hidden + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        hidden = hidden + self.dropout(self.ffn_out(F.gelu(self.ffn_in(self.ffn_norm(hidden)))))
        return Padded(hidden, frames.lengths)


def rotate(heads: Tensor, base: float = 10_000.0) -> Tensor:
    """Rotary position embedding of (B, heads, K, C / heads), computed in float32: bfloat16 cannot count past 256."""
    steps, width = heads.shape[-2:]
    frequency = base ** (-torch.arange(0, width, 2, device=heads.device, dtype=torch.float32) / width)
    angle = torch.arange(steps, device=heads.device, dtype=torch.float32)[:, None] * frequency
    real, imaginary = heads.float().chunk(2, dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([real * cos - imaginary * sin, imaginary * cos + real * sin], dim=-1).to(heads.dtype)
