"""A speech encoder without weights, for tests, tutorials and ``recipes/toy.yaml``.

It really hears: log energies in a few bands, 50 frames a second, so that an adapter can learn something from it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stapes.encoders.base import Encoder
from stapes.types import SAMPLE_RATE_HZ, Audio, Padded

FRAME_SAMPLES = 320


class ToyEncoder(Encoder):
    """Log energies of ``dim`` bands over 20 ms, without overlap and without any learned weight.

    Args:
        dim: E, number of bands.
    """

    seconds_per_frame = FRAME_SAMPLES / SAMPLE_RATE_HZ
    max_seconds = 30.0
    padding_is_safe = True

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.dim = dim
        self.source = self.digest = f"toy-{dim}"
        # A parameter-free module has no device of its own; this buffer carries it and is no part of any checkpoint.
        self.register_buffer("taper", torch.hann_window(FRAME_SAMPLES), persistent=False)

    def encode(self, audio: Audio) -> Padded:
        """(B, N) -> (B, ceil(N / 320), dim); the last frame is filled up with silence."""
        lengths = self.output_lengths(audio.lengths)
        samples = torch.nn.functional.pad(audio.samples, (0, -audio.samples.shape[1] % FRAME_SAMPLES))
        spectrum = torch.fft.rfft(samples.unflatten(1, (-1, FRAME_SAMPLES)) * self.taper).abs().square()
        bands = torch.stack([band.mean(-1) for band in spectrum.tensor_split(self.dim, dim=-1)], dim=-1)
        return Padded((bands + 1e-6).log() / 8 + 1, lengths).zero_padding()

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Frames per waveform: ceil(N / 320)."""
        return -(-lengths // FRAME_SAMPLES)
