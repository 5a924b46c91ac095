"""What every speech encoder promises."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn

from stapes.errors import AudioError, CheckpointError
from stapes.types import Audio, Padded

LAYER_WEIGHTS = "layer_weights"  # the name of an encoder's mixture of hidden layers (encoders/pretrained.py)


class Encoder(nn.Module, ABC):
    """Waveforms (B, N) -> frames (B, T, E).

    The frames of an utterance are the same alone, in a batch and beside longer neighbours. A subclass says which of two ways
    leads there: ``padding_is_safe`` is true, and its ``encode`` masks or zeroes padding wherever a layer would read it; or it
    is false, and ``encode`` is given utterances of one length at a time, whatever the batch.

    Attributes:
        dim: E, the width of a frame.
        seconds_per_frame: time step of the output.
        max_seconds: the longest utterance it takes; what is longer goes through the long-audio path.
        padding_is_safe: whether utterances of unequal length go through the layers together.
        source: where the weights came from ("" if it has none).
        digest: of the tensors in use (``hub.digest``): the identity of the weights, whatever file they came from.
        window: how the input is framed; part of the key of cached features.
        base_digest: where a stage trains its own weights, the identity of those before (``lora.base_digest``); else "".
    """

    dim: int
    seconds_per_frame: float
    max_seconds: float
    padding_is_safe: bool
    source: str = ""
    digest: str = ""
    window: str = "none"
    base_digest: str = ""

    @property
    def is_trained(self) -> bool:
        """Whether any of its parameters, LoRA's included, is to get a gradient."""
        return any(parameter.requires_grad for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    @property
    def layer_digest(self) -> str:
        """Which of its layers the frames are; "" for its own output. Part of the key of cached features."""
        return ""

    def forward(self, audio: Audio) -> Padded:
        """Encode waveforms.

        Returns:
            (B, T, E) with lengths equal to ``output_lengths(audio.lengths)`` and zeros in the padding.

        Raises:
            AudioError: an utterance is longer than ``max_seconds``.
        """
        self.check_length(audio)
        if self.padding_is_safe:
            return self.encode(audio)
        rows: dict[int, Tensor] = {}
        for length in audio.lengths.unique().tolist():
            which = (audio.lengths == length).nonzero().flatten()
            alike = self.encode(Audio(audio.samples[which, :length], audio.lengths[which], audio.sample_rate))
            rows.update(zip(which.tolist(), alike.rows(), strict=True))
        return Padded.from_rows([rows[index] for index in range(len(rows))])

    @abstractmethod
    def encode(self, audio: Audio) -> Padded:
        """As ``forward``: any lengths up to ``max_seconds``, or equal ones where ``padding_is_safe`` is false."""

    def save(self, folder: Path) -> None:
        """Write its weights as they stand to a new folder, of which its constructor makes the same encoder (``path:FOLDER``).

        Raises:
            CheckpointError: its class has no way to.
        """
        raise CheckpointError(type(self).__name__, "cannot write its weights", "an encoder with a method `save`")

    @abstractmethod
    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Number of frames (B,) that waveforms of ``lengths`` samples (B,) give."""

    def check_length(self, audio: Audio) -> None:
        """Raise AudioError if an utterance exceeds the window."""
        longest = float(audio.seconds.max())
        if longest > self.max_seconds + 1e-6:
            raise AudioError(
                "encoder",
                f"{longest:.2f} s of audio",
                f"at most {self.max_seconds:g} s at once",
                "cut it first, as `stapes transcribe` does (decoding/longform.py)",
            )
