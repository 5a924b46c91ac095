"""Broken encoders and adapters that more than one check has to catch: those of the contract suites, and ``stapes doctor``'s."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stapes.adapters.stack_mlp import StackMLP
from stapes.encoders.toy import ToyEncoder
from stapes.types import Audio, Padded


class PeaksOverTheBatch(ToyEncoder):
    """Normalises by the loudest frame of the batch, padding included, instead of the utterance's own."""

    def forward(self, audio: Audio) -> Padded:
        found = super().forward(audio)
        return Padded(found.values - found.values.max(), found.lengths).zero_padding()


class DeafAtTheEnd(ToyEncoder):
    """Gives frames for the last 40 ms that no sound gets into."""

    def forward(self, audio: Audio) -> Padded:
        found = super().forward(audio)
        last = torch.arange(found.values.shape[1]) >= found.lengths[:, None] - 2
        return Padded(found.values.masked_fill(last[:, :, None], 1.0), found.lengths).zero_padding()


class LeavesPadding(ToyEncoder):
    """Gives the log energy of silence as padding."""

    def forward(self, audio: Audio) -> Padded:
        found = super().forward(audio)
        return Padded(found.values.masked_fill(~found.mask[:, :, None], -0.7), found.lengths)


class DropsRemainder(StackMLP):
    """Throws away the frames that do not fill a group."""

    def forward(self, frames: Padded) -> Padded:
        whole = max(self.stride, int(frames.lengths.max()) // self.stride * self.stride)
        return super().forward(Padded(frames.values[:, :whole], frames.lengths.clamp(max=whole)))

    def output_lengths(self, lengths: Tensor) -> Tensor:
        return (lengths // self.stride).clamp(min=1)


class TrustsPadding(StackMLP):
    """Takes for granted that the padding of its input is zero."""

    def forward(self, frames: Padded) -> Padded:
        values = F.pad(frames.values, (0, 0, 0, -frames.values.shape[1] % self.stride))
        values = self.out(F.relu(self.hidden(values.unflatten(1, (-1, self.stride)).flatten(2))))
        return Padded(values, self.output_lengths(frames.lengths)).zero_padding()


class KeepsABuffer(StackMLP):
    """Keeps something random that a state_dict has, and a checkpoint has not."""

    def __init__(self, encoder_dim: int, llm_dim: int, **options: Any) -> None:
        super().__init__(encoder_dim, llm_dim, **options)
        self.register_buffer("gain", torch.rand(self.out.out_features))

    def forward(self, frames: Padded) -> Padded:
        found = super().forward(frames)
        return Padded(found.values * self.gain, found.lengths)
