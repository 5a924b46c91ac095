"""``cif``: continuous integrate-and-fire, as many embeddings as the text has tokens. "CIF-based" of arXiv 2409.17044.

    a_t = sigmoid(w . ReLU(LayerNorm(Conv1d(h)))_t + b);   c_t = a_1 + ... + a_t
    x_k = 1/beta sum_t |[c_{t-1}, c_t] n [k beta, (k+1) beta]| h_t,  k = 0 ... K-1;  z = Base(x)       Base: see ``transformer``
    quantity loss = | sum_t a_t / beta - U |

| paper | here | shape |
|---|---|---|
| encoder output, h unless layers stand before | ``frames.values`` | (B, T, E) |
| weights alpha_t | ``weights`` | (B, T), 0 in the padding |
| firing threshold beta, 1 | ``threshold`` | |
| tail threshold, 0.5 | ``tail`` | |
| number of tokens T* | U of ``with_losses``'s targets | |
| layers between the encoder output and h | ``layers_before`` | |
| Base | as in ``transformer`` | (B, K, 768) |

A frame is spread over the embeddings whose stretch of summed weight it lies in (CIF, arXiv 1905.11235). Which part of it
belongs to which is the length of an intersection, so that all are found at once, without a loop over frames.

In training the weights are scaled to add up to the number of target tokens, and the tail is left out. Elsewhere nothing is
scaled; a tail of at least ``tail`` gives one more embedding, scaled up to a whole one, and so does any tail where there would
be none at all.

Where this stands is not known from the paper. ``layers_before: 0``, the default, is the authors' code: at the very front, h
being the encoder's output. ``layers_before: 2`` is the other reading that there is of ``conv``, carried over to here, which is
ours: h is what the first projection and two of the layers make of the encoder's output, and both the weights and what they
gather are taken from it, at the layers' width. Those layers then have a say in how many fire, and learn from the quantity loss.

Differs from the paper: T* counts the transcript's tokens, whatever the task, with the end token (the authors' code: with the
beginning token). The optional CTC branch of the code, whose weight there is 0, is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stapes.adapters.layers import StridedConv
from stapes.adapters.transformer import Shortened
from stapes.types import Padded

EPS = 1e-4


class CIF(Shortened):
    """Integrate and fire before or inside ``Transformer``: (B, T, E) -> (B, K, D), K near the number of tokens.

    In training K is the number of tokens, also where there are fewer frames.

    Args:
        encoder_dim: E.
        llm_dim: D.
        dim: width of the layers.
        layers: how many.
        heads: attention heads of each.
        ffn_dim: width of their feed-forward part.
        dropout: in the layers.
        kernel: width in frames of the convolution that the weights come from, odd.
        threshold: beta, the weight of one embedding.
        tail: the least weight that is left over and fires, as a share of beta.
        layers_before: how many of the layers come before the weights; with 0, the projection comes after them too.
    """

    losses = ("quantity",)
    lengths_are_bounds = True
    over_frames = ("conv", "weight")

    def __init__(
        self,
        encoder_dim: int,
        llm_dim: int,
        dim: int = 768,
        layers: int = 4,
        heads: int = 12,
        ffn_dim: int = 3072,
        dropout: float = 0.1,
        kernel: int = 3,
        threshold: float = 1.0,
        tail: float = 0.5,
        layers_before: int = 0,
    ) -> None:
        super().__init__(encoder_dim, llm_dim, dim, layers, heads, ffn_dim, dropout, layers_before)
        self.threshold, self.tail = threshold, tail
        self.conv = StridedConv(self.width, self.width, kernel, 1, nn.Sequential(nn.LayerNorm(self.width), nn.ReLU()))
        self.weight = nn.Linear(self.width, 1)

    def forward(self, frames: Padded) -> Padded:
        """See ``Adapter.forward``."""
        hidden = self.before(frames)
        weights = self.weights(hidden)
        amount = weights.sum(1) / self.threshold
        whole = (amount + EPS).floor()
        left = (amount - whole).clamp(min=0)
        fires = ((left >= self.tail) & (left > EPS)) | (whole == 0)
        fired = self.integrate(hidden, weights, (whole + fires).long())
        # Only the last embedding can be part of one; where nothing is left over, the clamp keeps the division from exploding.
        last = torch.arange(fired.values.shape[1], device=weights.device) == (fired.lengths - 1)[:, None]
        scale = torch.where(last & fires[:, None], 1 / left.clamp(min=EPS)[:, None], torch.ones_like(left)[:, None])
        return self.after(Padded(fired.values * scale[:, :, None].to(fired.values.dtype), fired.lengths))

    def with_losses(
        self, frames: Padded, targets: Sequence[Sequence[int]], wanted: Collection[str]
    ) -> tuple[Padded, dict[str, Tensor]]:
        """See ``Adapter.with_losses``; quantity: |sum of weights / beta - number of tokens|, summed over the batch."""
        hidden = self.before(frames)
        weights = self.weights(hidden)
        tokens = torch.tensor([len(row) for row in targets], device=weights.device)
        amount = weights.sum(1)
        scaled = weights * ((tokens * self.threshold + EPS) / amount.clamp(min=EPS))[:, None]
        embeddings = self.after(self.integrate(hidden, scaled, tokens))
        losses = {"quantity": (amount / self.threshold - tokens).abs().sum()} if "quantity" in wanted else {}
        return embeddings, losses

    def weights(self, hidden: Padded) -> Tensor:
        """Of h (B, T, C): (B, T) in float32, between 0 and 1, and 0 in the padding."""
        with torch.autocast(hidden.values.device.type, enabled=False):  # rounding would decide how many fire
            logits = self.weight(self.conv(hidden).values)[:, :, 0]
            return logits.float().sigmoid().masked_fill(~hidden.mask, 0.0)

    def integrate(self, hidden: Padded, weights: Tensor, lengths: Tensor) -> Padded:
        """What each embedding gathers: h (B, T, C) and weights (B, T) -> (B, K, C), K given by ``lengths``."""
        # In float64: over a long recording, sums in float32 are off by as much as the share of a frame that matters.
        ends = weights.double().cumsum(1)
        starts = F.pad(ends[:, :-1], (1, 0))
        edges = self.threshold * torch.arange(int(lengths.max()) + 1, device=weights.device, dtype=ends.dtype)
        low = torch.maximum(starts[:, None, :], edges[None, :-1, None])
        high = torch.minimum(ends[:, None, :], edges[None, 1:, None])
        share = ((high - low).clamp(min=0) / self.threshold).to(hidden.values.dtype)
        return Padded(share @ hidden.zero_padding().values, lengths).zero_padding()

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """T / beta, rounded up: an upper bound of what ``forward`` gives, for a frame weighs less than 1."""
        return (lengths / self.threshold).ceil().long()
